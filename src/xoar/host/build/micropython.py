"""Builds MicroPython from the pinned Debian source: its cross compiler, and the unix port for tests."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from xoar.host import cache, sources
from xoar.host.apt import Apt
from xoar.host.progress import Reporter

PINS = cache.CHECKOUT / "nano/source.toml"
# Files that each build compiles; only the progress display depends on it
_CROSS_FILES = 131
_UNIX_FILES = 221

# The unix port without what tests of portable modules don't need; what is left out needs libraries, too.
_UNIX_SETTINGS = (
    "MICROPY_PY_BTREE=0",
    "MICROPY_PY_FFI=0",
    "MICROPY_PY_SSL=0",
    "MICROPY_PY_BLUETOOTH=0",
    "MICROPY_PY_THREAD=0",
    "MICROPY_PY_SOCKET=0",
    "FROZEN_MANIFEST=",
)


@dataclass(frozen=True)
class MicroPython:
    """MicroPython in the cache: its source tree, with mpy-cross built in it."""

    folder: Path
    digest: str  # what a build made from it depends on

    @property
    def source(self) -> Path:
        """The source tree: py/, shared/, tools/ ..."""
        return self.folder / "source"

    @property
    def mpy_cross(self) -> Path:
        """The compiler from Python source to bytecode."""
        return self.source / "mpy-cross/build/mpy-cross"


def build(apt: Apt, show: Reporter) -> MicroPython:
    """The source with its cross compiler. Raises HostError."""
    source = sources.obtain(sources.load(PINS), apt, show)
    name = cache.key("micropython", source.digest)

    def recipe(work: cache.Workspace) -> None:
        source.unpack(work.result / "source", work.log)
        _make(work, work.result / "source/mpy-cross", [])

    title = f"building MicroPython's compiler (Debian {source.version})"
    folder = cache.build("micropython", name, recipe, show, title=title, total=_CROSS_FILES)
    return MicroPython(folder, source.digest)


def unix_port(micropython: MicroPython, show: Reporter) -> Path:
    """The interpreter `micropython` for this machine, on which tests/nano runs. Raises HostError."""
    name = cache.key("micropython-unix", micropython.digest, *_UNIX_SETTINGS)

    def recipe(work: cache.Workspace) -> None:
        # a copy: the build writes into the source tree
        tree = work.scratch / "source"
        shutil.copytree(micropython.source, tree, symlinks=True)
        _make(work, tree / "ports/unix", list(_UNIX_SETTINGS))
        shutil.copyfile(tree / "ports/unix/build-standard/micropython", work.result / "micropython")
        (work.result / "micropython").chmod(0o755)

    title = "building MicroPython's unix port"
    folder = cache.build("micropython-unix", name, recipe, show, title=title, total=_UNIX_FILES)
    return folder / "micropython"


def _make(work: cache.Workspace, folder: Path, settings: list[str]) -> None:
    def on_line(line: str) -> None:
        if line.startswith("CC "):
            work.step.advance()

    jobs = len(os.sched_getaffinity(0))
    work.run(["make", f"-j{jobs}", *settings], cwd=folder, on_line=on_line)
