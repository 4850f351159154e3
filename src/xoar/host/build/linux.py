"""Builds the kernel of the guest image `tiny`: Debian's pinned Linux, all off but `guests/tiny.config`.

Debian's own kernel takes 46 MiB of a guest before it does anything; this one makes 32 MiB enough.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from xoar.host import bzimage, cache, sources
from xoar.host.apt import Apt
from xoar.host.errors import HostError
from xoar.host.progress import Reporter

GUESTS = cache.CHECKOUT / "guests"
_COMPILED_FILES = 829  # in Linux 6.1 with our configuration; only the progress display depends on it
# Fixed, so that the same inputs give the same kernel on every machine; Linux wants a date.
_STAMPS = {
    "KBUILD_BUILD_USER": "xoar",
    "KBUILD_BUILD_HOST": "xoar",
    "KBUILD_BUILD_VERSION": "1",
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
}


def build(apt: Apt, show: Reporter) -> Path:
    """The kernel: an ELF with a PVH entry, without symbols. Raises HostError."""
    wanted = GUESTS / "tiny.config"
    source = sources.obtain(sources.load(GUESTS / "source.toml"), apt, show)
    name = cache.key("linux 1", source.digest, wanted, *(f"{key}={value}" for key, value in _STAMPS.items()))

    def recipe(work: cache.Workspace) -> None:
        top = work.scratch / "source"
        source.unpack(top, work.log)

        def on_line(line: str) -> None:
            if re.match(r"\s*CC\s", line):
                work.step.advance()

        # no git above the scratch folder may be taken for Linux's own history
        settings = _STAMPS | {"GIT_CEILING_DIRECTORIES": str(work.scratch)}
        jobs = len(os.sched_getaffinity(0))
        work.run(["make", "allnoconfig"], cwd=top, env=settings | {"KCONFIG_ALLCONFIG": str(wanted)})
        refused = missing(wanted.read_text(), (top / ".config").read_text())
        if refused:
            raise HostError(
                f"Linux {source.version} does not take these lines of {wanted}: {', '.join(refused)}",
                hint="An option was renamed or needs another one: see the Kconfig files of that release.",
            )
        work.run(["make", f"-j{jobs}", "vmlinux"], cwd=top, env=settings, on_line=on_line)
        work.run(["strip", "-o", "stripped", str(top / "vmlinux")])
        (work.result / "vmlinux").write_bytes(bzimage.segments_only((work.scratch / "stripped").read_bytes()))

    title = f"building the tiny guest's kernel (Debian {source.version})"
    return cache.build("linux", name, recipe, show, title=title, total=_COMPILED_FILES) / "vmlinux"


def missing(wanted: str, made: str) -> list[str]:
    """The settings of a configuration fragment that a kernel configuration does not have, in order.

    Both are in Kconfig's format; "# CONFIG_X is not set" is a setting, too. Kconfig itself drops without a
    word what it does not know or what lacks something it depends on.
    """
    lines = set(made.splitlines())
    settings = re.findall(r"^(?:CONFIG_\w+=.*|# CONFIG_\w+ is not set)$", wanted, re.MULTILINE)
    return [line for line in settings if line not in lines]
