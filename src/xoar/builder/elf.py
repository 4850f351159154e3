"""ELF executables for Xen: the segments to load and what their notes say about how to start them.

Linux is an ELF64 file, PVH GRUB an ELF32 one. Sources: the System V ABI's object file format, both classes;
xen/include/public/elfnote.h for the notes.
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

_IDENTITY = 16  # bytes of e_ident; then come type, machine, version, entry, phoff, shoff, flags, ehsize, ...
_LOAD, _NOTE = 1, 4
# by class (EI_CLASS): its machine, the header after e_ident, a program header, and where in that are offset,
# physical address, size in the file and in memory
_FORMATS = {
    1: (3, "<HHIIIIIHHHHHH", "<IIIIIIII", (1, 3, 4, 5)),  # EM_386
    2: (62, "<HHIQQQIHHHHHH", "<IIQQQQQQ", (2, 4, 5, 6)),  # EM_X86_64
}
_MAX_SEGMENTS = 64
_MAX_NOTES = 65536


def parse(image: "Image") -> Executable:
    """Reads the headers. BuildError(EINVAL) if it is no x86 ELF file that can be entered the PVH way."""
    identity = image.read(0, _IDENTITY)
    known = _FORMATS.get(identity[4]) if len(identity) == _IDENTITY and identity[:4] == b"\x7fELF" else None
    if known is None:
        raise BuildError(EINVAL, "image %s is no ELF file" % image.name)
    wanted_machine, header_format, program_format, places = known
    header = image.read(_IDENTITY, struct.calcsize(header_format))
    if len(header) < struct.calcsize(header_format):
        raise BuildError(EINVAL, "image %s ends within its header" % image.name)
    fields = struct.unpack(header_format, header)
    machine, table, entry_size, count = fields[1], fields[4], fields[8], fields[9]
    if machine != wanted_machine or entry_size != struct.calcsize(program_format) or count > _MAX_SEGMENTS:
        raise BuildError(EINVAL, "image %s is no x86 executable" % image.name)
    programs = image.read(table, count * entry_size)
    if len(programs) < count * entry_size:
        raise BuildError(EINVAL, "image %s ends within its program headers" % image.name)

    segments = []
    notes: "dict[int, int]" = {}
    for i in range(count):
        program = struct.unpack_from(program_format, programs, i * entry_size)
        kind = program[0]
        offset, address, file_size, memory_size = [program[place] for place in places]
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
