"""Building a driver domain: a Linux PV domain, in which a device can be."""

from array import array

import nano
from xoar.builder import construct, elf, pv
from xoar.xen import control, memory
from xoar.xen import pv as xen_pv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.builder.library import Image

_GRANT_FRAMES = 4  # what Linux takes it for if it may not ask
_MAP_FRAMES = 64  # records for 16384 grants of guests that it has mapped


def build(
    domid: int,
    uuid: bytes,
    label: str,
    kernel: "Image",
    rootfs: "Image",
    command_line: str,
    memory_kib: int,
    links: "list[tuple[int, int]]",
) -> "dict[int, tuple[int, int]]":
    """Builds the domain and leaves it paused; (frame, port) of the link with each grant reference.

    It starts with more than its memory, since Linux holds its initramfs twice while it unpacks it. The word
    xoar.memory= tells it what to keep, and it can't take again what it has given back. Linux' balloon takes
    all frames of the start info for present (current_pages in drivers/xen/balloon.c), so the word counts
    those of the kernel's hole, too, which have no memory.

    `links`: (grant reference, server's domid) each. If this raises (OSError, BuildError, MemoryError), the
    domain may exist: destroy it.
    """
    executable = elf.parse(kernel)
    start_kib = memory_kib + (rootfs.size + 4095) // 4096 * 4
    where = pv.layout(executable, start_kib, rootfs.size)
    command_line += " xoar.memory=%d" % (memory_kib + (where.hole_end - where.hole) * 4)
    control.create(domid, uuid, control.label_to_sid(label), 1, _GRANT_FRAMES, _MAP_FRAMES, pv=True)
    control.limit_memory(domid, start_kib + construct.SLACK_KIB)
    xen_pv.use_native_tsc(domid)
    control.set_weight(domid, control.WEIGHT_OF_SERVICES)
    frames = array("Q", b"\xff" * (8 * where.count))  # no memory, until there is some
    memory.populate(domid, 0, where.hole, frames)
    memory.populate(domid, where.hole_end, where.count - where.hole_end, frames)
    control.limit_memory(domid, memory_kib + construct.SLACK_KIB)
    ports = construct.open_links(domid, links, lambda gref: frames[pv.link_frame(where, gref)])
    shared_info = xen_pv.shared_info_frame(domid)

    window = memory.Window(domid, frames)
    try:
        construct.copy_segments(window, kernel, executable)
        construct.copy_module(window, rootfs, where.module * pv.PAGE)
        window.write(where.list * pv.PAGE, _bytes(frames))
        info = pv.start_info(where, frames, shared_info, ports, command_line)
        window.write(where.start_info * pv.PAGE, info)
        for index in range(pv.tables(where)):
            window.write((where.tables + index) * pv.PAGE, _bytes(pv.table(where, frames, index)))
    finally:
        window.close()
    window = memory.Window(domid, array("Q", [shared_info]), 1)
    try:
        for offset, data in pv.masked_upcalls(1):
            window.write(offset, data)
    finally:
        window.close()
    xen_pv.pin(domid, frames[where.tables])
    xen_pv.set_context(domid, pv.context(where, frames))
    return {gref: (frames[pv.link_frame(where, gref)], ports[gref]) for gref in ports}


def _bytes(numbers: "array[int]") -> memoryview:
    """The same memory as bytes."""
    return nano.memory(nano.address(memoryview(numbers)), len(numbers) * 8)
