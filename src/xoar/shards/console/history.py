"""The last bytes of a console, with positions that readers keep for themselves.

They lie in memory that outlives the Console's lives: `u64 end`, then as many bytes as there is room for, the
byte at a position at that modulo the size. Who had taken over the last life may have written anything there.
"""

import struct

_END = "<Q"
_HEADER = 8
_MOST = 1 << 62
"""No console has printed so much."""


class History:
    """Keeps the last bytes, as many as fit behind the header in `memory`; a position counts bytes from the
    first ever written. `fresh`: what lies there is somebody else's."""

    def __init__(self, memory: memoryview, fresh: bool) -> None:
        self._memory = memory
        self._size = len(memory) - _HEADER
        self.end: int = struct.unpack_from(_END, memory)[0]
        if fresh or self.end > _MOST:
            self._set_end(0)

    @property
    def start(self) -> int:
        """The position of the oldest byte that is kept."""
        return max(self.end - self._size, 0)

    def append(self, data: bytes) -> None:
        """Adds bytes and forgets as many of the oldest as there is no room for."""
        end = self.end + len(data)
        data = data[-self._size :]
        at = (end - len(data)) % self._size
        first = min(len(data), self._size - at)
        self._put(at, data[:first])
        self._put(0, data[first:])
        self._set_end(end)

    def read(self, position: int, limit: int) -> bytes:
        """At most `limit` bytes from `position` on, which is not before `start`."""
        count = min(self.end - position, limit)
        at = position % self._size
        first = min(count, self._size - at)
        return self._get(at, first) + self._get(0, count - first)

    def _put(self, at: int, data: bytes) -> None:
        self._memory[_HEADER + at : _HEADER + at + len(data)] = data

    def _get(self, at: int, count: int) -> bytes:
        return bytes(self._memory[_HEADER + at : _HEADER + at + count])

    def _set_end(self, end: int) -> None:
        self.end = end
        struct.pack_into(_END, self._memory, 0, end)
