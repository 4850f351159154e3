"""How the thin pool is laid out on the data disk. No I/O."""

from typing import NamedTuple

EXTENT = 4 << 20
"""Bytes: volumes are multiples of it."""

_MIB = 1 << 20
_CHUNK_MIN = 64 << 10
_CHUNKS_MAX = 2 << 20  # bounds what thin_check needs at activation (8 bytes a chunk) in a small domain
_MAPPING = 64  # bytes of metadata for one chunk (lvmthin(7))
_METADATA_MIN = 8 * _MIB
_METADATA_MAX = 15 << 30  # below the device mapper's limit of 15.8 GiB


class Layout(NamedTuple):
    """Sizes of the pool's parts in bytes, `extents` of the data."""

    chunk: int
    metadata: int
    extents: int


def layout(free_extents: int) -> Layout | None:
    """The layout for so many free extents (4 MiB each); None if there are too few.

    The chunk is the smallest power of two from 64 KiB on with which there are at most 2 Mi chunks: small
    chunks make clones cheap, many of them make metadata big. The metadata has room for all chunks to be
    mapped twice (by a volume and its clone). Besides the data there is room for three times the
    metadata: itself, LVM's spare for a repair, and the next spare after one.
    """
    size = free_extents * EXTENT
    chunk = _CHUNK_MIN
    while size // chunk > _CHUNKS_MAX:
        chunk *= 2
    wanted = min(max(size // chunk * _MAPPING * 2, _METADATA_MIN), _METADATA_MAX)
    metadata_extents = -(-wanted // EXTENT)
    extents = free_extents - 3 * metadata_extents
    if extents < 1:
        return None
    return Layout(chunk, metadata_extents * EXTENT, extents)
