"""The host that Xoar is measured against: Debian's Xen, a Debian domain 0, Debian's `xl`.

Domain 0 does what a Debian domain 0 does to get a guest running, in the same order (/etc/init.d/xen of
xen-utils-common), and leaves out all else: no boot loader, systemd, udev, disk or network; it asks every
50 ms and not every second whether a daemon is up, and starts `xl` without its wrapper script. All of that
favours stock.
What it has to say it writes to its console, which is Xen's, as lines that begin with "bench: ".
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xoar.host import apt, cache, cpio, emulator, pci
from xoar.host.build import guest, modules
from xoar.host.config import Config, Guest
from xoar.host.progress import Reporter

FAILURES = (r"\(XEN\) Panic on CPU", r"\(XEN\) Hardware Dom0 (crashed|shutdown|halted)", "bench: failed")

MEMORY_MIB = 512  # of domain 0; fixed, so that xl has no memory to take from it first
_KERNEL = "linux-image-amd64"  # the cloud kernel, which guests have, can't be domain 0
_HYPERVISOR = "xen-hypervisor-4.17-amd64"
_TOOLS = "xen-utils-4.17"
# Where Debian has them; xl finds its helpers by these paths
_PROGRAMS = (
    *(f"usr/lib/xen-4.17/bin/{name}" for name in ("oxenstored", "xenconsoled", "xen-init-dom0", "xl")),
    "usr/bin/xenstore-read",
)
_SETTINGS = ("etc/xen/xl.conf", "etc/xen/oxenstored.conf")
_MODULES = ("xen-privcmd", "xenfs", "xen-evtchn", "xen-gntdev", "xen-acpi-processor")  # in loading order
_LOADED_LATE = "libgcc_s.so.1"  # glibc opens it when xl ends a thread

_APPLETS = "sh cat echo insmod mkdir mount sleep"

# What domain 0 does first, with `modules` loaded: up to where `xl` works.
START = """#!/bin/sh
export PATH=/usr/lib/xen-4.17/bin:/usr/bin:/bin:/sbin
fail() { echo "bench: failed: $*"; sleep 1000000; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
while read -r module; do insmod /lib/modules/$module 2>/dev/null; done </lib/modules/order
mount -t xenfs xenfs /proc/xen || fail "this kernel is no domain 0"
mkdir -p /run/xen /run/lock /run/xenstored

XENSTORED_ROOTDIR=/run/xenstored oxenstored --pid-file /run/xenstore.pid || fail oxenstored
until xenstore-read -s / >/dev/null 2>&1; do sleep 0.05; done
xen-init-dom0 >/dev/null || fail xen-init-dom0
xenconsoled --pid-file /run/xenconsoled.pid || fail xenconsoled
"""

# A console's pty is read and not xenconsoled's log, which `tail -f` would look at once a second.
SHOW = """
xl create /etc/xen/guest.cfg >/dev/null || fail "xl create"
until tty=$(xenstore-read /local/domain/$(xl domid NAME)/console/tty 2>/dev/null); do sleep 0.05; done
exec cat $tty
"""

# `creates=N` on the kernel's command line: N guests one after the other; else one, whose console is shown.
_INIT = (
    START
    + """
for word in $(cat /proc/cmdline); do
    case $word in creates=*) creates=${word#creates=} ;; esac
done
number=0
while [ $number -lt ${creates:-0} ]; do
    number=$((number + 1))
    sleep PAUSE
    echo "bench: create $number"
    xl create /etc/xen/guest.cfg >/dev/null || fail "xl create"
    echo "bench: created $number"
    xl destroy NAME || fail "xl destroy"
    while xl domid NAME >/dev/null 2>&1; do sleep 0.05; done
done
[ -z "$creates" ] || sleep 1000000
"""
    + SHOW
)


@dataclass(frozen=True)
class Stock:
    """What a stock host boots, and Debian's versions of it."""

    xen: Path
    kernel: Path
    initramfs: Path
    qemu: emulator.Qemu
    xen_version: str
    kernel_version: str

    def launch(self, config: Config, creates: int = 0, devices: Iterable[pci.Device] = ()) -> emulator.Launch:
        """The start of a host on the machine of `config`, with these devices.

        With `creates` domain 0 creates and destroys the guest so often and says when; else it creates it once
        and shows its console.
        """
        return emulator.Launch(
            emulator.Machine(
                xen=str(self.xen),
                kernel=str(self.kernel),
                modules=[str(self.initramfs)],
                kernel_arguments="console=hvc0 quiet" + (f" creates={creates}" if creates else ""),
                # the last dom0= wins: PV, Debian's default; its Xen has no FLASK and ignores that option
                xen_arguments=f"dom0=pv dom0_mem={MEMORY_MIB}M,max:{MEMORY_MIB}M",
                memory_mib=config.host.memory_mib,
                cpus=config.host.cpus,
                devices=list(devices),
            ),
            self.qemu,
            self.xen_version,
            FAILURES,
        )


def build(
    system: apt.Apt, show: Reporter, images: guest.Images, config: Config, wanted: Guest, pause: int
) -> Stock:
    """The stock host for a guest that boots `images`; `pause` is its rest before each create, seconds."""
    init = _INIT.replace("NAME", wanted.name).replace("PAUSE", str(pause))
    entries = [
        cpio.file("etc/xen/guest.cfg", _guest_settings(config, wanted).encode()),
        cpio.file("boot/vmlinux", images.kernel.read_bytes()),
        cpio.file("boot/initramfs", images.initramfs.read_bytes()),
    ]
    return assemble(system, show, debian(system, show), init, entries)


def assemble(
    system: apt.Apt, show: Reporter, found: Path, init: str, entries: Iterable[cpio.Entry], applets: str = ""
) -> Stock:
    """A stock host made of what `debian` has `found`; domain 0 gets a script, and more files and applets of
    busybox."""
    program = guest.busybox(system, show)
    image = cpio.archive(
        [
            *(cpio.directory(path) for path in ("proc", "sys", "dev", "run", "var/lib/xen", "var/log/xen")),
            cpio.directory("tmp", 0o1777),
            cpio.symlink("var/run", "/run"),
            cpio.symlink("var/lock", "/run/lock"),
            cpio.character_device("dev/console", 5, 1),  # the kernel opens it before /dev is mounted
            cpio.file("bin/busybox", program.read_bytes(), 0o755),
            *(cpio.symlink(f"bin/{name}", "busybox") for name in f"{_APPLETS} {applets}".split()),
            cpio.file("init", init.encode(), 0o755),
            *entries,
            *_files(found / "root"),
        ]
    )

    def recipe(work: cache.Workspace) -> None:
        (work.result / "initramfs").write_bytes(image)

    title = "packing the stock host's domain 0"
    packed = cache.build("stock-dom0", cache.key(image), recipe, show, title=title)
    xen_version, kernel_version = (found / "versions").read_text().split()
    return Stock(
        found / "xen",
        found / "vmlinuz",
        packed / "initramfs",
        emulator.find(system, show),
        xen_version,
        kernel_version,
    )


def _guest_settings(config: Config, wanted: Guest) -> str:
    """The guest in xl.cfg(5)'s words."""
    return (
        f'name = "{wanted.name}"\ntype = "pvh"\nkernel = "/boot/vmlinux"\nramdisk = "/boot/initramfs"\n'
        f'cmdline = "{config.kernel_arguments(wanted)}"\n'
        f"memory = {wanted.memory_kib >> 10}\nvcpus = {wanted.vcpus}\n"
    )


def _files(folder: Path) -> list[cpio.Entry]:
    return [
        cpio.file(str(path.relative_to(folder)), path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def debian(
    system: apt.Apt,
    show: Reporter,
    packages: Iterable[str] = (),
    programs: Iterable[str] = (),
    drivers: Iterable[str] = (),
) -> Path:
    """A folder with Debian's `xen` (an ELF), `vmlinuz`, `versions` of both, and domain 0's `root/`.

    Domain 0 has these programs, of these packages, and these modules of its kernel, besides what `xl` needs.
    """
    wanted = (_TOOLS, "xenstore-utils", *packages)
    copied = (*_PROGRAMS, *programs)
    loaded = (*_MODULES, *drivers)

    def recipe(work: cache.Workspace) -> None:
        debs, tree, result = work.scratch / "debs", work.scratch / "tree", work.result / "root"
        debs.mkdir()
        kernel = system.depends(_KERNEL).split()[0]  # the meta package names the kernel of the day
        system.download([kernel, _HYPERVISOR], debs)
        versions = [apt.version_of(next(debs.glob(f"{package}_*"))) for package in (_HYPERVISOR, kernel)]
        system.download_with_dependencies(list(wanted), debs)
        apt.unpack(debs, tree, work.log)
        (work.result / "versions").write_text(" ".join(versions))
        (hypervisor,) = tree.glob("boot/xen-*.gz")  # QEMU starts ELF files only
        (work.result / "xen").write_bytes(gzip.decompress(hypervisor.read_bytes()))
        (image,) = tree.glob("boot/vmlinuz-*")
        shutil.copyfile(image, work.result / "vmlinuz")
        for name in (*copied, *_SETTINGS):
            _copy(tree / name, result / name)
        order = _loading_order(loaded, tree)
        for module in order:
            _copy(module, result / "lib/modules" / module.name)
        (result / "lib/modules/order").write_text("".join(f"{module.name}\n" for module in order))
        (late,) = tree.rglob(_LOADED_LATE)
        for library in guest.libraries([*(tree / name for name in copied), late], tree):
            place = "lib64" if library.name.startswith("ld-") else "lib"
            _copy(library, result / place / library.name)

    name = cache.key("stock 3", apt.BINARY_SUITE, repr((wanted, copied, _SETTINGS, loaded)))
    return cache.build("stock", name, recipe, show, title="preparing stock Debian Xen")


def _loading_order(names: Iterable[str], tree: Path) -> list[Path]:
    """The files of these modules, in that order, each after what it needs."""
    chosen = modules.select(names, {modules.plain(path.stem): path for path in tree.rglob("*.ko")})
    order: dict[Path, None] = {}
    for name in names:
        order |= dict.fromkeys(modules.order(modules.plain(name), chosen))
    return list(order)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
