"""What a PVH domain finds in its first 64 KiB: start info, command line, special pages, ACPI tables.

    frame 0      nothing (a null pointer faults)
    frame 1      hvm_start_info, module list, memory map
    frame 2      command line
    frame 3      XenStore ring      frame 4   console ring
    frame 5..10  rings of request links, grant references 2..7
    frame 11..14 ACPI tables
    frame 15     word 0: which life of the shard this is (xoar.xen.boot.snapshot)

These frames are "reserved" in the domain's memory map. Sources: docs/misc/pvh.pandoc,
xen/include/public/arch-x86/hvm/start_info.h.
"""

from xoar.abi import xen as abi
from xoar.builder.errors import EINVAL, BuildError

PAGE = 4096
START_INFO = 1 * PAGE
_MODULES = START_INFO + 0x100
_MEMORY_MAP = START_INFO + 0x400
COMMAND_LINE = 2 * PAGE
ACPI = 11 * PAGE
LIFE = 15
"""The frame with the number of the shard's life; written by Restorer only."""
_RESERVED_END = 0x10000
_LEGACY_HOLE, _LEGACY_END = 0xA0000, 0x100000
_DEVICE_HOLE, _DEVICE_END = 0xC0000000, 0x100000000
"""RAM that would lie in the last GiB below 4 GiB lies above 4 GiB instead, as on a PC."""

_LINK_FRAMES = {abi.GNTTAB_RESERVED_XENSTORE: 3, abi.GNTTAB_RESERVED_CONSOLE: 4}


def link_frame(gref: int) -> int:
    """The frame of the ring that the domain grants as reference `gref` (0..7)."""
    frame = _LINK_FRAMES.get(gref)
    return gref + 3 if frame is None else frame


def ram(memory_kib: int) -> "list[tuple[int, int]]":
    """(first frame, number of frames) of each run of RAM of a domain with this much memory."""
    total, low = memory_kib // 4, _DEVICE_HOLE // PAGE
    if total <= low:
        return [(0, total)]
    return [(0, low), (_DEVICE_END // PAGE, total - low)]


def memory_map(memory_kib: int) -> "list[tuple[int, int, int]]":
    """(address, size, type) of each entry of the domain's memory map."""
    entries = [(0, _RESERVED_END, abi.XEN_HVM_MEMMAP_TYPE_RESERVED)]
    for frame, count in ram(memory_kib):
        start, end = frame * PAGE, (frame + count) * PAGE
        if start == 0:
            entries.append((_RESERVED_END, _LEGACY_HOLE - _RESERVED_END, abi.XEN_HVM_MEMMAP_TYPE_RAM))
            start = _LEGACY_END
        entries.append((start, end - start, abi.XEN_HVM_MEMMAP_TYPE_RAM))
    return entries


def shared_info_frame(memory_kib: int) -> int:
    """Where a builder shows a domain its shared info page, if it does: right after RAM, as nano does
    itself."""
    first, count = ram(memory_kib)[-1]
    return first + count


def pages(
    memory_kib: int, command_line: str, modules: "list[tuple[int, int]]", rsdp: int, placed: bool = False
) -> "list[tuple[int, bytes]]":
    """(address, content) of the start info and the command line. `modules`: (address, size) of each;
    `placed`: the builder has shown the domain its shared info page."""
    text = command_line.encode() + b"\0"
    if len(text) > PAGE:
        raise BuildError(EINVAL, "the command line has more than %d bytes" % (PAGE - 1))
    entries = memory_map(memory_kib)
    if placed:
        entries.append((shared_info_frame(memory_kib) * PAGE, PAGE, abi.XEN_HVM_MEMMAP_TYPE_RESERVED))
    page = bytearray(PAGE)
    page[0 : abi.hvm_start_info.size] = abi.hvm_start_info.new(
        magic=abi.XEN_HVM_START_MAGIC_VALUE,
        version=1,
        nr_modules=len(modules),
        modlist_paddr=_MODULES if modules else 0,
        cmdline_paddr=COMMAND_LINE,
        rsdp_paddr=rsdp,
        memmap_paddr=_MEMORY_MAP,
        memmap_entries=len(entries),
    )
    for i, (address, size) in enumerate(modules):
        entry = abi.hvm_modlist_entry.new(paddr=address, size=size)
        base = _MODULES - START_INFO + i * len(entry)
        page[base : base + len(entry)] = entry
    for i, (address, size, kind) in enumerate(entries):
        entry = abi.hvm_memmap_table_entry.new(addr=address, size=size, type=kind)
        base = _MEMORY_MAP - START_INFO + i * len(entry)
        page[base : base + len(entry)] = entry
    return [(START_INFO, bytes(page)), (COMMAND_LINE, text)]
