"""A PV domain's first address space."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.abi import xen as abi
from xoar.builder import pv
from xoar.builder.elf import Executable, Segment
from xoar.builder.errors import BuildError

_BASE = 0xFFFFFFFF80000000
_NOTES = {abi.XEN_ELFNOTE_ENTRY: _BASE + 0x1000000, abi.XEN_ELFNOTE_VIRT_BASE: _BASE}
_PRESENT, _WRITABLE = 1, 2
_START = 0x1000000
_NO_MEMORY = (1 << 64) - 1  # INVALID_P2M_ENTRY of Linux


def kernel(end: int, gaps: list[tuple[int, int]] | None = None) -> Executable:
    """A kernel up to address `end`, with no segment between the two addresses of each gap."""
    gaps = gaps or []
    starts, ends = [_START, *(high for _, high in gaps)], [*(low for low, _ in gaps), end]
    segments = [Segment(0, 0, low, high - low) for low, high in zip(starts, ends, strict=True)]
    return Executable(0, segments[::-1], _START, end, _NOTES)


@given(st.integers(0x1000001, 0x4000000), st.integers(0, 40 << 20), st.integers(96 << 10, 256 << 10))
def test_every_frame_is_mapped_where_linux_expects_it(end: int, module: int, memory_kib: int) -> None:
    memory_kib -= memory_kib % 4
    try:
        where = pv.layout(kernel(end), memory_kib, module)
    except BuildError:
        assert end + module + (5 << 20) > memory_kib << 10
        return
    frames = array("Q", range(1000, 1000 + memory_kib // 4))
    tables = {frames[where.tables + i]: pv.table(where, frames, i) for i in range(pv.tables(where))}

    def walk(address: int) -> int:
        entry = frames[where.tables] << 12
        for shift in (39, 30, 21, 12):
            entry = tables[entry >> 12][address >> shift & 511]
            assert entry & _PRESENT
        return entry

    for frame in (0, 1, where.module, where.list, where.start_info, where.tables, where.stack, where.end - 1):
        entry = walk(_BASE + frame * 4096)
        assert entry >> 12 == frames[frame]
        assert bool(entry & _WRITABLE) != (where.tables <= frame < where.stack)
    # what Linux wants: page tables by themselves, free room behind the stack
    assert where.module * 4096 >= end and where.list * 4096 >= where.module * 4096 + module
    assert where.end - where.stack - 1 >= (512 << 10) // 4096
    assert where.end <= len(frames) and where.end % 1024 == 0


@given(
    st.integers(1, 0x800000),
    st.integers(0x401000, 0x1400000),
    st.integers(1, 0x800000),
    st.integers(0, 8 << 20),
)
def test_addresses_of_a_hole_share_one_frame_and_all_others_have_their_own(
    below: int, gap: int, above: int, module: int
) -> None:
    low = _START + below
    memory_kib, high = 96 << 10, low + gap
    where = pv.layout(kernel(high + above, [(low, high)]), memory_kib, module)
    hole = range(where.hole, where.hole_end)
    # the gap's whole pages but for the first
    assert (where.hole - 2) * 4096 < low <= (where.hole - 1) * 4096
    assert where.hole_end * 4096 <= high < (where.hole_end + 1) * 4096
    assert where.count - len(hole) == memory_kib // 4
    others = (where.module, where.list, where.start_info, where.links, where.tables, where.stack, where.end)
    assert where.hole_end <= min(others)

    frames = array("Q", [_NO_MEMORY if f in hole else 1000 + f for f in range(where.count)])
    for index in range(pv.tables(where)):
        for i, entry in enumerate(pv.table(where, frames, index)):
            frame = (index - 3) * 512 + i
            if index < 3 or frame >= where.end:
                assert entry == 0 or where.tables < entry // 4096 - 1000 < where.stack
                continue
            assert entry & _PRESENT
            assert entry >> 12 == frames[where.hole - 1 if frame in hole else frame]
            assert bool(entry & _WRITABLE) != (where.tables <= frame < where.stack)
    page = pv.start_info(where, frames, 99, {}, "")
    assert abi.start_info.get(page, "nr_pages") == where.count


@pytest.mark.parametrize("size", [0x200000, 0x400000, 0x4007FF])
def test_small_gaps_are_left_to_linux(size: int) -> None:
    gaps = [(0x1800800, 0x1800800 + size), (0x2000800, 0x2000800 + size)]
    where = pv.layout(kernel(0x2800000, gaps), 98304, 0)
    assert (where.hole, where.hole_end, where.count) == (0, 0, 24576)


def test_start_info_names_the_rings_of_xenstore_and_console() -> None:
    where = pv.layout(kernel(0x2000000), 98304, 5000)
    frames = array("Q", range(7000, 7000 + 24576))
    page = pv.start_info(where, frames, 99, {0: 11, 1: 12}, "console=hvc0")
    get = abi.start_info.get
    assert get(page, "nr_pages") == 24576 and get(page, "shared_info") == 99 << 12
    assert get(page, "store_mfn") == frames[pv.link_frame(where, abi.GNTTAB_RESERVED_XENSTORE)]
    assert get(page, "console_mfn") == frames[pv.link_frame(where, abi.GNTTAB_RESERVED_CONSOLE)]
    assert (get(page, "console_evtchn"), get(page, "store_evtchn")) == (11, 12)
    assert get(page, "mod_start") == _BASE + where.module * 4096 and get(page, "mod_len") == 5000
    assert len({pv.link_frame(where, gref) for gref in range(8)}) == 8


@pytest.mark.parametrize(
    "notes",
    [{}, {**_NOTES, abi.XEN_ELFNOTE_HYPERCALL_PAGE: 1}, {**_NOTES, abi.XEN_ELFNOTE_VIRT_BASE: 0x7FFFFFF000}],
)
def test_a_kernel_that_builder_cannot_start_is_refused(notes: dict[int, int]) -> None:
    with pytest.raises(BuildError):
        pv.layout(Executable(0, [], _START, 0x2000000, notes), 98304, 0)
