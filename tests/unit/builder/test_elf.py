"""Reading ELF executables with a PVH note."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.abi import xen as abi
from xoar.builder import elf
from xoar.builder.errors import BuildError
from xoar.builder.library import KERNEL, Library
from xoar.host import bundle, compress

from .test_library import unpack


def image(content: bytes) -> elf.Image:  # type: ignore[name-defined]
    packed = bundle.pack([bundle.Entry("k", KERNEL, content)], lambda e: compress.compress_blocks(e.content))
    return Library(memoryview(packed), unpack).images[0]


def note(kind: int, content: bytes, name: bytes = b"Xen\0") -> bytes:
    padded = content + bytes(-len(content) % 4)
    return struct.pack("<III", len(name), len(content), kind) + name + bytes(-len(name) % 4) + padded


def make_elf(
    segments: list[tuple[int, bytes, int]], notes: bytes, machine: int = 62, *, bits: int = 64
) -> bytes:
    """An executable with (address, content, memory size) segments."""
    count = len(segments) + 1
    header, entry = (64, 56) if bits == 64 else (52, 32)
    offset = header + entry * count
    programs, body = b"", b""
    for kind, address, content, memory in [(1, *s) for s in segments] + [(4, 0, notes, len(notes))]:
        if bits == 64:
            programs += struct.pack("<IIQQQQQQ", kind, 5, offset, 0, address, len(content), memory, 1)
        else:
            programs += struct.pack("<IIIIIIII", kind, offset, 0, address, len(content), memory, 5, 1)
        body += content
        offset += len(content)
    head = struct.pack("<4sBBBB8xHHI", b"\x7fELF", bits // 32, 1, 1, 0, 2, machine, 1)
    head += struct.pack("<QQQ" if bits == 64 else "<III", 0, header, 0)
    head += struct.pack("<IHHHHHH", 0, header, entry, count, 0, 0, 0)
    return head + programs + body


ENTRY = note(abi.XEN_ELFNOTE_PHYS32_ENTRY, struct.pack("<Q", 0x1000040))


def test_segments_and_entry_are_found() -> None:
    found = elf.parse(image(make_elf([(0x1000000, b"text", 4), (0x2000000, b"data", 4096)], ENTRY)))
    assert found.entry == 0x1000040
    assert [(s.address, s.file_size, s.memory_size) for s in found.segments] == [
        (0x1000000, 4, 4),
        (0x2000000, 4, 4096),
    ]
    assert (found.start, found.end) == (0x1000000, 0x2001000)


def test_32_bit_executables_are_read_too() -> None:
    entry = note(abi.XEN_ELFNOTE_PHYS32_ENTRY, struct.pack("<I", 0x100000))
    content = make_elf([(0x100000, b"text", 8), (0x125858, b"modules", 7)], entry, machine=3, bits=32)
    found = elf.parse(image(content))
    assert found.entry == 0x100000
    assert [(s.address, s.file_size, s.memory_size) for s in found.segments] == [
        (0x100000, 4, 8),
        (0x125858, 7, 7),
    ]
    assert (found.start, found.end) == (0x100000, 0x12585F)


def test_the_note_is_found_behind_others() -> None:
    notes = note(1, b"GNU build id", b"GNU\0") + note(5, b"linux") + ENTRY
    assert elf.parse(image(make_elf([(0x100000, b"x", 1)], notes))).entry == 0x1000040


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no ELF file"),
        (b"\x7fELF" + bytes(100), "no ELF file"),
        (make_elf([(0x100000, b"x", 1)], ENTRY)[:60], "within its header"),
        (make_elf([(0x100000, b"x", 1)], ENTRY, machine=183), "no x86 executable"),
        (make_elf([(0x100000, b"x", 1)], ENTRY, machine=3), "no x86 executable"),
        (make_elf([(0x100000, b"x", 1)], ENTRY, machine=62, bits=32), "no x86 executable"),
        (make_elf([(0x100000, b"x", 1)], b""), "no PVH entry"),
        (make_elf([(0x100000, b"xx", 1)], ENTRY), "reaches beyond"),
        (make_elf([], ENTRY), "no PVH entry"),
        (make_elf([(0x100000, b"x", 1)], ENTRY)[:70], "within its program headers"),
    ],
)
def test_what_is_no_pvh_executable_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BuildError, match=reason):
        elf.parse(image(content))


@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing_else_than_build_errors(content: bytes) -> None:
    with pytest.raises(BuildError):
        elf.parse(image(content))


@pytest.mark.parametrize(("machine", "bits"), [(62, 64), (3, 32)])
@given(st.data())
def test_a_damaged_executable_raises_nothing_else_than_build_errors(
    machine: int, bits: int, data: st.DataObject
) -> None:
    content = bytearray(make_elf([(0x1000000, b"text", 4)], ENTRY, machine, bits=bits))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BuildError):
        elf.parse(image(bytes(content)))
