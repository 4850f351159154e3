"""ELF64 executables for Xen: the segments to load and what their notes say about how to start them.

Sources: the System V ABI's ELF-64 object file format; xen/include/public/elfnote.h for the note.
"""

import struct
from collections import namedtuple

from xoar.abi import xen as abi
from xoar.builder.errors import EINVAL, BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.builder.library import Image

Segment = namedtuple("Segment", ("offset", "file_size", "address", "memory_size"))
Executable = namedtuple("Executable", ("entry", "segments", "start", "end", "notes"))
"""entry: the 32-bit PVH entry; start, end: the physical addresses that the segments occupy; notes: the
numbers in Xen's notes (XEN_ELFNOTE_*)."""

_HEADER = "<4sBBBBQHHIQQQIHHHHHH"
_PROGRAM = "<IIQQQQQQ"
_MACHINE_X86_64, _LOAD, _NOTE = 62, 1, 4
_MAX_SEGMENTS = 64
_MAX_NOTES = 65536


def parse(image: "Image") -> Executable:
    """Reads the headers. BuildError(EINVAL) if it is no x86-64 ELF file that can be entered the PVH way."""
    header = image.read(0, struct.calcsize(_HEADER))
    if len(header) < struct.calcsize(_HEADER) or header[:4] != b"\x7fELF" or header[4] != 2:
        raise BuildError(EINVAL, "image %s is no 64-bit ELF file" % image.name)
    fields = struct.unpack(_HEADER, header)
    machine, table, entry_size, count = fields[7], fields[10], fields[14], fields[15]
    if machine != _MACHINE_X86_64 or entry_size != struct.calcsize(_PROGRAM) or count > _MAX_SEGMENTS:
        raise BuildError(EINVAL, "image %s is no x86-64 executable" % image.name)
    programs = image.read(table, count * entry_size)
    if len(programs) < count * entry_size:
        raise BuildError(EINVAL, "image %s ends within its program headers" % image.name)

    segments = []
    notes: "dict[int, int]" = {}
    for i in range(count):
        kind, _, offset, _, address, file_size, memory_size, _ = struct.unpack_from(
            _PROGRAM, programs, i * entry_size
        )
        if kind == _LOAD and memory_size:
            if file_size > memory_size or offset + file_size > image.size:
                raise BuildError(EINVAL, "image %s has a segment that reaches beyond it" % image.name)
            segments.append(Segment(offset, file_size, address, memory_size))
        elif kind == _NOTE:
            _collect(notes, image.read(offset, min(file_size, _MAX_NOTES)))
    entry = notes.get(abi.XEN_ELFNOTE_PHYS32_ENTRY)
    if entry is None or not segments:
        raise BuildError(EINVAL, "image %s has no PVH entry (XEN_ELFNOTE_PHYS32_ENTRY)" % image.name)
    start = min([segment.address for segment in segments])
    end = max([segment.address + segment.memory_size for segment in segments])
    return Executable(entry, segments, start, end, notes)


def _collect(found: "dict[int, int]", notes: bytes) -> None:
    """Adds Xen's notes that are numbers; the first of a kind counts."""
    position = 0
    while position + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, position)
        name = position + 12
        content = name + (name_size + 3) // 4 * 4
        if notes[name : name + 4] == b"Xen\0" and size in (4, 8) and content + size <= len(notes):
            found.setdefault(kind, int.from_bytes(notes[content : content + size], "little"))
        position = content + (size + 3) // 4 * 4
