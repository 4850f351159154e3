"""The disk image of an ordinary Debian guest: own kernel, GRUB menu, cloud-init.

The image is one ext4 file system without a partition table: PVH GRUB and Linux read it as it is, and it
grows with its volume at the next boot. It is a qcow2 file compressed with zstd, because BlkBack checks the
SHA-256 of every byte on the exchange disk: the fewer bytes, the sooner the import is done.

`guests/debian/` holds the files that Xoar puts into the guest, at their places.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from xoar.host import apt, cache, mirrors
from xoar.host.build import linux
from xoar.host.progress import Reporter

FILES = linux.GUESTS / "debian"
SUITE = apt.BINARY_SUITE
SIZE = 2 << 30  # bytes that the guest sees; a volume may be larger, not smaller
UUID = "70657274-6861-4d00-8000-786f61720001"  # of the file system: /etc/fstab and the menu name it

# tiny-initramfs: GRUB reads 43 KB and not 6.6 MB, and udev goes through the devices once and not twice
_PACKAGES = (
    "linux-image-cloud-amd64 tiny-initramfs systemd-sysv udev dbus cloud-init openssh-server sudo"
    " systemd-resolved iproute2 iputils-ping ca-certificates less nano procps"
)
# Services that cost boot time and do nothing for a guest whose only terminal is hvc0.
_OFF = (
    "getty@tty1.service e2scrub_reap.service systemd-pstore.service systemd-network-generator.service"
    " e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer"
)
_ON = "serial-getty@hvc0.service systemd-networkd.service systemd-resolved.service"
# What systemd starts of itself and few need: it stays there to be started. Each is a process or two, and in
# software emulation a second of the boot. logind comes when D-Bus is asked for it.
_ON_DEMAND = (
    "dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount"
    " sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount"
    " systemd-binfmt.service systemd-repart.service systemd-firstboot.service systemd-sysusers.service"
    " systemd-update-utmp-runlevel.service systemd-logind.service"
)

# Run by mmdebstrap as the last step, with the guest's root folder as $1. Host keys must not be the same in
# all guests: cloud-init makes new ones. apt's own example names the distribution's servers, not our mirror.
_FINISH = f"""set -eu
chroot "$1" systemctl --quiet enable {_ON}
chroot "$1" systemctl --quiet disable {_OFF}
for wish in $(cd "$1/lib/systemd/system"; for unit in {_ON_DEMAND}; do ls -d *.wants/$unit; done); do
    mkdir -p "$1/etc/systemd/system/${{wish%/*}}"
    ln -s /dev/null "$1/etc/systemd/system/$wish"
done
chroot "$1" passwd --quiet --lock root
rm -f "$1"/etc/ssh/ssh_host_*
cp "$1/usr/share/doc/apt/examples/sources.list" "$1/etc/apt/sources.list"
echo debian >"$1/etc/hostname"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
"""

# Makes the file system $1 of $2 bytes from root.tar. Device nodes are the kernel's to make.
# mke2fs of Debian 13 would add the two features that are off here, which Debian 12's GRUB can't read.
_MKFS = f"""set -eu
trap 'rm -rf tree' EXIT
mkdir tree
tar --extract --file root.tar --directory tree --exclude='./dev/*' \\
    --numeric-owner --xattrs --xattrs-include='*'
truncate --size "$2" "$1"
mke2fs -q -t ext4 -d tree -L debian -m 1 -O ^metadata_csum_seed,^orphan_file \\
    -U {UUID} -E hash_seed={UUID},assume_storage_prezeroed=1 "$1"
"""


def debian(system: apt.Apt, show: Reporter, *, extra: tuple[str, ...] = (), rebuild: bool = False) -> Path:
    """The image (qcow2) of Debian 12 as the mirror has it now; `extra` are more packages to install.

    It is made once and then found in the cache; `rebuild` makes it anew, with what the mirror has by then,
    and takes the place of the old one when it is complete. A user who is not root needs an entry in
    /etc/subuid and /etc/subgid. Raises HostError with the log's place.
    """
    packages = ",".join([*_PACKAGES.split(), *extra])
    name = cache.key("debian disk 1", SUITE, packages, str(SIZE), _FINISH, _MKFS, FILES)

    def recipe(work: cache.Workspace) -> None:
        date = system.date()
        times = {"SOURCE_DATE_EPOCH": str(date), "E2FSPROGS_FAKE_TIME": str(date), "TMPDIR": "/var/tmp"}
        (work.scratch / "sources.list").write_text(sources_list(mirrors.configured()))
        pack(FILES, work.scratch / "files.tar", date)
        root = os.geteuid() == 0
        work.run(
            [
                "mmdebstrap", f"--mode={'root' if root else 'unshare'}", "--variant=minbase", "--format=tar",
                "--architectures=amd64", f"--include={packages}",
                "--essential-hook=tar-in files.tar /", f"--customize-hook={_FINISH}",
                SUITE, "root.tar", "sources.list",
            ],
            env=times,
        )  # fmt: skip
        make = ["sh", "-c", _MKFS, "sh", "disk.raw", str(SIZE)]
        # in a namespace of the user's own, files can have other owners
        work.run(make if root else ["unshare", "--map-root-user", "--map-auto", "--", *make], env=times)
        image = str(work.result / "debian.qcow2")
        work.run(
            ["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "disk.raw", image]
        )

    title = "building the Debian disk image"
    return cache.build("debian-disk", name, recipe, show, title=title, rebuild=rebuild) / "debian.qcow2"


def sources_list(where: mirrors.Mirrors) -> str:
    """Where the guest's packages come from while it is made."""
    suites = [(where.archive, SUITE), (where.archive, f"{SUITE}-updates")]
    if where.security:
        suites.append((where.security, f"{SUITE}-security"))
    return "".join(f"deb [signed-by={apt.KEYRING}] {server} {suite} main\n" for server, suite in suites)


def pack(folder: Path, archive: Path, date: int) -> None:
    """A tar archive of all files below `folder`, owned by root, that anybody may read."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.mtime = date
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.mode & 0o100 else 0o644
        return member

    with tarfile.open(archive, "w") as tar:
        tar.add(folder, ".", filter=plain)
