"""The symbol table that Linux carries in its own image for stack traces (kallsyms).

Distributions strip their kernels, and this table is what is left. Nothing points to it, so it is found by
its content. From low to high addresses, in .rodata, each part aligned to 8 bytes:

    offsets        i32 for each symbol: an address if it is not negative, else the text's start - 1 - offset
    relative base  u64, the text's start
    count          u32
    names          for each symbol its length (7 bits, or 14 in two bytes) and as many token numbers
    markers        u32 for each 256th name: how far it is from the first one
    (symbols sorted by name, which aren't needed here)
    tokens         256 strings, each with a zero byte at its end
    token index    u16 for each token: how far it is from the first one

A name expands to the symbol's type, one letter as nm prints it, and the symbol's name. Source:
scripts/kallsyms.c and kernel/kallsyms.c of Linux 6.1 with CONFIG_KALLSYMS_BASE_RELATIVE and
CONFIG_KALLSYMS_ABSOLUTE_PERCPU, as on every x86-64 with SMP. Linux 6.4 changed the order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from xoar.host.errors import HostError

_TOKENS = 256
_INDEX = struct.Struct(f"<{_TOKENS}H")
_MARKED = 256  # names from one marker to the next
_LONGEST = 512  # bytes of a token, KSYM_NAME_LEN
# Names have all digits in them, so each digit is its own token
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_FIRST_DIGIT = ord("0")


class Symbol(NamedTuple):
    """`address` is virtual, but within a CPU's area for a per-CPU variable; `kind` is as nm(1) has it."""

    address: int
    kind: str
    name: str


def symbols(image: bytes, text: int) -> list[Symbol]:
    """All symbols of a kernel by address, per-CPU variables first.

    `image` is the kernel before its decompressor has moved it, `text` the virtual address of its text. Raises
    HostError if the table isn't there or contradicts itself.
    """
    place, tokens = _tokens(image)
    for base in _found(image, struct.pack("<Q", text), place):
        (count,) = struct.unpack_from("<I", image, base + 8)
        offsets = base - _aligned(4 * count)
        names = _names(image, base + 16, count, place) if base % 8 == 0 and offsets >= 0 else None
        if names is not None:
            return [
                _symbol(text, offset, b"".join([tokens[number] for number in name]))
                for offset, name in zip(struct.unpack_from(f"<{count}i", image, offsets), names, strict=True)
            ]
    raise HostError("the kernel's symbol table (kallsyms) is not as Linux 6.1 lays it out")


def extent(table: Sequence[Symbol], name: str) -> tuple[int, int]:
    """Where that symbol begins and the next one does, which may be behind some padding.

    Raises HostError if not exactly one symbol has the name, or it is the last one.
    """
    starts = [symbol.address for symbol in table if symbol.name == name]
    if len(starts) != 1:
        raise HostError(f"the kernel has {len(starts)} symbols {name}, not one")
    ends = [symbol.address for symbol in table if symbol.address > starts[0]]
    if not ends:
        raise HostError(f"the kernel's symbol {name} is its last one: nothing says where it ends")
    return starts[0], min(ends)


def _found(image: bytes, wanted: bytes, end: int) -> Iterator[int]:
    """Each place below `end` at which these bytes stand."""
    at = image.find(wanted, 0, end)
    while at >= 0:
        yield at
        at = image.find(wanted, at + 1, end)


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8


def _tokens(image: bytes) -> tuple[int, list[bytes]]:
    """Where the tokens are, and the tokens."""
    for digits in _found(image, _DIGITS, len(image)):
        end = digits
        for _ in range(_FIRST_DIGIT, _TOKENS):
            end = image.find(b"\0", end, end + _LONGEST) + 1
            if not end:
                break
        index = _aligned(end)
        if not end or index + _INDEX.size > len(image):
            continue
        places = _INDEX.unpack_from(image, index)
        start = digits - places[_FIRST_DIGIT]
        tokens = image[max(start, 0) : end].split(b"\0")[:-1]
        if places == tuple(accumulate((len(token) + 1 for token in tokens[:-1]), initial=0)):
            return start, tokens
    raise HostError("the kernel has no symbol table (kallsyms) that Xoar can read")


def _names(image: bytes, start: int, count: int, end: int) -> list[bytes] | None:
    """The names as token numbers; None if no names with their markers lie from `start` to `end`."""
    if not 0 < count <= (end - start) // 2:
        return None
    names, markers, at = [], [], start
    for number in range(count):
        if number % _MARKED == 0:
            markers.append(at - start)
        length = image[at]
        at += 1
        if length & 0x80:
            length = length & 0x7F | image[at] << 7
            at += 1
        names.append(image[at : at + length])
        at += length
        if not length or at >= end:
            return None
    at = start + _aligned(at - start)
    written = struct.pack(f"<{len(markers)}I", *markers)
    return names if image[at:end].startswith(written) else None


def _symbol(text: int, offset: int, name: bytes) -> Symbol:
    plain = name.decode("ascii", "replace")
    return Symbol(offset if offset >= 0 else text - 1 - offset, plain[:1], plain[1:])
