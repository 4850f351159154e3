"""Debian's kernel without what driver domains don't need."""

from __future__ import annotations

import contextlib
import io
import struct

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st
from test_kallsyms import TEXT, encode

from xoar.host.build import vmlinux
from xoar.host.build.kallsyms import Symbol
from xoar.host.errors import HostError

PAGE = 4096
PHYSICAL = 0x1000000
DATA = TEXT + 0x200000
NOTE = b"note"


def kernel(text: bytes = b"", data: bytes = b"data", memory: int = 64 * PAGE, room: int = PAGE) -> bytes:
    """An ELF file like Debian's: text with a note, and data with .bss, of which the file has zeros."""
    at = room + len(text) + len(NOTE)
    programs = [
        (1, 5, room, TEXT, PHYSICAL, len(text) + len(NOTE), len(text) + len(NOTE), 1),
        (1, 6, at, DATA, PHYSICAL + DATA - TEXT, memory, memory, 1),
        (4, 4, at - len(NOTE), TEXT + len(text), PHYSICAL + len(text), len(NOTE), len(NOTE), 4),
    ]
    head = struct.pack("<4sBBB9xHHIQQQ", b"\x7fELF", 2, 1, 1, 2, 62, 1, PHYSICAL, 64, 0)
    head += struct.pack("<IHHHHHH", 0, 64, 56, len(programs), 64, 0, 0)
    head += b"".join(struct.pack("<IIQQQQQQ", *program) for program in programs)
    return head + bytes(room - len(head)) + text + NOTE + data + bytes(memory - len(data))


def segments(elf: bytes) -> list[dict[str, int | str]]:
    """The program headers as pyelftools reads them."""
    return [dict(segment.header) for segment in ELFFile(io.BytesIO(elf)).iter_segments()]


def whole(start: int = DATA + 4 * PAGE, end: int = DATA + 9 * PAGE, **more: int) -> bytes:
    return vmlinux.with_hole(kernel(**more), start, end)  # type: ignore[arg-type]


@given(st.integers(1, 62), st.integers(1, 62))
def test_a_hole_splits_its_segment(first: int, count: int) -> None:
    last = min(first + count, 63)
    before, after = kernel(), whole(DATA + first * PAGE, DATA + last * PAGE)
    text, low, high, note = segments(after)
    assert [text, note] == [segments(before)[0], segments(before)[2]]
    assert (low["p_vaddr"], low["p_memsz"], low["p_filesz"]) == (DATA, first * PAGE, first * PAGE)
    assert (high["p_vaddr"], high["p_memsz"], high["p_filesz"]) == (DATA + last * PAGE, (64 - last) * PAGE, 0)
    for segment in (low, high):
        assert segment["p_type"] == "PT_LOAD" and segment["p_flags"] == 6
        assert segment["p_vaddr"] - segment["p_paddr"] == TEXT - PHYSICAL  # type: ignore[operator]
    # the zeros behind the start of the hole have gone, nothing else has
    assert after[PAGE:] == before[PAGE : len(after)] and not before[len(after) :].strip(b"\0")
    assert len(after) == low["p_offset"] + low["p_filesz"]  # type: ignore[operator]


def test_a_segment_may_end_in_the_file_before_the_hole() -> None:
    before = bytearray(kernel())
    struct.pack_into("<Q", before, 64 + 56 + 32, 100)  # p_filesz of the data
    _, low, high, _ = segments(vmlinux.with_hole(bytes(before), DATA + PAGE, DATA + 2 * PAGE))
    assert (low["p_filesz"], low["p_memsz"], high["p_memsz"]) == (100, PAGE, 62 * PAGE)


@pytest.mark.parametrize(
    ("start", "end"), [(DATA, DATA + PAGE), (DATA + PAGE, DATA + 64 * PAGE), (DATA + PAGE, DATA + PAGE)]
)
def test_a_hole_has_to_lie_within_one_segment(start: int, end: int) -> None:
    with pytest.raises(HostError, match="0 segments"):
        whole(start, end)


def test_a_hole_takes_no_content() -> None:
    with pytest.raises(HostError, match="has content from"):
        vmlinux.with_hole(kernel(data=bytes(9 * PAGE) + b"!"), DATA + PAGE, DATA + 2 * PAGE)


def test_there_must_be_room_for_a_program_header() -> None:
    assert len(segments(whole(room=64 + 4 * 56))) == 4
    with pytest.raises(HostError, match="no room"):
        whole(room=64 + 4 * 56 - 1)


@given(st.integers(0, 64 + 3 * 56 - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_headers_are_changed_or_refused(at: int, damage: bytes, cut: bool) -> None:
    elf = kernel()
    elf = elf[:at] + damage + (b"" if cut else elf[at + len(damage) :])
    with contextlib.suppress(HostError):
        vmlinux.with_hole(elf, DATA + PAGE, DATA + 2 * PAGE)


def test_a_variable_goes_with_the_pages_that_it_has_for_itself() -> None:
    table = [
        Symbol(TEXT, "T", "_text"),
        Symbol(DATA + 2 * PAGE + 32, "b", "patches"),
        Symbol(DATA + 7 * PAGE + 32, "b", "next"),
    ]
    after = vmlinux.without_variable(kernel(encode(table)), "patches")
    _, low, high, _ = segments(after)
    assert low["p_memsz"] == 3 * PAGE and high["p_vaddr"] == DATA + 7 * PAGE


def test_a_kernel_without_the_variable_is_reported_with_a_way_out() -> None:
    with pytest.raises(HostError, match=r"can't take patches out of the kernel: .* 0 symbols") as caught:
        vmlinux.without_variable(kernel(encode([Symbol(TEXT, "T", "_text")])), "patches")
    assert "has to follow" in caught.value.hint


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_only_btf_is_blanked(before: bytes, types: bytes, strings: bytes, after: bytes) -> None:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blank = bytes(24 + len(types) + len(strings))
    assert vmlinux.without_btf(before + header + types + strings + after) == before + blank + after


def test_a_kernel_without_btf_stays_as_it_is() -> None:
    assert vmlinux.without_btf(bytes(range(256))) == bytes(range(256))
