"""Copying large files without their holes, with the SHA-256 of what was copied.

Holes in the source, and blocks of zeros, are not written: the target must have zeros there already.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator

_CHUNK = 4 << 20
_ZEROS = bytes(_CHUNK)

Advance = Callable[[int], None]
"""Is told how many bytes are done, again and again."""


def copy(source: int, start: int, length: int, target: int, at: int, advance: Advance) -> hashlib._Hash:
    """Copies bytes between two open files (descriptors), which keep their positions; their SHA-256.

    Raises OSError; EIO if the source ends early.
    """
    digest = hashlib.sha256()
    for position, data in _pieces(source, start, start + length):
        digest.update(data)
        if data.count(0) < len(data):  # far quicker than hashing
            _write(target, data, at + position - start)
        advance(len(data))
    return digest


def sha256(source: int, length: int, advance: Advance) -> str:
    """The SHA-256 of an open file's first `length` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for _, data in _pieces(source, 0, length):
        digest.update(data)
        advance(len(data))
    return digest.hexdigest()


def _pieces(source: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of a file from `start` to `end`."""
    while start < end:
        data_start = min(_seek(source, start, os.SEEK_DATA, end), end)
        while start < data_start:
            size = min(_CHUNK, data_start - start)
            yield start, _ZEROS[:size]
            start += size
        data_end = min(_seek(source, start, os.SEEK_HOLE, end), end) if start < end else end
        while start < data_end:
            data = os.pread(source, min(_CHUNK, data_end - start), start)
            if not data:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            yield start, data
            start += len(data)


def _seek(file: int, start: int, what: int, end: int) -> int:
    try:
        return os.lseek(file, start, what)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole follows, or nothing
            return end
        raise


def _write(target: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(target, rest, at)
        rest, at = rest[count:], at + count
