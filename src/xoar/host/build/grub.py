"""PVH GRUB: the boot loader that starts a guest from its own disk.

Debian's build of GRUB for Xen's PVH domains reads the disk from inside the guest, through the guest's own
frontend, and takes the menu that it finds there (/boot/grub/grub.cfg).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from xoar.host import apt, cache
from xoar.host.progress import Reporter

_PACKAGE = "grub-xen-host"
_FILE = "usr/lib/grub-xen/grub-i386-xen_pvh.bin"


def grub(system: apt.Apt, show: Reporter) -> Path:
    """The boot loader, an ELF file for 32-bit x86 with a PVH entry. Raises HostError."""

    def recipe(work: cache.Workspace) -> None:
        system.download([_PACKAGE], work.scratch)
        apt.unpack(work.scratch, work.scratch / "tree", work.log)
        shutil.copyfile(work.scratch / "tree" / _FILE, work.result / "grub")

    name = cache.key("grub 1", apt.BINARY_SUITE, _PACKAGE)
    return cache.build("grub", name, recipe, show, title="preparing PVH GRUB") / "grub"
