"""Packs a folder into a squashfs image with Debian 12's mksquashfs; the same contents give the same bytes.

zstd because it is unpacked in software emulation: xz makes images a tenth smaller, and reads far slower.
"""

from __future__ import annotations

from pathlib import Path

from xoar.host import apt, cache, loader
from xoar.host.progress import Reporter

# A file is read in whole blocks; larger ones pack better and cost more memory and time per small file.
_BLOCK = 128 << 10  # bytes
_OPTIONS = (
    f"-noappend -all-root -no-xattrs -no-exports -mkfs-time 0 -all-time 0 -b {_BLOCK}"
    " -comp zstd -Xcompression-level 22 -quiet -no-progress"
)


def pack(system: apt.Apt, show: Reporter, folder: Path, image: Path, work: cache.Workspace) -> None:
    """Make `image` from what is below `folder`: modes are kept, all owners are root and all times zero."""
    work.run(
        [
            *loader.command(_tools(system, show), "usr/bin/mksquashfs"),
            str(folder),
            str(image),
            *_OPTIONS.split(),
        ]
    )


def _tools(system: apt.Apt, show: Reporter) -> Path:
    def recipe(work: cache.Workspace) -> None:
        debs = work.scratch / "debs"
        debs.mkdir()
        system.download_with_dependencies(["squashfs-tools"], debs)
        apt.unpack(debs, work.result, work.log)

    name = cache.key("squashfs tools 1", apt.BINARY_SUITE)
    return cache.build("squashfs-tools", name, recipe, show, title="preparing mksquashfs")
