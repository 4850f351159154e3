"""Building a PVH domain: images and numbers in, hypercalls out.

The steps are apart because Bootstrapper creates all shards before it connects any (an event channel can
only name a domain that exists). Whoever calls them destroys the domain if a step fails; then Xen takes all
back that the steps did.
"""

from xoar.abi import xen as abi
from xoar.builder import acpi, elf, start
from xoar.builder.errors import EINVAL, BuildError
from xoar.builder.library import BLOCK
from xoar.xen import control, events, memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.builder.library import Image

_ALIGNMENT = 0x200000
SLACK_KIB = 1024  # what Xen allocates on a domain's account besides its RAM
_GRANT_FRAMES = 32
_PARAMETERS = {
    abi.GNTTAB_RESERVED_XENSTORE: (abi.HVM_PARAM_STORE_PFN, abi.HVM_PARAM_STORE_EVTCHN),
    abi.GNTTAB_RESERVED_CONSOLE: (abi.HVM_PARAM_CONSOLE_PFN, abi.HVM_PARAM_CONSOLE_EVTCHN),
}


def create(
    domid: int,
    uuid: bytes,
    label: str,
    memory_kib: int,
    vcpus: int,
    map_frames: int,
    room_kib: int = 0,
    most_ports: int = control.MOST_PORTS,
) -> None:
    """An empty, paused domain with its RAM. `map_frames`: pages for its records of mapped grants; `room_kib`:
    memory that it may take later; `most_ports`: the highest port of an event channel."""
    sid = control.label_to_sid(label)
    control.create(domid, uuid, sid, vcpus, _GRANT_FRAMES, map_frames, most_ports)
    control.limit_memory(domid, memory_kib + room_kib + SLACK_KIB)
    for frame, count in start.ram(memory_kib):
        memory.populate(domid, frame, count)


def connect(domid: int, links: "list[tuple[int, int]]") -> "dict[int, int]":
    """Opens links of a PVH domain: (grant reference, server's domid) each. Returns the domain's port for each
    reference."""
    return open_links(domid, links, start.link_frame)


def tell_of_links(domid: int, ports: "dict[int, int]") -> None:
    """Lets a PVH guest find XenStore and its console by asking Xen; shards are told on their command lines.

    `ports` is what `connect` returned.
    """
    for gref in ports:
        if gref in _PARAMETERS:
            frame_index, port_index = _PARAMETERS[gref]
            control.set_param(domid, frame_index, start.link_frame(gref))
            control.set_param(domid, port_index, ports[gref])


def open_links(
    domid: int, links: "list[tuple[int, int]]", frame_of: "Callable[[int], int]"
) -> "dict[int, int]":
    """Grants the page of each link, `frame_of(grant reference)`, to its server and allocates its port."""
    ports = {}
    table = memory.GrantTable(domid)
    try:
        for gref, server in links:
            table.permit(gref, server, frame_of(gref))
            ports[gref] = events.allocate(domid, server)
    finally:
        table.close()
    return ports


def load(
    domid: int,
    kernel: "Image",
    module: "Image | memoryview | None",
    command_line: str,
    memory_kib: int,
    vcpus: int,
    place: bool = False,
    box_kib: int = 0,
) -> "list[tuple[int, int]]":
    """Loads the kernel and, behind it, one module (a ramdisk; Builder's library), and sets vCPU 0. Returns
    (address, size) of each module.

    `place`: shows the domain its shared info page, so that it needs no right to change its memory map.
    `box_kib`: its last module is empty memory of this size, at the end of its RAM.
    """
    executable = elf.parse(kernel)
    end = (memory_kib - box_kib) * 1024
    if executable.start < 0x100000 or executable.end > min(end, 0xC0000000):
        raise BuildError(EINVAL, "image %s does not fit into %d KiB" % (kernel.name, memory_kib))
    window = memory.Window(domid)
    try:
        copy_segments(window, kernel, executable)
        modules = []
        if module is not None:
            size = module.size if not isinstance(module, memoryview) else len(module)
            address = (executable.end + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
            if address + size > end:
                address = (executable.end + start.PAGE - 1) // start.PAGE * start.PAGE
            if address + size > end:
                raise BuildError(EINVAL, "kernel and ramdisk do not fit into %d KiB" % memory_kib)
            copy_module(window, module, address)
            modules.append((address, size))
        if box_kib:
            modules.append((end, box_kib * 1024))
        window.write(start.ACPI, acpi.tables(start.ACPI, vcpus))
        for address, content in start.pages(memory_kib, command_line, modules, start.ACPI, place):
            window.write(address, content)
    finally:
        window.close()
    if place:
        memory.place_shared_info(domid, start.shared_info_frame(memory_kib))
    control.set_start_state(domid, executable.entry, start.START_INFO)
    return modules


def copy_segments(window: memory.Window, kernel: "Image", executable: elf.Executable) -> None:
    """Writes a kernel's segments to where its headers want them."""
    for index in range(kernel.blocks):
        first = index * BLOCK
        data = None
        for segment in executable.segments:
            low = max(segment.offset, first)
            high = min(segment.offset + segment.file_size, first + BLOCK)
            if low < high:
                if data is None:
                    data = kernel.block(index)
                window.write(segment.address + low - segment.offset, data[low - first : high - first])


def copy_module(window: memory.Window, module: "Image | memoryview", address: int) -> None:
    """Writes a module to consecutive memory."""
    if isinstance(module, memoryview):
        window.write(address, module)
        return
    for index in range(module.blocks):
        window.write(address + index * BLOCK, module.block(index))
