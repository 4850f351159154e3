"""The types that a message's fields can have. Each one has a fixed or bounded size.

A type has `encode(value) -> bytes`, `decode(data, at) -> (value, next position)`, `largest` (bytes) and
`name` (for the documentation). Both directions check the same bounds and raise MessageError. `data` is the
payload of one frame, already copied out of the shared page.

Numbers are little endian. Text is printable ASCII only: what comes from another domain may be shown on a
terminal, where control characters are commands.
"""

import struct
from collections import namedtuple

from xoar.messages.errors import MessageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PRINTABLE = bytes(range(0x20, 0x7F))
_NAME_START = "abcdefghijklmnopqrstuvwxyz0123456789"
_NAME = _NAME_START + "_.-"


class Number:
    """An unsigned number of `size` bytes: 1, 2, 4 or 8."""

    def __init__(self, size: int) -> None:
        self.largest = size
        self.name = "u%d" % (8 * size)
        self._format = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}[size]

    def encode(self, value: "Any") -> bytes:
        if not isinstance(value, int) or not 0 <= value < 1 << (8 * self.largest):
            raise MessageError("%r is no number from 0 to %d" % (value, (1 << (8 * self.largest)) - 1))
        return struct.pack(self._format, value)

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        end = at + self.largest
        if end > len(data):
            raise MessageError("cut short")
        return struct.unpack_from(self._format, data, at)[0], end


class Fixed:
    """Exactly `size` bytes, such as a SHA-256 digest (32) or a UUID (16)."""

    def __init__(self, size: int) -> None:
        self.largest = size
        self.name = "bytes[%d]" % size

    def encode(self, value: "Any") -> bytes:
        if not isinstance(value, (bytes, bytearray)) or len(value) != self.largest:
            raise MessageError("needs exactly %d bytes" % self.largest)
        return bytes(value)

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        end = at + self.largest
        if end > len(data):
            raise MessageError("cut short")
        return data[at:end], end


class Blob:
    """0 to `maximum` bytes, preceded by their number (u16)."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.largest = 2 + maximum
        self.name = "blob(%d)" % maximum

    def encode(self, value: "Any") -> bytes:
        if not isinstance(value, (bytes, bytearray)):
            raise MessageError("needs bytes")
        if len(value) > self.maximum:
            raise MessageError("%d bytes, at most %d are allowed" % (len(value), self.maximum))
        return struct.pack("<H", len(value)) + bytes(value)

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        if at + 2 > len(data):
            raise MessageError("cut short")
        (size,) = struct.unpack_from("<H", data, at)
        if size > self.maximum:
            raise MessageError("%d bytes, at most %d are allowed" % (size, self.maximum))
        if at + 2 + size > len(data):
            raise MessageError("cut short")
        return data[at + 2 : at + 2 + size], at + 2 + size


class Text:
    """0 to `maximum` characters of printable ASCII, preceded by their number (u16)."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.largest = 2 + maximum
        self.name = "text(%d)" % maximum
        self._bytes = Blob(maximum)

    def check(self, value: str) -> None:
        """Raises MessageError if the text means nothing in this field."""

    def encode(self, value: "Any") -> bytes:
        if not isinstance(value, str):
            raise MessageError("needs text")
        data = value.encode()
        if data.strip(_PRINTABLE):
            raise MessageError("has characters other than printable ASCII")
        self.check(value)
        return self._bytes.encode(data)

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        raw, end = self._bytes.decode(data, at)
        # stripping printable characters from both ends leaves nothing only if there are no others
        if raw.strip(_PRINTABLE):
            raise MessageError("has characters other than printable ASCII")
        value = raw.decode()
        self.check(value)
        return value, end


class Name(Text):
    """The name of a guest or shard: a lower-case letter or digit, then also "_", "." and "-"."""

    def __init__(self, maximum: int) -> None:
        super().__init__(maximum)
        self.name = "name(%d)" % maximum

    def check(self, value: str) -> None:
        if not value or value[0] not in _NAME_START or value.strip(_NAME):
            raise MessageError(
                "%r is no name: use lower-case letters and digits, after the first one also _ . -" % value
            )


class OptionalName(Name):
    """A name as above, or "" for none."""

    def __init__(self, maximum: int) -> None:
        super().__init__(maximum)
        self.name += " or none"

    def check(self, value: str) -> None:
        if value:
            super().check(value)


class Choice:
    """One of a few words, sent as its position (u8)."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.largest = 1
        self.name = " or ".join((", ".join(words[:-1]), words[-1]))

    def encode(self, value: "Any") -> bytes:
        if value not in self.words:
            raise MessageError("%r is not %s" % (value, self.name))
        return bytes((self.words.index(value),))

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        if at >= len(data):
            raise MessageError("cut short")
        if data[at] >= len(self.words):
            raise MessageError("choice %d does not exist" % data[at])
        return self.words[data[at]], at + 1


class Record:
    """Fields in a row; the value is a namedtuple made by `value`."""

    def __init__(self, name: str, *fields: "tuple[str, Any]") -> None:
        self.name = name
        self.fields = fields
        self.value: "Any" = namedtuple(name, tuple([field for field, _ in fields]))  # type: ignore[misc]
        self.largest = sum([kind.largest for _, kind in fields])

    def encode(self, value: "Any") -> bytes:
        if len(value) != len(self.fields):
            raise MessageError("%s has %d fields, not %d" % (self.name, len(self.fields), len(value)))
        parts = []
        for position in range(len(self.fields)):
            field, kind = self.fields[position]
            try:
                parts.append(kind.encode(value[position]))
            except MessageError as error:
                raise MessageError("%s: %s" % (field, error))
        return b"".join(parts)

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        values = []
        for field, kind in self.fields:
            try:
                value, at = kind.decode(data, at)
            except MessageError as error:
                raise MessageError("%s: %s" % (field, error))
            values.append(value)
        return self.value(*values), at


class Array:
    """0 to `maximum` records, preceded by their number (u16)."""

    def __init__(self, record: Record, maximum: int) -> None:
        self.record = record
        self.maximum = maximum
        self.largest = 2 + maximum * record.largest
        self.name = "up to %d %s" % (maximum, record.name)

    def encode(self, value: "Any") -> bytes:
        if len(value) > self.maximum:
            raise MessageError("%d entries, at most %d are allowed" % (len(value), self.maximum))
        return struct.pack("<H", len(value)) + b"".join([self.record.encode(entry) for entry in value])

    def decode(self, data: bytes, at: int) -> "tuple[Any, int]":
        if at + 2 > len(data):
            raise MessageError("cut short")
        (count,) = struct.unpack_from("<H", data, at)
        if count > self.maximum:
            raise MessageError("%d entries, at most %d are allowed" % (count, self.maximum))
        at += 2
        entries = []
        for _ in range(count):
            entry, at = self.record.decode(data, at)
            entries.append(entry)
        return entries, at
