"""Builds the hypervisor: pinned source, our patches and Kconfig fragment; only `xen/`, no tools.

The result holds what the rest of the build takes from this very release: the ELF, the public headers
(as `<xen/...>`, the way they are installed) and the FLASK policy sources.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from xoar.host import cache, sources
from xoar.host.apt import Apt
from xoar.host.errors import CommandError, HostError
from xoar.host.progress import Reporter

HYPERVISOR = cache.CHECKOUT / "hypervisor"
_COMPILED_FILES = 413  # in Xen 4.17 with our Kconfig; only the progress display depends on it
_NEEDED = ("xen", "tools/flask/policy", "config", "Config.mk", "version.sh", "scripts")
_BUILT = shutil.ignore_patterns(".git", "*.o", "*.d", ".*.cmd", "*.o.tmp", "xen-syms*", "xen.gz")
# Fixed, so that the same inputs give the same hypervisor on every machine.
_STAMPS = {
    "XEN_WHOAMI": "xoar",
    "XEN_DOMAIN": "xoar",
    "XEN_BUILD_HOST": "xoar",
    "XEN_BUILD_DATE": "-",
    "XEN_BUILD_TIME": "-",
}


@dataclass(frozen=True)
class Xen:
    """A built hypervisor in the cache."""

    folder: Path

    @property
    def image(self) -> Path:
        """The ELF that a PVH/multiboot loader starts (QEMU's -kernel)."""
        return self.folder / "xen"

    @property
    def headers(self) -> Path:
        """Include path: Xen's public headers as <xen/...>."""
        return self.folder / "include"

    @property
    def flask(self) -> Path:
        """FLASK's sources: access_vectors, security_classes and initial_sids, and upstream's `policy/`."""
        return self.folder / "flask"

    @property
    def version(self) -> str:
        """The release and where it comes from, e.g. "4.17.5 (Debian 4.17.5+72-g01140da4e8-1)"."""
        return (self.folder / "version").read_text().strip()


def build(apt: Apt, show: Reporter, tree: Path | None = None) -> Xen:
    """Build the pinned Xen, or the user's own source `tree`. Raises HostError.

    The user's tree is copied, never written to, and gets our patches too.
    """
    patches = sorted((HYPERVISOR / "patches").glob("*.patch"))
    ours = [HYPERVISOR / "kconfig", *patches]
    if tree is None:
        source = sources.obtain(sources.load(HYPERVISOR / "source.toml"), apt, show)
        name = cache.key("xen", source.digest, *ours)
        origin = f"Debian {source.version}"
    else:
        if not (tree / "xen/Makefile").is_file():
            raise HostError(
                f"{tree} is not a Xen source tree: it has no xen/Makefile", hint="See --xen-source."
            )
        source = None
        origin = str(tree.resolve())
        name = cache.key("xen tree", *(item for part in _NEEDED for item in _hashed(tree / part)), *ours)

    def recipe(work: cache.Workspace) -> None:
        top = work.scratch / "source"
        if source is not None:
            source.unpack(top, work.log)
        else:
            assert tree is not None
            _copy(tree, top)
        for patch in patches:
            try:
                work.run(["patch", "-p1", "--batch", "--forward", "-i", str(patch)], cwd=top)
            except CommandError as error:
                error.message = f"{patch.name} does not apply to Xen {origin}"
                error.hint = f"Adapt {patch}; what it is for stands at its top."
                raise
        _make(work, top)
        _collect(top, work.result, origin)

    title = f"building Xen ({origin})"
    return Xen(cache.build("xen", name, recipe, show, title=title, total=_COMPILED_FILES))


def _hashed(path: Path) -> list[Path | str]:
    """The files of a tree that are sources, not products of a build in it."""
    if not path.is_dir():
        return [path.name, path] if path.is_file() else []
    found: list[Path | str] = []
    for folder, names, files in os.walk(path):
        skipped = _BUILT(folder, names + files)
        names[:] = sorted(set(names) - skipped)
        for file in sorted(set(files) - skipped):
            whole = Path(folder, file)
            if whole.is_file():
                found += [str(whole.relative_to(path)), whole]
    return found


def _copy(tree: Path, top: Path) -> None:
    for part in _NEEDED:
        if (tree / part).is_dir():
            shutil.copytree(tree / part, top / part, ignore=_BUILT, symlinks=True)
        elif (tree / part).is_file():
            top.joinpath(part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / part, top / part)


def _make(work: cache.Workspace, top: Path) -> None:
    shutil.copyfile(HYPERVISOR / "kconfig", top / "xen/.config")
    # no git above the scratch folder may be taken for Xen's own history
    settings = _STAMPS | {"GIT_CEILING_DIRECTORIES": str(top.parent)}

    def on_line(line: str) -> None:
        if re.match(r"\s*CC\s", line):
            work.step.advance()

    jobs = len(os.sched_getaffinity(0))
    work.run(["make", "-C", "xen", "olddefconfig"], cwd=top, env=settings)
    work.run(["make", "-C", "xen", f"-j{jobs}"], cwd=top, env=settings, on_line=on_line)


def _collect(top: Path, result: Path, origin: str) -> None:
    shutil.copyfile(top / "xen/xen", result / "xen")
    shutil.copytree(top / "xen/include/public", result / "include/xen")
    shutil.copytree(top / "xen/xsm/flask/policy", result / "flask")
    shutil.copytree(top / "tools/flask/policy", result / "flask/policy")
    defines = dict(
        re.findall(r'#define (XEN_\w+)\s+"?([^"\n]*)', (top / "xen/include/xen/compile.h").read_text())
    )
    release = f"{defines['XEN_VERSION']}.{defines['XEN_SUBVERSION']}{defines['XEN_EXTRAVERSION']}"
    (result / "version").write_text(f"{release} ({origin})\n")
