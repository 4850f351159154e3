"""A C structure as offsets and sizes: writes and reads its fields in a buffer. Used by generated xen.py."""

import struct

_FORMATS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


class Layout:
    """`size` bytes; `fields` maps a name to (offset, size). Integers of 1, 2, 4, 8 bytes; else bytes."""

    def __init__(self, size: int, fields: "dict[str, tuple[int, int]]") -> None:
        self.size = size
        self.fields = fields

    def new(self, **values: "int | bytes") -> bytearray:
        """A zeroed structure with the given fields set."""
        buffer = bytearray(self.size)
        for name in values:
            self.set(buffer, name, values[name])
        return buffer

    def set(self, buffer: "bytearray | memoryview", name: str, value: "int | bytes", base: int = 0) -> None:
        """Sets one field of the structure that starts at `base`."""
        offset, size = self.fields[name]
        if isinstance(value, int):
            struct.pack_into(_FORMATS[size], buffer, base + offset, value)
        else:
            if len(value) > size:
                raise ValueError("%s: %d bytes, room for %d" % (name, len(value), size))
            buffer[base + offset : base + offset + len(value)] = value

    def get(self, buffer: "bytes | bytearray | memoryview", name: str, base: int = 0) -> int:
        """Reads one integer field of the structure that starts at `base`."""
        offset, size = self.fields[name]
        value: int = struct.unpack_from(_FORMATS[size], buffer, base + offset)[0]
        return value

    def offset(self, name: str) -> int:
        """Byte offset of a field."""
        return self.fields[name][0]
