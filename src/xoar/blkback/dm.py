"""What the device mapper says of a device, asked of the kernel (linux/dm-ioctl.h): no LVM command for it.

Running lvm costs some 20 ms and megabytes; this is asked every few seconds, for all volumes.
"""

import errno
import fcntl
import os
import struct
from typing import NamedTuple

_CONTROL = "/dev/mapper/control"
# struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev,
# name[128], uuid[129], data[7]
_FIELDS = struct.Struct("=12xIIIiIIIQ128s")
_SIZE = 312
# struct dm_target_spec: sector_start, length, status, next, target_type[16]; then text that a nul ends
_TARGET_SIZE = 40
_BUFFER = 4096
_TABLE_STATUS = 3 << 30 | _SIZE << 16 | 0xFD << 8 | 12  # _IOWR(DM_IOCTL, DM_TABLE_STATUS_CMD)
_NOFLUSH = 1 << 11  # DM_NOFLUSH_FLAG: a pool's status without a commit of its metadata
_VERSION = (4, 0, 0)


class Status(NamedTuple):
    """A device: its numbers, how often it is open, and the status text of its first target."""

    major: int
    minor: int
    open_count: int
    text: str


class PoolUse(NamedTuple):
    """How full a pool is: blocks of metadata (4 KiB each) and of data (the pool's chunk size each)."""

    used_metadata: int
    all_metadata: int
    used_data: int
    all_data: int


def status(device: str) -> Status | None:
    """The status of a device, None if there is no such device. Raises OSError."""
    buffer = bytearray(_BUFFER)
    _FIELDS.pack_into(buffer, 0, _BUFFER, _SIZE, 0, 0, _NOFLUSH, 0, 0, 0, device.encode())
    struct.pack_into("=3I", buffer, 0, *_VERSION)
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _TABLE_STATUS, buffer)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    finally:
        os.close(control)
    return decode(bytes(buffer))


def decode(reply: bytes) -> Status:
    """The status in a reply of DM_TABLE_STATUS."""
    _, start, targets, opens, _, _, _, number, _ = _FIELDS.unpack_from(reply)
    text = b""
    if targets:
        text = reply[start + _TARGET_SIZE :].split(b"\0", 1)[0]
    return Status(os.major(number), os.minor(number), opens, text.decode("ascii", "replace"))


def pool_use(text: str) -> PoolUse | None:
    """How full a pool is, from its status text; None if the pool has failed.

    Format: Documentation/admin-guide/device-mapper/thin-provisioning.rst, "Status".
    """
    words = text.split()
    try:
        metadata, data = (tuple(map(int, word.split("/"))) for word in words[1:3])
        return PoolUse(metadata[0], metadata[1], data[0], data[1])
    except (ValueError, IndexError):
        return None


def thin_used(text: str) -> int | None:
    """The KiB that a volume takes in its pool, from its status text; None if it has failed."""
    first = text.split(" ", 1)[0]
    return int(first) // 2 if first.isascii() and first.isdigit() else None
