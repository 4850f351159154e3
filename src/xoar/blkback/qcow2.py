"""What must be known of a qcow2 image before qemu-img may look at it. No I/O.

Layout: QEMU's docs/interop/qcow2.txt, "Header". All numbers are big endian.
"""

import errno
import struct

from xoar.blkback.errors import RequestError

HEADER_SIZE = 112

_MAGIC = b"QFI\xfb"
# magic, version, backing_file_offset, backing_file_size, cluster_bits, size, crypt_method
_START = struct.Struct(">4sIQIIQI")
_FEATURES_AT = 72  # incompatible_features, version 3 only
_CORRUPT = 1 << 1
_DATA_FILE = 1 << 2
_KNOWN = 0b11111  # with dirty, compression type and extended L2 entries


def size(untrusted_header: bytes) -> int:
    """The bytes of the disk in the image whose first 112 bytes these are.

    Raises RequestError(EINVAL) if it is none, or one whose contents are partly elsewhere: qemu-img would open
    whatever path such an image names.
    """
    if len(untrusted_header) < HEADER_SIZE or not untrusted_header.startswith(_MAGIC):
        raise _unfit("it is no qcow2 image")
    _, version, backing, _, _, disk_size, encryption = _START.unpack_from(untrusted_header)
    (features,) = struct.unpack_from(">Q", untrusted_header, _FEATURES_AT)
    if version not in (2, 3):
        raise _unfit(f"version {version} of the format is not supported, only 2 and 3")
    if backing:
        raise _unfit("it has a backing file; make it whole with qemu-img convert")
    if encryption:
        raise _unfit("it is encrypted")
    if version == 3:
        if features & _DATA_FILE:
            raise _unfit("it has an external data file; make it whole with qemu-img convert")
        if features & _CORRUPT:
            raise _unfit("it is marked as corrupt; try qemu-img check -r all")
        if features & ~_KNOWN:
            raise _unfit(f"it has features that are not supported (0x{features & ~_KNOWN:x})")
    return int(disk_size)


def _unfit(why: str) -> RequestError:
    return RequestError(errno.EINVAL, f"the image can't be imported: {why}")
