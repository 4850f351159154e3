"""The disks of the controller: which one holds the volumes, which one is the exchange disk."""

import os
import time
from typing import NamedTuple

from xoar.blkback import direct
from xoar.blkback.errors import BlkBackError, DiskError
from xoar.blkback.lvm import Lvm
from xoar.blkback.names import GROUP

MAGIC = b"XOAR-EXCHANGE 1\n"
"""The first bytes of an exchange disk."""
_LABEL = b"LABELONE"  # LVM's label, in one of the first four sectors
_HEAD = 1 << 20  # bytes: a disk is blank if they are zero
_SETTLE = 2.0  # seconds without a new disk after which all of a controller's disks are taken to be there


class Disk(NamedTuple):
    """A disk of the controller; size in bytes."""

    name: str
    size: int

    @property
    def path(self) -> str:
        return f"/dev/{self.name}"


def present(system: str = "/sys/block") -> list[Disk]:
    """The disks that are there, by name: what has a device behind it and is no CD-ROM drive."""
    found = []
    for name in sorted(os.listdir(system)):
        if name.startswith("sr") or not os.path.exists(f"{system}/{name}/device"):
            continue
        try:
            with open(f"{system}/{name}/size") as file:
                size = int(file.read()) * 512
        except OSError:
            continue  # it has gone meanwhile
        if size:
            found.append(Disk(name, size))
    return found


def kind(head: bytes) -> str:
    """What the first MiB of a disk says: "exchange", "blank", "lvm" or "other"."""
    if head.startswith(MAGIC):
        return "exchange"
    if any(head[sector * 512 :].startswith(_LABEL) for sector in range(4)):
        return "lvm"
    return "other" if head.strip(b"\0") else "blank"


def look(disk: Disk) -> str:
    """What a disk is: "exchange", "ours", "blank", or why it is left alone."""
    try:
        found = kind(_head(disk))
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if found == "other":
        return "is neither blank nor Xoar's"
    if found != "lvm":
        return found
    try:
        groups = [row["vg_name"] for row in Lvm(disk.path).report("pvs", "vg_name", disk.path)]
    except BlkBackError as error:
        return f"has an LVM label that LVM does not like: {error}"
    if groups == [GROUP]:
        return "ours"
    # vgcreate was interrupted: LVM's label is there, but nothing that it could hold
    return "blank" if groups == [""] else f"belongs to volume group {', '.join(groups)}"


def data_disk(patience: float) -> tuple[Disk, dict[Disk, str]]:
    """The data disk, and what each disk is; waits for one up to `patience` seconds.

    Of several it is the first that is ours, else the first blank one. Raises DiskError.
    """
    end = time.monotonic() + patience
    seen: dict[Disk, str] = {}
    changed = time.monotonic()
    while True:
        now = present()
        if set(now) != set(seen):
            seen = {disk: seen.get(disk) or look(disk) for disk in now}
            changed = time.monotonic()
        for disk in now:
            if seen[disk] == "ours":
                return disk, seen
        settled = time.monotonic() - changed >= _SETTLE
        for disk in now if settled else ():
            if seen[disk] == "blank":
                return disk, seen
        if settled and time.monotonic() >= end:
            raise DiskError(_nothing(seen))
        time.sleep(0.2)


def exchange_disk() -> Disk | None:
    """The exchange disk, None if there is none."""
    for disk in present():
        try:
            if kind(_head(disk)) == "exchange":
                return disk
        except OSError:
            continue  # a disk that can't be read, or has gone meanwhile, is none
    return None


def _head(disk: Disk) -> bytes:
    with direct.Device(disk.path) as device, direct.buffer(min(_HEAD, disk.size)) as head:
        device.read(memoryview(head), 0)
        return head[:]


def tell(seen: dict[Disk, str]) -> str:
    """What each disk is, for people."""
    words = {"exchange": "is the exchange disk", "ours": "is Xoar's", "blank": "is blank"}
    return "; ".join(f"{disk.name} {words.get(what, what)}" for disk, what in seen.items())


def _nothing(seen: dict[Disk, str]) -> str:
    others = {disk: what for disk, what in seen.items() if what != "exchange"}
    if not others:
        return "no data disk: attach a blank disk to this controller"
    return f"no data disk: {tell(others)}; wipe the first MiB of the one to use"
