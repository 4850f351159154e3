"""Byte rings in a page that two domains share: XenStore's, the console's and our request links.

Each direction is a circular buffer with a consumer and a producer offset that run freely modulo 2**32
(docs/misc/xenstore-ring.txt; xen/include/public/io/console.h, ring.h's XEN ring macros do the same).
The other side may change any byte at any time: offsets are read once, checked, and data is copied out
before anyone looks at it. Nothing here waits or signals; the caller notifies after reading or writing.
"""

from xoar.abi import xen as abi
from xoar.abi.layout import Layout

PAGE_SIZE = 4096
_MASK = 0xFFFFFFFF


class RingError(Exception):
    """The other side's offset is impossible: more data than the ring holds."""


class SharedPage:
    """Two views of the same 4 KiB: `bytes` (typecode B) and `words` (typecode I, read and written whole)."""

    def __init__(self, byte_view: memoryview, word_view: memoryview) -> None:
        self.bytes = byte_view
        self.words = word_view


class ByteRing:
    """One direction of a shared ring; `size` is a power of two, offsets are bytes from the page's start."""

    def __init__(self, page: SharedPage, data: int, size: int, consumer: int, producer: int) -> None:
        self._bytes = page.bytes
        self._words = page.words
        self._data = data
        self._size = size
        self._consumer = consumer // 4
        self._producer = producer // 4

    def readable(self) -> int:
        """Bytes that wait to be read, 0..size. Raises RingError."""
        count = (self._words[self._producer] - self._words[self._consumer]) & _MASK
        if count > self._size:
            raise RingError("ring claims %d bytes of %d" % (count, self._size))
        return count

    def writable(self) -> int:
        """Bytes of free room, 0..size. Raises RingError."""
        return self._size - self.readable()

    def read(self, limit: int) -> bytes:
        """Takes at most `limit` bytes out of the ring. Raises RingError."""
        count = min(self.readable(), limit)
        position = self._words[self._consumer]
        start = self._data + (position & (self._size - 1))
        first = min(count, self._data + self._size - start)
        data = bytes(self._bytes[start : start + first])
        if first < count:
            data += bytes(self._bytes[self._data : self._data + count - first])
        self._words[self._consumer] = (position + count) & _MASK
        return data

    def write(self, data: "bytes | bytearray | memoryview") -> int:
        """Puts as much of `data` as fits into the ring and returns how much that was. Raises RingError."""
        count = min(self.writable(), len(data))
        position = self._words[self._producer]
        start = self._data + (position & (self._size - 1))
        first = min(count, self._data + self._size - start)
        self._bytes[start : start + first] = data[:first]
        if first < count:
            self._bytes[self._data : self._data + count - first] = data[first:count]
        self._words[self._producer] = (position + count) & _MASK
        return count

    def reset(self) -> None:
        """Empties the ring (used when a XenStore client asks to reconnect)."""
        self._words[self._consumer] = 0
        self._words[self._producer] = 0


def _direction(page: SharedPage, layout: Layout, data: str, consumer: str, producer: str) -> ByteRing:
    start, size = layout.fields[data]
    return ByteRing(page, start, size, layout.offset(consumer), layout.offset(producer))


def xenstore_rings(page: SharedPage) -> "tuple[ByteRing, ByteRing]":
    """(to the server, to the client) of io/xs_wire.h's struct xenstore_domain_interface."""
    layout = abi.xenstore_domain_interface
    return (
        _direction(page, layout, "req", "req_cons", "req_prod"),
        _direction(page, layout, "rsp", "rsp_cons", "rsp_prod"),
    )


def console_rings(page: SharedPage) -> "tuple[ByteRing, ByteRing]":
    """(to the guest, from the guest) of io/console.h's struct xencons_interface."""
    layout = abi.xencons_interface
    return (
        _direction(page, layout, "in", "in_cons", "in_prod"),
        _direction(page, layout, "out", "out_cons", "out_prod"),
    )
