"""Starts programs of unpacked Debian packages on any Debian: through their loader, with their libraries."""

from __future__ import annotations

from pathlib import Path

from xoar.host import apt

_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")


def command(tree: Path, program: str) -> list[str]:
    """The words that start `program`, a path below the folder of unpacked packages."""
    libraries = ":".join(str(tree / place) for place in _LIBRARIES)
    return [str(tree / apt.LOADER), "--library-path", libraries, str(tree / program)]
