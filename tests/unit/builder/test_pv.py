"""A PV domain's first address space."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.abi import xen as abi
from xoar.builder import pv
from xoar.builder.elf import Executable
from xoar.builder.errors import BuildError

_BASE = 0xFFFFFFFF80000000
_NOTES = {abi.XEN_ELFNOTE_ENTRY: _BASE + 0x1000000, abi.XEN_ELFNOTE_VIRT_BASE: _BASE}
_PRESENT, _WRITABLE = 1, 2


def kernel(end: int) -> Executable:
    return Executable(0, [], 0x1000000, end, _NOTES)


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
        pv.layout(Executable(0, [], 0x1000000, 0x2000000, notes), 98304, 0)
