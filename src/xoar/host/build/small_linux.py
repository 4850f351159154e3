"""A small Linux kernel for guests of 32 MiB: Debian's kernel source, configured for nothing but Xen's PVH.

Debian's own kernel needs 72 MiB to boot, because of where it is linked to and what is in it. This one
lies at 2 MiB, is 11 MiB with its data, and boots in 20 MiB. It has no networking, no modules, no disks.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from xoar.host import apt, bzimage, cache
from xoar.host.progress import Reporter

_PACKAGE = "linux-source-6.1"
_COMPILED_FILES = 930  # only the progress display depends on it

_CONFIG = """\
CONFIG_64BIT=y
CONFIG_SMP=y
CONFIG_EXPERT=y
CONFIG_PHYSICAL_START=0x200000
# CONFIG_RELOCATABLE is not set
# CONFIG_RETPOLINE is not set
CONFIG_PRINTK=y
CONFIG_BUG=y
CONFIG_MULTIUSER=y
CONFIG_SYSCTL=y
CONFIG_FUTEX=y
CONFIG_EPOLL=y
CONFIG_SHMEM=y
CONFIG_POSIX_TIMERS=y
CONFIG_HIGH_RES_TIMERS=y
CONFIG_NO_HZ_IDLE=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_TTY=y
CONFIG_UNIX98_PTYS=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_ACPI=y
CONFIG_HYPERVISOR_GUEST=y
CONFIG_PARAVIRT=y
CONFIG_XEN=y
# CONFIG_XEN_PV is not set
CONFIG_XEN_PVHVM=y
CONFIG_XEN_PVH=y
CONFIG_HVC_XEN=y
CONFIG_HVC_XEN_FRONTEND=y
CONFIG_LOCALVERSION="-small"
"""
_STAMPS = {"KBUILD_BUILD_USER": "xoar", "KBUILD_BUILD_HOST": "xoar", "KBUILD_BUILD_TIMESTAMP": "1970-01-01"}


def kernel(system: apt.Apt, show: Reporter) -> Path:
    """A folder with `vmlinux`, its `config` and `version`. Raises HostError."""

    def recipe(work: cache.Workspace) -> None:
        system.download([_PACKAGE], work.scratch)
        (package,) = work.scratch.glob("*.deb")
        apt.unpack(work.scratch, work.scratch / "package", work.log)
        archive = str(work.scratch / "package/usr/src" / f"{_PACKAGE}.tar.xz")
        # the largest part of the tree is headers of one graphics driver
        work.run(["tar", "-xf", archive, "--exclude=*/drivers/gpu/drm/amd/include/*"])
        tree = work.scratch / _PACKAGE

        def make(*words: str) -> None:
            work.run(["make", *words], cwd=tree, env=_STAMPS, on_line=on_line)

        def on_line(line: str) -> None:
            if re.match(r"\s*CC\s", line):
                work.step.advance()

        make("tinyconfig")
        with open(tree / ".config", "a") as config:
            config.write(_CONFIG)
        make("olddefconfig")
        make(f"-j{len(os.sched_getaffinity(0))}", "vmlinux")
        work.run(["objcopy", "--strip-all", "vmlinux", "stripped"], cwd=tree)
        (work.result / "vmlinux").write_bytes(bzimage.segments_only((tree / "stripped").read_bytes()))
        shutil.copyfile(tree / ".config", work.result / "config")
        (work.result / "version").write_text(f"{_PACKAGE} {apt.version_of(package)}\n")

    name = cache.key("small linux 1", apt.BINARY_SUITE, _PACKAGE, _CONFIG)
    title = "building a small Linux"
    return cache.build("small-linux", name, recipe, show, title=title, total=_COMPILED_FILES)
