"""What of Debian's kernel a driver domain does without: changes to the ELF file that Builder loads.

Layouts: the System V ABI's object file format, ELF64.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xoar.host import bzimage
from xoar.host.build import kallsyms
from xoar.host.errors import HostError

_PAGE = 4096
_BTF = struct.pack("<HBBII", 0xEB9F, 1, 0, 24, 0)  # magic, version, flags, header's size, types' place
_HEADER = 64  # bytes of the ELF header
_PHOFF, _PHENTSIZE, _PHNUM = 32, 54, 56  # where it has them
_PROGRAM = struct.Struct("<IIQQQQQQ")
_LOAD = 1
_CHANGED = "Debian's kernel is not as it was: xoar.host.build.vmlinux, which adapts it, has to follow."


class _Program(NamedTuple):
    """A program header; places and sizes in bytes."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    in_file: int
    in_memory: int
    alignment: int


def without_btf(elf: bytes) -> bytes:
    """The kernel with zeros for BTF, the types that BPF programs may be checked against: none is loaded here.

    They take 2 MiB of Builder's library, and parsing them takes time and memory at boot. struct btf_header:
    include/uapi/linux/btf.h of Linux.
    """
    at = elf.find(_BTF)
    if at < 0:
        return elf
    strings, size = struct.unpack_from("<II", elf, at + 16)
    end = at + 24 + strings + size
    return elf[:at] + bytes(end - at) + elf[end:]


def without_variable(elf: bytes, name: str) -> bytes:
    """The kernel with a hole in its memory instead of the pages that only that variable occupies.

    The variable must be one of .bss. Raises HostError if it is not there, or the file can't be changed.
    """
    try:
        _, programs = _programs(elf)
        loads = [program for program in programs if program.kind == _LOAD]
        if not loads:
            raise HostError("the kernel has no segment to load")
        # The text comes first, arch/x86/kernel/vmlinux.lds.S
        start, end = kallsyms.extent(kallsyms.symbols(elf, loads[0].address), name)
        return with_hole(elf, -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE)
    except HostError as error:
        message = f"can't take {name} out of the kernel: {error.message}"
        raise HostError(message, hint=_CHANGED) from error


def with_hole(elf: bytes, start: int, end: int) -> bytes:
    """The kernel without memory behind the virtual addresses from `start` to `end`, page boundaries both.

    The segment that has them is split. From `start` on it may have zeros only: they go from the file, too.
    Raises HostError.
    """
    table, programs = _programs(elf)
    around = [
        program
        for program in programs
        if program.kind == _LOAD and program.address < start < end < program.address + program.in_memory
    ]
    if len(around) != 1:
        raise HostError(f"{len(around)} segments of the kernel, not one, reach around {start:#x} to {end:#x}")
    (whole,) = around
    in_file = min(whole.in_file, start - whole.address)
    if elf[whole.offset + in_file : whole.offset + whole.in_file].strip(b"\0"):
        raise HostError(f"the kernel's segment at {whole.address:#x} has content from {start:#x} on")
    low = whole._replace(in_file=in_file, in_memory=start - whole.address)
    high = whole._replace(
        offset=0,  # of nothing; any that is aligned like the address
        address=end,
        physical=whole.physical + end - whole.address,
        in_file=0,
        in_memory=whole.address + whole.in_memory - end,
        alignment=_PAGE,
    )
    index = programs.index(whole)
    split = [*programs[:index], low, high, *programs[index + 1 :]]
    room = min((program.offset for program in programs if program.in_file), default=0) - table
    if len(split) * _PROGRAM.size > room:
        raise HostError("the kernel's file has no room for one more program header")
    changed = bytearray(elf)
    struct.pack_into("<H", changed, _PHNUM, len(split))
    for place, program in enumerate(split):
        _PROGRAM.pack_into(changed, table + place * _PROGRAM.size, *program)
    return bzimage.segments_only(bytes(changed))


def _programs(elf: bytes) -> tuple[int, list[_Program]]:
    """Where the program headers are, and the headers."""
    if len(elf) < _HEADER or elf[:5] != b"\x7fELF\x02":
        raise HostError("the kernel is not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, _PHOFF)
    size, count = struct.unpack_from("<HH", elf, _PHENTSIZE)
    if size != _PROGRAM.size or table + size * count > len(elf):
        raise HostError("the kernel's program headers are damaged")
    programs = [_Program(*_PROGRAM.unpack_from(elf, table + size * i)) for i in range(count)]
    for program in programs:
        if program.offset + program.in_file > len(elf) or program.physical + program.in_memory > 1 << 64:
            raise HostError(
                f"the kernel's segment at {program.address:#x} reaches beyond the file or all memory"
            )
    return table, programs
