"""The recovery box: memory of a shard that a rollback leaves as it is.

    u32 length, records   twice: each half has a list of records, u32 length and content each
    u8 last               the last byte but one: which half was stored last, 1 or 2; 0: none
    u8 at rest            whether the last life ended with nothing on its way

Records are stored all at once, into the half that was not stored last, and that byte is written when all else
is there. So a rollback in the middle of it leaves what was stored before.

Who had taken over the last life may have written anything here: what `load` returns is to be validated like a
message from a stranger.
"""

import struct

_LENGTH = "<I"
_LENGTH_SIZE = 4
_TAIL = 2


class Full(Exception):
    """The records need more room than the box has."""


class Box:
    """`memory` is the same at each life, all zeros at first."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._half = (len(memory) - _TAIL) // 2
        self._last = len(memory) - _TAIL
        self._rest = self._last + 1

    @property
    def at_rest(self) -> bool:
        """Whether the last life ended with nothing on its way."""
        return self._memory[self._rest] == 1

    @at_rest.setter
    def at_rest(self, value: bool) -> None:
        self._memory[self._rest] = int(value)

    @property
    def room(self) -> int:
        """Bytes for records and 4 more for each."""
        return self._half - _LENGTH_SIZE

    def store(self, records: "list[bytes]") -> None:
        """Keeps these, in place of those from before. Raises Full, and keeps those then."""
        length = sum([len(record) + _LENGTH_SIZE for record in records])
        if length > self.room:
            raise Full("%d records do not fit into %d bytes" % (len(records), self.room))
        memory = self._memory
        half = 2 if memory[self._last] == 1 else 1
        position = (half - 1) * self._half
        struct.pack_into(_LENGTH, memory, position, length)
        position += _LENGTH_SIZE
        for record in records:
            struct.pack_into(_LENGTH, memory, position, len(record))
            position += _LENGTH_SIZE
            memory[position : position + len(record)] = record
            position += len(record)
        memory[self._last] = half

    def load(self) -> "list[bytes]":
        """What was stored last; what makes no sense ends the list."""
        memory, half = self._memory, self._memory[self._last]
        records: "list[bytes]" = []
        if half not in (1, 2):
            return records
        position = (half - 1) * self._half
        length = struct.unpack_from(_LENGTH, memory, position)[0]
        position += _LENGTH_SIZE
        if length > self.room:
            return records
        end = position + length
        while position + _LENGTH_SIZE <= end:
            length = struct.unpack_from(_LENGTH, memory, position)[0]
            position += _LENGTH_SIZE
            if length > end - position:
                break
            records.append(bytes(memory[position : position + length]))
            position += length
        return records
