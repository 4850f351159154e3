"""Memory of other domains: populating it, and mapping it through a window of own frames.

Needs `mmu adjust` and `mmu map_read map_write` on the other domain (FLASK) and hypervisor patch 0001.
Layouts: xen/include/public/memory.h.
"""

import struct
from array import array

import nano
from xoar.abi import xen as abi
from xoar.xen import frames, hypercall
from xoar.xen.pages import own_page
from xoar.xen.ring import PAGE_SIZE

_CHUNK = 256  # extents in one hypercall
_SUPERPAGE_ORDER = 9
_SUPERPAGE = 1 << _SUPERPAGE_ORDER
_EFAULT = 14
_ENOMEM = 12


def populate(domid: int, start: int, count: int, machine_frames: "array[int] | None" = None) -> None:
    """Gives a domain `count` fresh, zeroed pages from frame `start` on. OSError(ENOMEM) if there are none.

    Whole 2 MiB ranges are asked for as superpages first: it is faster, and so is the domain afterwards.
    For a PV domain, `machine_frames` gets the machine frame of each frame.
    """
    position, end = start, start + count
    while position < end:
        large = (end - position) // _SUPERPAGE if position % _SUPERPAGE == 0 else 0
        if large:
            done = _populate(domid, position, min(large, _CHUNK), _SUPERPAGE_ORDER, machine_frames)
            position += done * _SUPERPAGE
            if done:
                continue
        limit = min(end, (position // _SUPERPAGE + 1) * _SUPERPAGE)
        done = _populate(domid, position, min(limit - position, _CHUNK), 0, machine_frames)
        if not done:
            raise OSError(_ENOMEM, "no memory left for domain %d" % domid)
        position += done


def _populate(domid: int, start: int, count: int, order: int, machine_frames: "array[int] | None") -> int:
    extents = array("Q", [start + (i << order) for i in range(count)])
    request = abi.memory_reservation.new(
        extent_start=nano.address(memoryview(extents)), nr_extents=count, extent_order=order, domid=domid
    )
    done = hypercall.memory_op("populate domain %d" % domid, abi.XENMEM_populate_physmap, request)
    if machine_frames is not None:
        # Xen has replaced each extent's first frame by its machine frame
        for i in range(done):
            for j in range(1 << order):
                machine_frames[start + (i << order) + j] = extents[i] + j
    return done


def set_map(domid: int, entries: "list[tuple[int, int, int]]") -> None:
    """Sets the memory map that a domain gets when it asks Xen for one: (address, size, type as in E820)."""
    table = b"".join([struct.pack("<QQI", *entry) for entry in entries])
    request = abi.foreign_memory_map.new(domid=domid, nr_entries=len(entries), buffer=nano.address(table))
    hypercall.memory_op("memory map of domain %d" % domid, abi.XENMEM_set_memory_map, request)


def place_shared_info(domid: int, frame: int) -> None:
    """Shows a PVH domain its shared info page in this frame, where it has no memory."""
    request = abi.add_to_physmap.new(domid=domid, space=abi.XENMAPSPACE_shared_info, gpfn=frame)
    hypercall.memory_op("shared info of domain %d" % domid, abi.XENMEM_add_to_physmap, request)


def map_all(domid: int, count: int) -> memoryview:
    """Maps the first `count` frames of another PVH domain, for as long as it lives."""
    first = frames.take(count)
    _map(domid, 0, count, first)
    return nano.memory(first * PAGE_SIZE, count * PAGE_SIZE)


class Frame:
    """One frame of another PVH domain, mapped until unmap(). Raises OSError if it has no such memory."""

    def __init__(self, domid: int, frame: int) -> None:
        self._frame = frames.take()
        try:
            _map(domid, frame, 1, self._frame)
        except OSError:
            frames.give_back(self._frame)
            raise
        self.page = own_page(self._frame)

    def unmap(self) -> None:
        """Gives the page back; `page` must not be used any more."""
        _unmap("unmap a frame", self._frame)


def _unmap(what: str, frame: int) -> None:
    request = abi.remove_from_physmap.new(domid=abi.DOMID_SELF, gpfn=frame)
    hypercall.memory_op(what, abi.XENMEM_remove_from_physmap, request)
    frames.give_back(frame)


def _map(domid: int, frame: int, count: int, first: int) -> None:
    """Maps `count` frames of a domain from `frame` on at `first` and what follows it."""
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        wanted = array("Q", range(frame + start, frame + start + size))
        here = array("Q", range(first + start, first + start + size))
        errors = array("i", [0] * size)
        request = abi.add_to_physmap_batch.new(
            domid=abi.DOMID_SELF,
            space=abi.XENMAPSPACE_gmfn_foreign,
            size=size,
            foreign_domid=domid,
            idxs=nano.address(memoryview(wanted)),
            gpfns=nano.address(memoryview(here)),
            errs=nano.address(memoryview(errors)),
        )
        what = "map the memory of domain %d" % domid
        hypercall.memory_op(what, abi.XENMEM_add_to_physmap_batch, request)
        for error in errors:
            if error:
                raise OSError(-error, what)


def room(count: int) -> memoryview:
    """`count` new pages of this domain's own, zeroed, besides its RAM. OSError(ENOMEM) above its limit.

    Unlike the heap they are not looked through for references when garbage is collected.
    """
    first = frames.take(count)
    populate(abi.DOMID_SELF, first, count)
    return nano.memory(first * PAGE_SIZE, count * PAGE_SIZE)


class Window:
    """Some frames of this domain through which another domain's memory is written, front to back.

    Of a PV domain, `machine_frames` are the machine frames that it has, in the order of its own frames; for
    one without memory a number that is no machine frame, for which Xen has EINVAL (p2m_add_foreign).
    """

    def __init__(self, domid: int, machine_frames: "array[int] | None" = None, count: int = 64) -> None:
        self._domid = domid
        self._machine_frames = machine_frames
        self._count = count
        self._frame = frames.take(count)
        self._memory = nano.memory(self._frame * PAGE_SIZE, count * PAGE_SIZE)
        self._mapped = 0
        self._first = -1  # the other domain's first mapped frame
        self._frames = array("Q", range(self._frame, self._frame + count))
        self._wanted = array("Q", [0] * count)
        self._errors = array("i", [0] * count)

    def write(self, address: int, data: "bytes | bytearray | memoryview") -> None:
        """Writes to the other domain's memory; runs of writes at rising addresses are cheap."""
        done = 0
        while done < len(data):
            frame, offset = divmod(address + done, PAGE_SIZE)
            if not self._first <= frame < self._first + self._count or self._first < 0:
                self._map(frame)
            start = (frame - self._first) * PAGE_SIZE + offset
            length = min(len(data) - done, self._count * PAGE_SIZE - start)
            # a frame that the other domain does not have ends the mapped run early
            if start + length > self._mapped * PAGE_SIZE:
                raise OSError(_EFAULT, "domain %d has no memory at %#x" % (self._domid, address + done))
            self._memory[start : start + length] = data[done : done + length]
            done += length

    def close(self) -> None:
        """Unmaps all; the other domain could not be destroyed completely otherwise."""
        for i in range(self._mapped_ever()):
            request = abi.remove_from_physmap.new(domid=abi.DOMID_SELF, gpfn=self._frame + i)
            nano.hypercall(abi.HYPERVISOR_memory_op, abi.XENMEM_remove_from_physmap, request)
        frames.give_back(self._frame, self._count)

    def _mapped_ever(self) -> int:
        return self._count if self._first >= 0 else 0

    def _map(self, frame: int) -> None:
        """Maps the run from `frame` on over what the window showed before."""
        machine_frames = self._machine_frames
        for i in range(self._count):
            if machine_frames is None:
                self._wanted[i] = frame + i
            else:
                self._wanted[i] = machine_frames[min(frame + i, len(machine_frames) - 1)]
        request = abi.add_to_physmap_batch.new(
            domid=abi.DOMID_SELF,
            space=abi.XENMAPSPACE_gmfn_foreign,
            size=self._count,
            foreign_domid=self._domid,
            idxs=nano.address(memoryview(self._wanted)),
            gpfns=nano.address(memoryview(self._frames)),
            errs=nano.address(memoryview(self._errors)),
        )
        what = "map frame %#x of domain %d" % (frame, self._domid)
        hypercall.memory_op(what, abi.XENMEM_add_to_physmap_batch, request)
        self._first = frame
        self._mapped = 0
        while self._mapped < self._count and self._errors[self._mapped] == 0:
            self._mapped += 1
        if not self._mapped:
            raise OSError(-self._errors[0], what)


class GrantTable:
    """The first frame of another domain's grant table, mapped to seed entries."""

    def __init__(self, domid: int) -> None:
        self._frame = frames.take()
        wanted = array("Q", [self._frame])
        request = abi.mem_acquire_resource.new(
            domid=domid,
            type=abi.XENMEM_resource_grant_table,
            id=abi.XENMEM_resource_grant_table_id_shared,
            nr_frames=1,
            frame_list=nano.address(memoryview(wanted)),
        )
        hypercall.memory_op("grant table of domain %d" % domid, abi.XENMEM_acquire_resource, request)
        self._memory = nano.memory(self._frame * PAGE_SIZE, PAGE_SIZE)

    def permit(self, reference: int, domid: int, frame: int) -> None:
        """Lets domain `domid` map frame `frame`, writable, as grant `reference`."""
        entry = abi.grant_entry_v1
        base = reference * entry.size
        entry.set(self._memory, "frame", frame, base)
        entry.set(self._memory, "domid", domid, base)
        entry.set(self._memory, "flags", abi.GTF_permit_access, base)

    def close(self) -> None:
        """Unmaps it."""
        _unmap("unmap a grant table", self._frame)
