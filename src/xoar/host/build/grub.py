"""PVH GRUB, the boot loader of guests with their own kernel: Debian's, as it is.

It finds the menu on the guest's disks (its built-in configuration: debian/grub-xen-pvh of Debian's grub2).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from xoar.host import apt, cache
from xoar.host.progress import Reporter

_PACKAGE = "grub-xen-host"
_IMAGE = "usr/lib/grub-xen/grub-i386-xen_pvh.bin"


def grub(system: apt.Apt, show: Reporter) -> Path:
    """The boot loader: a 32-bit ELF with a PVH entry. Raises HostError."""

    def recipe(work: cache.Workspace) -> None:
        system.download([_PACKAGE], work.scratch)
        apt.unpack(work.scratch, work.scratch / "tree", work.log)
        shutil.copyfile(work.scratch / "tree" / _IMAGE, work.result / "grub")

    name = cache.key("grub 1", apt.BINARY_SUITE, _PACKAGE, _IMAGE)
    return cache.build("grub", name, recipe, show, title="preparing PVH GRUB") / "grub"
