"""Volumes on the data disk: thin logical volumes of one pool.

LVM's metadata is the only record there is. A volume with the tag "unfinished" is one that an import has not
filled yet, or a removal not removed: no guest gets it, and `Volumes.open` removes it. Both LVM's and the
pool's metadata change in one step or not at all, so nothing else needs care after a crash.

All volumes stay active: the device mapper then tells what each one takes, and attaching one runs no command.
"""

import contextlib
import errno
from collections.abc import Iterator
from typing import NamedTuple

from xoar.blkback import direct, disks, dm, names
from xoar.blkback.errors import CommandError, DiskError, RequestError
from xoar.blkback.layout import EXTENT, layout
from xoar.blkback.lvm import Lvm

_UNFINISHED = "unfinished"
_EXTENT_KIB = EXTENT >> 10
_RESERVE = 64  # the last 1/64 of the pool is for volumes that exist already
_POOL = f"{names.GROUP}/{names.POOL}"


class Volume(NamedTuple):
    """What LVM's metadata says of a volume; `origin` is the volume that it was cloned from, or empty."""

    size_kib: int
    origin: str
    unfinished: bool


class Pool(NamedTuple):
    """How full the pool is; `room` is what new contents may take, in bytes."""

    size_kib: int
    used_kib: int
    room: int


class Volumes:
    """The volumes of a data disk. Methods that change something are for one thread; they raise RequestError
    and leave nothing half-done that would look like a good volume."""

    def __init__(self, lvm: Lvm, disk: disks.Disk, chunk: int) -> None:
        self.disk = disk
        self.table: dict[str, Volume] = {}
        """By name; replaced as a whole when something changes, so any thread may read it."""
        self._lvm = lvm
        self._chunk = chunk

    @classmethod
    def open(cls, disk: disks.Disk, blank: bool) -> "Volumes":
        """The volumes of a disk that is ours, or that is blank and becomes ours. Raises DiskError."""
        lvm = Lvm(disk.path)
        try:
            if blank:
                lvm.run("vgcreate", "-y", "--physicalextentsize", f"{EXTENT}b", names.GROUP, disk.path)
            if not lvm.report("lvs", "lv_name", "-S", f"lv_name={names.POOL}", names.GROUP):
                _make_pool(lvm)
            _activate(lvm)
            (row,) = lvm.report("lvs", "chunk_size", _POOL)
            volumes = cls(lvm, disk, int(row["chunk_size"]))
            if dm.status(names.POOL_DEVICE) is None:
                # LVM sets up a pool in the kernel with its first volume, and keeps it from then on
                volumes._create("first", _EXTENT_KIB, "--addtag", _UNFINISHED)
            volumes._read()
            for name, volume in volumes.table.items():
                if volume.unfinished:
                    volumes._remove(name)
            volumes._read()
        except CommandError as error:
            raise DiskError(f"data disk {disk.name}: {error}") from error
        return volumes

    def pool(self) -> Pool:
        """How full the pool is. Raises DiskError if it does not work any more."""
        if self.disk not in disks.present():
            raise DiskError(f"data disk {self.disk.name} is gone")
        status = dm.status(names.POOL_DEVICE)
        use = dm.pool_use(status.text) if status else None
        if use is None:
            raise DiskError(f"the pool on data disk {self.disk.name} has failed")
        free = use.all_data - use.used_data - use.all_data // _RESERVE
        # metadata runs full only if there are many clones; then, too, nothing new is taken in
        if use.used_metadata > use.all_metadata - use.all_metadata // 16:
            free = 0
        return Pool(
            use.all_data * self._chunk >> 10, use.used_data * self._chunk >> 10, max(0, free) * self._chunk
        )

    def status(self, name: str) -> dm.Status | None:
        """A volume's device; None if there is none."""
        return dm.status(names.device(name))

    def get(self, name: str) -> Volume:
        """A finished volume. Raises RequestError(ENOENT, EBUSY)."""
        volume = self.table.get(name)
        if volume is None:
            raise RequestError(errno.ENOENT, f"there is no volume {_called(name)}")
        if volume.unfinished:
            raise RequestError(errno.EBUSY, f"volume {_called(name)} is not finished")
        return volume

    def create(self, name: str, size_kib: int) -> None:
        """Makes an empty volume."""
        with self._change(name):
            self._create(name, size_kib)

    def clone(self, source: str, name: str) -> None:
        """Makes a volume with the contents that another one has right now, as if its power were cut."""
        self.get(source)
        with self._change(name):
            self._lvm.run("lvcreate", "-y", "--type", "thin", "-kn", "-n", names.to_lv(name), _lv(source))

    def grow(self, name: str, size_kib: int) -> None:
        """Makes a volume larger, attached or not; xen-blkback tells the guest by itself."""
        volume = self.get(name)
        extents = _extents(size_kib)
        if extents * _EXTENT_KIB < volume.size_kib:
            raise RequestError(
                errno.EINVAL, f"volume {_called(name)} has {volume.size_kib} KiB already and can't shrink"
            )
        if extents * _EXTENT_KIB > volume.size_kib:
            try:
                self._lvm.run("lvextend", "-l", str(extents), _lv(name))
            finally:
                self._read()

    def delete(self, name: str) -> None:
        """Removes a volume; the disk hears that its blocks are free (those that no clone shares)."""
        self.get(name)
        status = self.status(name)
        if status and status.open_count:
            raise RequestError(errno.EBUSY, f"volume {_called(name)} is still open")
        try:
            self._lvm.run("lvchange", "--addtag", _UNFINISHED, _lv(name))
            self._remove(name)
        finally:
            self._read()

    @contextlib.contextmanager
    def unfinished(self, name: str, size_kib: int) -> Iterator[str]:
        """Makes a volume that nobody may use while the block fills the device whose path it gets; an error
        there removes the volume."""
        with self._change(name):
            self._create(name, size_kib, "--addtag", _UNFINISHED)
        try:
            yield names.path(name)
            self._lvm.run("lvchange", "--deltag", _UNFINISHED, _lv(name))
        except BaseException:
            self._remove(name)
            raise
        finally:
            self._read()

    @contextlib.contextmanager
    def _change(self, name: str) -> Iterator[None]:
        """What makes a new volume: the name is free, and the pool takes something new."""
        if name in self.table:
            raise RequestError(errno.EEXIST, f"there is a volume {_called(name)} already")
        if not self.pool().room:
            raise RequestError(errno.ENOSPC, "the pool is full: delete volumes or discard in guests")
        try:
            yield
        finally:
            self._read()

    def _create(self, name: str, size_kib: int, *options: str) -> None:
        # no wiping: what is not written yet reads as zero
        self._lvm.run(
            "lvcreate", "-y", "--type", "thin", "-kn", "-Wn", *options,
            "-V", f"{_extents(size_kib) * EXTENT}b", "--thinpool", names.POOL,
            "-n", names.to_lv(name), names.GROUP,
        )  # fmt: skip

    def _remove(self, name: str) -> None:
        # the pool does not pass on that the blocks of a removed volume are free, only discards
        with contextlib.suppress(OSError), direct.Device(names.path(name), write=True) as device:
            device.discard()
        self._lvm.run("lvremove", "-y", _lv(name))

    def _read(self) -> None:
        found = {}
        for row in self._lvm.report("lvs", "lv_name,lv_size,origin,lv_tags", names.GROUP):
            name = names.from_lv(row["lv_name"])
            if name is not None:
                found[name] = Volume(
                    int(row["lv_size"]) >> 10,
                    names.from_lv(row["origin"]) or "",
                    _UNFINISHED in row["lv_tags"].split(","),
                )
        self.table = found


def _called(name: str) -> str:
    return names.split(name)[1]


def _lv(name: str) -> str:
    return f"{names.GROUP}/{names.to_lv(name)}"


def _extents(size_kib: int) -> int:
    return -(-size_kib // _EXTENT_KIB)


def _make_pool(lvm: Lvm) -> None:
    (row,) = lvm.report("vgs", "vg_free_count", names.GROUP)
    plan = layout(int(row["vg_free_count"]))
    if plan is None:
        raise DiskError("the data disk is too small for a pool: 64 MiB at least")
    lvm.run(
        "lvcreate", "-y", "--type", "thin-pool", "-Zy", "--discards", "passdown",
        "-l", str(plan.extents), "--chunksize", f"{plan.chunk}b",
        "--poolmetadatasize", f"{plan.metadata}b", "--poolmetadataspare", "y",
        "-n", names.POOL, names.GROUP,
    )  # fmt: skip


def _activate(lvm: Lvm) -> None:
    """Activates all volumes. LVM has thin_check look at the pool's metadata before; if that finds something
    wrong, it is repaired. A volume that fails by itself is shown as bad."""
    try:
        lvm.run("vgchange", "-ay", names.GROUP)
    except CommandError:
        if dm.status(names.POOL_DEVICE) is not None:
            return
        # a repair leaves the metadata that it found as pool_meta0, ...: only the last is kept, for people
        for row in lvm.report("lvs", "lv_name", "-S", f"lv_name=~^{names.POOL}_meta[0-9]", names.GROUP):
            lvm.run("lvremove", "-y", f"{names.GROUP}/{row['lv_name']}")
        lvm.run("lvconvert", "-y", "--repair", _POOL)
        with contextlib.suppress(CommandError):
            lvm.run("vgchange", "-ay", names.GROUP)
        if dm.status(names.POOL_DEVICE) is None:
            raise
