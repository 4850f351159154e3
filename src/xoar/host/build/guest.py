"""The guests' images: Debian's cloud kernel as an ELF, and small initramfs images with busybox.

`debian` boots to a login on hvc0 (user root, no password: the console is the operator's). The second,
`debian-xentools`, has Xen's own XenStore programs besides, for tests from inside a guest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from xoar.host import apt, bzimage, cache, cpio
from xoar.host.build import linux
from xoar.host.progress import Reporter

_KERNEL = "linux-image-cloud-amd64"
_XEN_TOOLS = ["xen-utils-4.17", "xenstore-utils", "libxenstore4", "libxentoolcore1", "libc6", "libgcc-s1"]
_LOADED_LATE = "libgcc_s.so.1"  # glibc opens it when a thread is cancelled, as xenstore-watch does
_MODULES = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs")  # in loading order

_APPLETS = (  # of busybox, as links in /bin
    "sh ash cat cp dd df dmesg echo env false free getty grep halt head hexdump hostname init insmod kill ln "
    "ls login lsmod mkdir mknod more mount mv od poweroff ps pwd reboot rm rmdir sed setsid sleep stty sync "
    "tail test top touch tr true umount uname uptime vi wc xargs"
)

_FILES = {
    # Busybox's init; hvc0 is Xen's console.
    "etc/inittab": "::sysinit:/etc/rc\nhvc0::respawn:/sbin/getty -L hvc0 115200 vt100\n"
    "::ctrlaltdel:/sbin/reboot\n::restart:/sbin/init\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/shadow": "root::20000:0:99999:7:::\n",
    "etc/group": "root:x:0:\ntty:x:5:\n",
    "etc/shells": "/bin/sh\n",
    "etc/issue": "Debian GNU/Linux \\n \\l\n",
    "etc/profile": "export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root PS1='\\u@\\h:\\w\\$ '\n",
}

# `hostname=` on the kernel's command line names the guest; where XenStore's client is there and the
# command line is silent, the name that the Toolstack gave it.
_RC = """#!/bin/sh
mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
mount -t devtmpfs -o nosuid dev /dev
mkdir -p /dev/pts
mount -t devpts -o nosuid,noexec devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /run
for module in {modules}; do
    insmod /lib/modules/$module.ko $(cat /lib/modules/$module.options 2>/dev/null)
done
for word in $(cat /proc/cmdline); do
    case $word in hostname=*) name=${{word#hostname=}} ;; esac
done
hostname "${{name:-xoar}}"
dmesg -n 1
"""


@dataclass(frozen=True)
class Images:
    """What a guest boots: an ELF kernel with a PVH entry and an initramfs."""

    kernel: Path
    initramfs: Path


def debian(system: apt.Apt, show: Reporter) -> Images:
    """The default guest."""
    return Images(kernel(system, show) / "vmlinux", initramfs(system, show))


def tiny(system: apt.Apt, show: Reporter) -> Images:
    """The same user space on a kernel from a pinned source, for many guests of 32 MiB."""
    return Images(linux.build(system, show), initramfs(system, show))


def debian_xentools(system: apt.Apt, show: Reporter, extra: dict[str, Path] | None = None) -> Images:
    """The guest for tests: Xen's XenStore programs and drivers for Xen's interfaces on board.

    `extra` maps paths in the guest to files here (executable), such as a test's own static program.
    """
    return Images(kernel(system, show) / "vmlinux", initramfs(system, show, tools=True, extra=extra or {}))


def kernel(system: apt.Apt, show: Reporter) -> Path:
    """A folder with `vmlinux`, its `config`, `version` and the Xen modules (`modules/*.ko`)."""

    def recipe(work: cache.Workspace) -> None:
        package = system.depends(_KERNEL).split()[0]  # the meta package names the kernel of the day
        work.scratch.joinpath("debs").mkdir()
        system.download([package], work.scratch / "debs")
        tree = work.scratch / "tree"
        apt.unpack(work.scratch / "debs", tree, work.log)
        (image,) = tree.glob("boot/vmlinuz-*")
        (config,) = tree.glob("boot/config-*")
        (work.result / "vmlinux").write_bytes(bzimage.vmlinux(image.read_bytes()))
        shutil.copyfile(config, work.result / "config")
        (work.result / "modules").mkdir()
        for name in _MODULES:
            (module,) = tree.rglob(f"{name}.ko")
            shutil.copyfile(module, work.result / "modules" / module.name)
        (deb,) = work.scratch.glob("debs/*.deb")
        (work.result / "version").write_text(f"{package} {apt.version_of(deb)}\n")

    name = cache.key("guest kernel 1", apt.BINARY_SUITE, _KERNEL, *_MODULES)
    return cache.build("guest-kernel", name, recipe, show, title="preparing the guest kernel")


def busybox(system: apt.Apt, show: Reporter) -> Path:
    """Debian's statically linked busybox."""

    def recipe(work: cache.Workspace) -> None:
        system.download(["busybox-static"], work.scratch)
        apt.unpack(work.scratch, work.scratch / "tree", work.log)
        shutil.copy2(work.scratch / "tree/bin/busybox", work.result / "busybox")

    name = cache.key("busybox 1", apt.BINARY_SUITE)
    return cache.build("busybox", name, recipe, show, title="preparing busybox") / "busybox"


def xentools(system: apt.Apt, show: Reporter) -> Path:
    """A folder with Xen's `bin/xenstore*`, `bin/test-xenstore` and every library that they need in `lib/`.

    On any machine they run as `lib/ld-linux-x86-64.so.2 --library-path lib bin/xenstore-ls`.
    """

    def recipe(work: cache.Workspace) -> None:
        debs, tree = work.scratch / "debs", work.scratch / "tree"
        debs.mkdir()
        system.download(_XEN_TOOLS, debs)
        apt.unpack(debs, tree, work.log)
        for folder in ("bin", "lib"):
            (work.result / folder).mkdir()
        programs = [*tree.glob("usr/bin/xenstore*"), *tree.glob("usr/lib/xen-*/bin/test-xenstore")]
        programs = [path for path in programs if path.is_file()]  # one links to a package not taken
        for program in programs:
            shutil.copy2(program, work.result / "bin" / program.name)
        (late,) = tree.rglob(_LOADED_LATE)
        for library in libraries([*programs, late], tree):
            shutil.copy2(library, work.result / "lib" / library.name)

    name = cache.key("xentools 3", apt.BINARY_SUITE, *_XEN_TOOLS)
    return cache.build("xentools", name, recipe, show, title="preparing Xen's XenStore programs")


def libraries(programs: Iterable[Path], tree: Path) -> set[Path]:
    """The shared libraries below `tree` that these ELF files need, the loader among them."""
    inside = tree.resolve()
    available = {
        path.name: path
        for path in sorted(tree.rglob("*.so*"))
        # a link to an absolute path, as that of the loader, leads to the machine's own files
        if path.is_file() and path.resolve().is_relative_to(inside)
    }
    found: set[Path] = set()
    queue = [*programs, available["ld-linux-x86-64.so.2"]]
    while queue:
        path = queue.pop()
        if path.name in available:
            found.add(path)
        with open(path, "rb") as file:
            for section in ELFFile(file).iter_sections():
                if isinstance(section, DynamicSection):
                    needed = {getattr(tag, "needed", None) for tag in section.iter_tags()}
                    queue += {path for name, path in available.items() if name in needed} - found
    return found


def initramfs(
    system: apt.Apt, show: Reporter, *, tools: bool = False, extra: dict[str, Path] | None = None
) -> Path:
    """The initramfs file (cpio, not compressed: the image library compresses it)."""
    program = busybox(system, show)
    entries = [
        *(cpio.directory(path) for path in ("bin", "sbin", "proc", "sys", "dev", "run", "root", "mnt")),
        cpio.directory("tmp", 0o1777),
        cpio.character_device("dev/console", 5, 1),  # the kernel opens it for init before /dev is mounted
        cpio.character_device("dev/null", 1, 3, 0o666),
        cpio.file("bin/busybox", program.read_bytes(), 0o755),
        *(cpio.symlink(f"bin/{name}", "busybox") for name in _APPLETS.split()),
        *(
            cpio.symlink(f"sbin/{name}", "../bin/busybox")
            for name in ("init", "getty", "poweroff", "reboot", "halt")
        ),
        cpio.symlink("init", "bin/busybox"),
        cpio.file("etc/rc", _RC.format(modules=" ".join(_MODULES) if tools else "").encode(), 0o755),
        *(cpio.file(path, text.encode()) for path, text in _FILES.items()),
    ]
    if tools:
        entries += _tools(xentools(system, show), kernel(system, show) / "modules")
    entries += [cpio.file(path, source.read_bytes(), 0o755) for path, source in sorted((extra or {}).items())]
    image = cpio.archive(entries)

    def recipe(work: cache.Workspace) -> None:
        (work.result / "initramfs").write_bytes(image)

    title = "packing the guest's initramfs"
    return cache.build("initramfs", cache.key(image), recipe, show, title=title) / "initramfs"


def _tools(folder: Path, modules: Path) -> list[cpio.Entry]:
    entries = [
        cpio.file(f"bin/{path.name}", path.read_bytes(), 0o755) for path in sorted(folder.glob("bin/*"))
    ]
    for library in sorted(folder.glob("lib/*")):
        place = "lib64" if library.name.startswith("ld-") else "lib"
        entries.append(cpio.file(f"{place}/{library.name}", library.read_bytes(), 0o755))
    for module in sorted(modules.glob("*.ko")):
        entries.append(cpio.file(f"lib/modules/{module.name}", module.read_bytes()))
    # Linux itself refuses most of privcmd to a guest; tests that ask Xen to refuse must get that far
    entries.append(cpio.file("lib/modules/xen-privcmd.options", b"unrestricted=1\n"))
    return entries
