"""The last bytes of a console, with positions that readers keep for themselves."""


class History:
    """Keeps the last `size` bytes; a position counts bytes from the first ever written."""

    def __init__(self, size: int) -> None:
        self.end = 0
        self._size = size
        self._bytes = bytearray(0)

    @property
    def start(self) -> int:
        """The position of the oldest byte that is kept."""
        return max(self.end - self._size, 0)

    def append(self, data: bytes) -> None:
        """Adds bytes and forgets as many of the oldest as there is no room for."""
        if not self._bytes:
            # a guest that never prints costs nothing
            self._bytes = bytearray(self._size)
        self.end += len(data)
        data = data[-self._size :]
        at = (self.end - len(data)) % self._size
        first = min(len(data), self._size - at)
        self._bytes[at : at + first] = data[:first]
        self._bytes[: len(data) - first] = data[first:]

    def read(self, position: int, limit: int) -> bytes:
        """At most `limit` bytes from `position` on, which is not before `start`."""
        count = min(self.end - position, limit)
        at = position % self._size
        first = min(count, self._size - at)
        return bytes(self._bytes[at : at + first]) + bytes(self._bytes[: count - first])
