"""Block devices read and written past the page cache (O_DIRECT), which keeps the domain small.

Buffers come from `buffer`, since memory must be aligned; offsets and lengths are multiples of 4096 bytes.
"""

import errno
import fcntl
import mmap
import os
import struct

_BLKDISCARD = 0x1277  # linux/fs.h: _IO(0x12, 119)


class Device:
    """An open block device; a context manager. All methods raise OSError."""

    def __init__(self, path: str, *, write: bool = False) -> None:
        mode = os.O_RDWR if write else os.O_RDONLY
        self._fd = os.open(path, mode | os.O_DIRECT | os.O_CLOEXEC)

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def size(self) -> int:
        """Bytes."""
        return os.lseek(self._fd, 0, os.SEEK_END)

    def read(self, into: memoryview, offset: int) -> None:
        """Fills a buffer from an offset. EIO if the device ends before."""
        done = 0
        while done < len(into):
            count = os.preadv(self._fd, [into[done:]], offset + done)
            if count == 0:
                raise OSError(errno.EIO, f"the device ends before offset {offset + len(into)}")
            done += count

    def write(self, data: memoryview, offset: int) -> None:
        """Writes a buffer at an offset."""
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)

    def flush(self) -> None:
        """Waits until what was written would survive a loss of power."""
        os.fsync(self._fd)

    def discard(self) -> None:
        """Tells the device that nothing on it is needed any more."""
        fcntl.ioctl(self._fd, _BLKDISCARD, struct.pack("=QQ", 0, self.size()))


def buffer(size: int) -> mmap.mmap:
    """Zeroed memory, page-aligned."""
    return mmap.mmap(-1, size)
