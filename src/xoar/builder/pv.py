"""A PV domain's first address space: what lies in which frame, its page tables, its start info.

From the kernel's virtual base on, virtual addresses map the domain's frames in order:

    kernel (where its headers want it) | ramdisk | frame list | start info | XenStore ring | console ring |
    request rings | page tables | stack | at least 512 KiB of free room, up to the next 4 MiB

A kernel can have a hole: a gap between two of its segments. The domain has no memory behind the gap but for
its first frame, to which all addresses of the gap map, since Linux clears its bss across it once. That frame
is as much the kernel's own as the rest of the gap: Linux never allocates it, so it never has to become a page
table, which it couldn't, being mapped writable so often.

Sources: xen/include/public/xen.h (struct start_info and the comment above it on the layout),
arch-x86/xen.h (vcpu_guest_context); of Linux arch/x86/xen/xen-head.S for the notes, arch/x86/xen/p2m.c for
frames without memory.
"""

from array import array
from collections import namedtuple

from xoar.abi import xen as abi
from xoar.builder.errors import EINVAL, BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.builder.elf import Executable

PAGE = 4096
_TABLE = 512  # entries of a page table
_REACH = _TABLE * PAGE  # bytes that one lowest table maps
_PADDING = 512 * 1024
_ROUND = 4 * 1024 * 1024
# Linux gives the gaps that it leaves itself, of less than 2 MiB, to its allocator: they need memory
_HOLE_FRAMES = 1024
_LINK_FRAMES = 8  # one for each reserved grant reference
_RINGS = {abi.GNTTAB_RESERVED_XENSTORE: 0, abi.GNTTAB_RESERVED_CONSOLE: 1}
_MAGIC = b"xen-3.0-x86_64"

# PRESENT, RW, USER, ACCESSED, DIRTY: of entries that point to tables, to pages, to pages that are tables
_TO_TABLE, _TO_PAGE, _TO_READ_ONLY = 0x67, 0x63, 0x61

Layout = namedtuple(
    "Layout",
    (
        "base",
        "entry",
        "module",
        "module_size",
        "hole",
        "hole_end",
        "list",
        "start_info",
        "links",
        "tables",
        "low",
        "stack",
        "end",
        "count",
    ),
)
"""Frames, but for base and entry (virtual addresses) and module_size (bytes). hole: the first frame without
memory, hole_end: the next one with memory (0 both: all have); tables: three upper tables, then `low` lowest
ones; end: the first frame that is not mapped; count: all frames of the domain, those of the hole, too."""


def layout(executable: "Executable", memory_kib: int, module_size: int) -> Layout:
    """Where everything lies in a domain with `memory_kib` of real memory, that is without the hole.

    BuildError(EINVAL) if the kernel is not for PV or does not fit.
    """
    notes = executable.notes
    entry = notes.get(abi.XEN_ELFNOTE_ENTRY)
    base = notes.get(abi.XEN_ELFNOTE_VIRT_BASE)
    if entry is None or base is None or abi.XEN_ELFNOTE_HYPERCALL_PAGE in notes:
        raise BuildError(EINVAL, "the kernel has no PV entry that Builder knows (Linux 6.1.135 or newer has)")
    if base % _REACH or base >> 39 != (base + (1 << 30) - 1) >> 39 or executable.start < 0:
        raise BuildError(EINVAL, "the kernel's virtual base %#x is none that Builder can map" % base)
    hole, hole_end = _hole(executable)
    total = memory_kib // 4 + hole_end - hole
    module = (executable.end + PAGE - 1) // PAGE
    frame_list = module + (module_size + PAGE - 1) // PAGE
    start_info = frame_list + (total * 8 + PAGE - 1) // PAGE
    links = start_info + 1
    tables = links + _LINK_FRAMES
    low = 1
    while True:
        stack = tables + 3 + low
        size = ((stack + 1) * PAGE + _PADDING + _ROUND - 1) // _ROUND * _ROUND
        if size <= low * _REACH:
            break
        low += 1
    if size // PAGE > total or size > 1 << 30:
        raise BuildError(EINVAL, "kernel and ramdisk do not fit into %d KiB" % memory_kib)
    end = size // PAGE
    return Layout(
        base,
        entry,
        module,
        module_size,
        hole,
        hole_end,
        frame_list,
        start_info,
        links,
        tables,
        low,
        stack,
        end,
        total,
    )


def _hole(executable: "Executable") -> "tuple[int, int]":
    """The first frame of the kernel's first gap that needs no memory, and the first one behind it."""
    end = executable.start
    for segment in sorted(executable.segments, key=lambda segment: segment.address):
        first, last = (end + PAGE - 1) // PAGE, segment.address // PAGE
        if last - first >= _HOLE_FRAMES:
            return first + 1, last
        end = max(end, segment.address + segment.memory_size)
    return 0, 0


def link_frame(where: Layout, gref: int) -> int:
    """The frame of the ring that the domain grants as reference `gref` (0..7)."""
    return int(where.links) + _RINGS.get(gref, gref)


def table(where: Layout, frames: "array[int]", index: int) -> "array[int]":
    """Page table number `index` (its frame is where.tables + index).

    `frames`: frame -> machine frame, all ones in the hole (Linux' INVALID_P2M_ENTRY).
    """
    entries = array("Q", [0] * _TABLE)
    first = where.base >> 12
    if index == 0:  # level 4
        entries[first >> 27 & 511] = frames[where.tables + 1] << 12 | _TO_TABLE
    elif index == 1:  # level 3
        entries[first >> 18 & 511] = frames[where.tables + 2] << 12 | _TO_TABLE
    elif index == 2:  # level 2
        for i in range(where.low):
            entries[(first >> 9) + i & 511] = frames[where.tables + 3 + i] << 12 | _TO_TABLE
    else:
        frame = (index - 3) * _TABLE
        hole, hole_end = where.hole, where.hole_end
        for i in range(min(_TABLE, where.end - frame)):
            # the frame before the hole stands for all of it
            backed = hole - 1 if hole <= frame + i < hole_end else frame + i
            entries[i] = frames[backed] << 12 | _TO_PAGE
        # Xen lets nobody write to a page table
        for i in range(max(where.tables - frame, 0), min(where.stack - frame, _TABLE)):
            entries[i] = entries[i] & ~0xFF | _TO_READ_ONLY
    return entries


def tables(where: Layout) -> int:
    """The number of page tables."""
    return 3 + int(where.low)


def start_info(
    where: Layout,
    frames: "array[int]",
    shared_info: int,
    ports: "dict[int, int]",
    command_line: str,
) -> bytes:
    """The start info page; `shared_info` is a machine frame, `ports` those of the links."""
    text = command_line.encode() + b"\0"
    if len(text) > abi.MAX_GUEST_CMDLINE:
        raise BuildError(EINVAL, "the command line has more than %d bytes" % (abi.MAX_GUEST_CMDLINE - 1))
    store, console = abi.GNTTAB_RESERVED_XENSTORE, abi.GNTTAB_RESERVED_CONSOLE
    return bytes(
        abi.start_info.new(
            magic=_MAGIC,
            nr_pages=len(frames),
            shared_info=shared_info << 12,
            flags=abi.SIF_VIRT_P2M_4TOOLS,
            store_mfn=frames[link_frame(where, store)],
            store_evtchn=ports.get(store, 0),
            console_mfn=frames[link_frame(where, console)],
            console_evtchn=ports.get(console, 0),
            pt_base=_address(where, where.tables),
            nr_pt_frames=tables(where),
            mfn_list=_address(where, where.list),
            mod_start=_address(where, where.module) if where.module_size else 0,
            mod_len=where.module_size,
            cmd_line=text,
        )
    )


def context(where: Layout, frames: "array[int]") -> bytearray:
    """The state of the first vCPU."""
    stack = _address(where, where.stack) + PAGE
    return abi.vcpu_guest_context.new(
        flags=abi.VGCF_in_kernel | abi.VGCF_online,
        rip=where.entry,
        rsp=stack,
        rsi=_address(where, where.start_info),
        rflags=0x200,
        cs=abi.FLAT_KERNEL_CS,
        ds=abi.FLAT_KERNEL_DS,
        es=abi.FLAT_KERNEL_DS,
        ss=abi.FLAT_KERNEL_SS,
        kernel_ss=abi.FLAT_KERNEL_SS,
        kernel_sp=stack,
        cr3=frames[where.tables] << 12,
    )


def masked_upcalls(vcpus: int) -> "list[tuple[int, bytes]]":
    """(offset, bytes) to write into the shared info page: a vCPU starts with events masked, or Linux would be
    called before it can take it."""
    size, at = abi.vcpu_info.size, abi.vcpu_info.offset("evtchn_upcall_mask")
    return [(vcpu * size + at, b"\1") for vcpu in range(min(vcpus, 32))]


def _address(where: Layout, frame: int) -> int:
    return int(where.base) + frame * PAGE
