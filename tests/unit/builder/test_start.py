"""What a PVH domain finds in its first pages."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.abi import xen as abi
from xoar.builder import acpi, start
from xoar.builder.errors import BuildError

MEMORY_KIB = st.integers(2048, 64 << 20).map(lambda kib: kib // 4 * 4)


@given(MEMORY_KIB)
def test_ram_is_as_much_as_asked_for_and_leaves_the_device_hole(kib: int) -> None:
    runs = start.ram(kib)
    assert sum(count for _, count in runs) * 4 == kib
    for frame, count in runs:
        assert frame + count <= 0xC0000 or frame >= 0x100000


@given(MEMORY_KIB)
def test_the_memory_map_is_ordered_and_lists_only_populated_ram(kib: int) -> None:
    entries = start.memory_map(kib)
    assert all(a[0] + a[1] <= b[0] for a, b in itertools.pairwise(entries))
    populated = [(frame * 4096, (frame + count) * 4096) for frame, count in start.ram(kib)]
    for address, size, kind in entries:
        assert size > 0
        if kind == abi.XEN_HVM_MEMMAP_TYPE_RAM:
            assert any(low <= address and address + size <= high for low, high in populated)


def test_special_pages_lie_in_reserved_memory_and_apart() -> None:
    frames = [start.link_frame(gref) for gref in range(abi.GNTTAB_NR_RESERVED_ENTRIES)]
    assert len(set(frames)) == len(frames)
    address, size, kind = start.memory_map(65536)[0]
    assert kind == abi.XEN_HVM_MEMMAP_TYPE_RESERVED
    used = [start.START_INFO // 4096, start.COMMAND_LINE // 4096, start.ACPI // 4096, *frames]
    assert len(set(used)) == len(used)
    assert all(address < frame * 4096 < address + size for frame in used)


def test_start_info_leads_to_command_line_modules_and_memory_map() -> None:
    pages = start.pages(65536, "console=hvc0", [(0x2000000, 1234)], start.ACPI)
    memory = bytearray(0x10000)
    for at, content in pages:
        memory[at : at + len(content)] = content
    info = abi.hvm_start_info
    get = lambda name: info.get(memory, name, start.START_INFO)  # noqa: E731
    assert get("magic") == abi.XEN_HVM_START_MAGIC_VALUE
    assert memory[get("cmdline_paddr") :].split(b"\0")[0] == b"console=hvc0"
    assert get("nr_modules") == 1
    module = abi.hvm_modlist_entry
    assert module.get(memory, "paddr", get("modlist_paddr")) == 0x2000000
    assert module.get(memory, "size", get("modlist_paddr")) == 1234
    assert get("rsdp_paddr") == start.ACPI
    entry = abi.hvm_memmap_table_entry
    found = [
        tuple(
            entry.get(memory, name, get("memmap_paddr") + i * entry.size) for name in ("addr", "size", "type")
        )
        for i in range(get("memmap_entries"))
    ]
    assert found == start.memory_map(65536)


def test_a_command_line_that_fills_more_than_its_page_is_refused() -> None:
    start.pages(65536, "x" * 4095, [], 0)
    with pytest.raises(BuildError, match="4095"):
        start.pages(65536, "x" * 4096, [], 0)


@given(st.integers(1, 128))
def test_acpi_tables_are_linked_checksummed_and_name_each_vcpu(vcpus: int) -> None:
    base = start.ACPI
    blob = acpi.tables(base, vcpus)
    assert base + len(blob) <= 0x10000

    def table(address: int) -> bytes:
        at = address - base
        length = struct.unpack_from("<I", blob, at + 4)[0]
        content = blob[at : at + length]
        assert len(content) == length
        assert sum(content) % 256 == 0
        return content

    assert blob[:8] == b"RSD PTR " and sum(blob[:20]) % 256 == 0 and sum(blob[:36]) % 256 == 0
    xsdt = table(struct.unpack_from("<Q", blob, 24)[0])
    fadt, madt = (table(address) for address in struct.unpack_from("<QQ", xsdt, 36))
    assert (xsdt[:4], fadt[:4], madt[:4]) == (b"XSDT", b"FACP", b"APIC")
    assert table(struct.unpack_from("<Q", fadt, 140)[0])[:4] == b"DSDT"
    assert struct.unpack_from("<H", fadt, 109)[0] & 0x20, "no CMOS clock"
    processors = [struct.unpack_from("<BBBBI", madt, at) for at in range(44, len(madt), 8)]
    assert [(uid, apic, flags) for _, _, uid, apic, flags in processors] == [
        (n, 2 * n, 1) for n in range(vcpus)
    ]
