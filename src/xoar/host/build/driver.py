"""Images of the Linux driver domains NetBack and BlkBack: Debian's kernel, an initramfs with the agent.

A driver domain has little memory, so what is in an image lies in a squashfs file within the initramfs, and
takes memory only while it is used:

1. `/init` of the initramfs mounts the squashfs file, makes it the root, and deletes the initramfs.
2. Busybox's init runs `/etc/rc`: the kernel's file systems, the backend's module, mdev (which loads the
   driver of each device that appears), and then xen-pcifront, which makes the domain's own device appear.
3. Busybox's init runs the agent, `xoar.shards.<name>.main`, and again whenever it ends.

What the kernel asks for later (nftables' expressions, hashes) comes with modprobe. The agent and Python's
modules are compiled beforehand, and lie there without their sources.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from xoar.host import apt, bzimage, cache, cpio, loader
from xoar.host.build import freeze, guest, modules, squashfs, vmlinux
from xoar.host.progress import Reporter

_KERNEL = "linux-image-amd64"
_UNUSED = "amd_ucode_patch"  # 12 MiB for microcode, which is Xen's business
_PYTHON = "usr/bin/python3.11"
_LIBRARY = "usr/lib/python3.11"
_PACKAGED = "usr/lib/python3/dist-packages"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADED_LATE = "libgcc_s.so.1"  # glibc opens it when a thread ends
_FROZEN = (
    "traceback",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "_strptime",
)  # imported by C code
_SHARED = (
    "__init__.py",
    "shards/__init__.py",
    "abi",
    "xenstore",
)  # below src/xoar, besides the agent's own folders
_APPLETS = "cat hostname init ip mdev mkdir modprobe mount poweroff reboot sh udhcpc"
_FIRST = ("loop", "squashfs")
_ALWAYS = ("xen-pcifront", "virtio-pci", *_FIRST)


@dataclass(frozen=True)
class Images:
    """What a driver domain boots: an ELF kernel with PV and PVH notes, and its initramfs (not compressed)."""

    kernel: Path
    rootfs: Path


@dataclass(frozen=True)
class _Kind:
    """A driver domain: Debian's packages and of these the programs that its agent runs; the module of Linux
    that it is there for, and others that it can load; packages of Python, and modules it can do without."""

    name: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    backend: str
    modules: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def agent(self) -> str:
        """The agent's module."""
        return f"xoar.shards.{self.name}.main"


# Network cards of servers and of emulators that work without firmware, or mostly do.
_NICS = "8139cp atlantic bnxt_en e1000 e1000e i40e igb igc ixgbe r8169 tg3 virtio_net vmxnet3"
_CRC = "crc32c_generic crc32c-intel"  # that libcrc32c is made of: nf_tables and thin pools need it
_NFTABLES = (
    f"{_CRC} nf_conntrack_bridge nf_tables nft_chain_nat nft_ct nft_fib_inet nft_limit nft_log nft_masq"
    " nft_meta_bridge nft_nat nft_redir nft_reject_bridge nft_reject_inet"
)
_CONTROLLERS = "ahci ata_piix megaraid_sas mpt3sas nvme sd_mod virtio_blk virtio_scsi"
_THIN = f"dm-thin-pool {_CRC}"

_NETBACK = _Kind(
    "netback",
    ("nftables", "dnsmasq-base", "python3-pyroute2"),
    ("usr/sbin/nft", "usr/sbin/dnsmasq"),
    "xen-netback",
    ("bridge", "8021q", *_NFTABLES.split(), *_NICS.split()),
    ("pyroute2",),
    ("_hashlib",),  # it comes with OpenSSL's library, which BlkBack has for speed
)
_BLKBACK = _Kind(
    "blkback",
    ("lvm2", "thin-provisioning-tools", "qemu-utils"),
    ("sbin/lvm", "usr/sbin/pdata_tools", "usr/bin/qemu-img"),
    "xen-blkback",
    (*_THIN.split(), *_CONTROLLERS.split()),
)

_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do
    /bin/busybox insmod /$module
done
/bin/busybox mount -t squashfs -o ro,loop /root.squashfs /root
/bin/busybox mount --bind /bin/busybox /root/usr/bin/busybox
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""

_FILES = {
    "etc/rc": """#!/bin/sh
mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
mount -t tmpfs -o nosuid,nodev tmp /tmp
mkdir -p /run/lock
hostname {kind.name}
ip link set lo up
for word in $(cat /proc/cmdline); do
    case $word in  # the domain starts with more memory, for unpacking the initramfs
    xoar.memory=*) echo ${{word#xoar.memory=}} >/sys/devices/system/xen_memory/xen_memory0/target_kb ;;
    esac
done
modprobe {kind.backend}
mdev -d
modprobe xen-pcifront
for event in /sys/bus/pci/devices/*/uevent; do  # of devices that were there before mdev
    [ ! -e "$event" ] || echo add >"$event"
done
""",
    "etc/inittab": "::sysinit:/etc/rc\n"
    "::respawn:/usr/bin/python3 -ISB -m {kind.agent}\n"
    "::ctrlaltdel:/sbin/reboot\n",
    "etc/mdev.conf": '$MODALIAS=.* root:root 660 @modprobe -qb "$MODALIAS"\n',
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "usr/sbin": "bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "usr/bin/python3": "python3.11",
    "usr/bin/thin_check": "pdata_tools",
    "usr/bin/thin_dump": "pdata_tools",
    "usr/bin/thin_repair": "pdata_tools",
    "etc/resolv.conf": "../run/resolv.conf",
    "var/run": "../run",
    "var/lock": "../run/lock",
    "var/tmp": "../tmp",
}
_FOLDERS = "dev proc sys run tmp root mnt var"


def netback(system: apt.Apt, show: Reporter) -> Images:
    """The images of NetBack. Raises HostError."""
    return _images(_NETBACK, system, show)


def blkback(system: apt.Apt, show: Reporter) -> Images:
    """The images of BlkBack. Raises HostError."""
    return _images(_BLKBACK, system, show)


def kernel(system: apt.Apt, show: Reporter) -> Path:
    """A folder with `vmlinux`, its `version`, and all modules that driver domains can load (`modules/`)."""
    wanted = sorted(
        {*_ALWAYS, *(name for kind in (_NETBACK, _BLKBACK) for name in (kind.backend, *kind.modules))}
    )

    def recipe(work: cache.Workspace) -> None:
        package = system.depends(_KERNEL).split()[0]  # the meta package names the kernel of the day
        debs, tree, target = work.scratch / "debs", work.scratch / "tree", work.result / "modules"
        debs.mkdir()
        target.mkdir()
        system.download([package], debs)
        apt.unpack(debs, tree, work.log)
        (image,) = tree.glob("boot/vmlinuz-*")
        linux = vmlinux.without_btf(bzimage.vmlinux(image.read_bytes()))
        (work.result / "vmlinux").write_bytes(vmlinux.without_variable(linux, _UNUSED))
        files = {modules.plain(path.stem): path for path in tree.rglob("*.ko")}
        for module in modules.select(wanted, files).values():
            shutil.copyfile(module.path, target / module.path.name)  # whole: Linux checks its signature
        (deb,) = debs.glob("*.deb")
        (work.result / "version").write_text(f"{package} {apt.version_of(deb)}\n")

    name = cache.key("driver kernel 4", apt.BINARY_SUITE, _KERNEL, *wanted)
    return cache.build("driver-kernel", name, recipe, show, title="preparing the kernel of driver domains")


def _images(
    kind: _Kind, system: apt.Apt, show: Reporter, source: Path = cache.CHECKOUT / "src/xoar"
) -> Images:
    linux = kernel(system, show)
    return Images(linux / "vmlinux", _rootfs(kind, linux, source, system, show))


def _packages(kind: _Kind, system: apt.Apt, show: Reporter) -> Path:
    """A folder with Debian's packages for that kind, unpacked."""
    wanted = ["python3.11-minimal", "libpython3.11-stdlib", *kind.packages]

    def recipe(work: cache.Workspace) -> None:
        debs = work.scratch / "debs"
        debs.mkdir()
        system.download_with_dependencies(wanted, debs)
        apt.unpack(debs, work.result, work.log)
        for folder in ("doc", "locale", "man"):
            shutil.rmtree(work.result / "usr/share" / folder, ignore_errors=True)

    name = cache.key("driver packages 1", apt.BINARY_SUITE, *wanted)
    return cache.build(
        f"{kind.name}-packages", name, recipe, show, title=f"preparing the programs of {kind.name}"
    )


def _rootfs(kind: _Kind, linux: Path, source: Path, system: apt.Apt, show: Reporter) -> Path:
    tree = _packages(kind, system, show)
    busybox = guest.busybox(system, show)
    code = {path.relative_to(source.parent): path for path in _sources(kind, source)}

    def recipe(work: cache.Workspace) -> None:
        root, image = work.scratch / "root", work.scratch / "root.squashfs"
        available = {modules.plain(path.stem): path for path in linux.glob("modules/*.ko")}
        _system(root, kind)
        _modules(root, modules.select([*_ALWAYS, kind.backend, *kind.modules], available), linux)
        (root / "usr/bin/busybox").touch()  # the initramfs's one appears here: no memory for a second
        for path, file in code.items():
            _place(file, work.scratch / "code" / path)
        for package in kind.libraries:
            # its __init__ imports all that users might like; the agent names the modules that it needs
            shutil.copytree(tree / _PACKAGED / package, work.scratch / "code" / package)
            (work.scratch / "code" / package / "__init__.py").write_text("")
        _python(root / _LIBRARY, kind, work.scratch / "code", tree, work)
        _programs(root, [_PYTHON, *kind.programs], tree)
        work.run([*loader.command(root, _PYTHON), "-IS", "-c", f"import {kind.agent}"])  # nothing is missing
        squashfs.pack(system, show, root, image, work)
        first = modules.select(_FIRST, available)
        (work.result / "rootfs").write_bytes(_initramfs(busybox.read_bytes(), image.read_bytes(), first))

    recipes = [Path(module.__file__ or "") for module in (sys.modules[__name__], freeze, modules, squashfs)]
    inputs: list[str | Path] = ["driver rootfs 1", kind.name, tree.name, linux / "version", busybox, *recipes]
    for path, file in code.items():
        inputs += [str(path), file]
    name = cache.key(*inputs)
    title = f"packing the image of {kind.name}"
    return cache.build(f"{kind.name}-rootfs", name, recipe, show, title=title) / "rootfs"


def _sources(kind: _Kind, source: Path) -> list[Path]:
    """The agent's source files below `source`, the folder of the package xoar."""
    places = [source / place for place in (*_SHARED, kind.name, f"shards/{kind.name}")]
    return [
        file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))
    ]


def _system(root: Path, kind: _Kind) -> None:
    """What holds everything together: folders, links, configuration."""
    for folder in (*_FOLDERS.split(), "etc", "usr/bin", "usr/lib64", _LIBRARIES):
        (root / folder).mkdir(parents=True)
    links = _LINKS | {f"usr/bin/{name}": "busybox" for name in _APPLETS.split()}
    for path, target in links.items():
        (root / path).symlink_to(target)
    for path, text in _FILES.items():
        (root / path).write_text(text.format(kind=kind))
        (root / path).chmod(0o755 if text.startswith("#!") else 0o644)


def _modules(root: Path, chosen: dict[str, modules.Module], linux: Path) -> None:
    """The kernel's modules with the indexes for modprobe."""
    release = (linux / "version").read_text().split()[0].removeprefix("linux-image-")
    folder = root / "usr/lib/modules" / release
    for module in chosen.values():
        _place(module.path, folder / module.path.name)
    (folder / "modules.dep").write_text(modules.dependencies(chosen))
    (folder / "modules.alias").write_text(modules.aliases(chosen))


def _python(library: Path, kind: _Kind, code: Path, tree: Path, work: cache.Workspace) -> None:
    """The agent, and what it needs of Python's library, compiled by the Python that will run it."""
    work.run(
        [
            *(*loader.command(tree, _PYTHON), "-IS", freeze.__file__),
            *(str(library), str(code), "--", kind.agent, *_FROZEN, "--", *kind.unused),
        ]
    )


def _programs(root: Path, programs: list[str], tree: Path) -> None:
    """Programs and the libraries that they and Python's modules need."""
    for program in programs:
        _place(tree / program, root / "usr/bin" / Path(program).name, 0o755)
    (late,) = tree.rglob(_LOADED_LATE)
    users = [*(tree / program for program in programs), *root.glob(f"{_LIBRARY}/lib-dynload/*.so"), late]
    for library in guest.libraries(users, tree):
        if library.is_relative_to(root):
            continue  # one of Python's modules
        _place(library, root / _LIBRARIES / library.name, 0o755)


def _place(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _initramfs(busybox: bytes, image: bytes, first: dict[str, modules.Module]) -> bytes:
    order = list(dict.fromkeys(path for name in _FIRST for path in modules.order(name, first)))
    return cpio.archive(
        [
            cpio.directory("dev"),
            cpio.directory("root"),
            cpio.character_device("dev/console", 5, 1),  # the kernel opens it for init before /dev is mounted
            cpio.file("bin/busybox", busybox, 0o755),
            cpio.file("init", _INIT.format(modules=" ".join(path.name for path in order)).encode(), 0o755),
            *(cpio.file(path.name, path.read_bytes()) for path in order),
            cpio.file("root.squashfs", image),
        ]
    )
