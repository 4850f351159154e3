"""Mapping pages that other domains grant to this one (xen/include/public/grant_table.h)."""

from xoar.abi import xen as abi
from xoar.xen import frames, hypercall
from xoar.xen.pages import own_page
from xoar.xen.ring import PAGE_SIZE


class Mapping:
    """A granted page, mapped until unmap()."""

    def __init__(self, frame: int, handle: int) -> None:
        self._frame = frame
        self._handle = handle
        self.page = own_page(frame)

    def unmap(self) -> None:
        """Gives the page back; `page` must not be used any more."""
        request = abi.gnttab_unmap_grant_ref.new(host_addr=self._frame * PAGE_SIZE, handle=self._handle)
        hypercall.call(
            "unmap a grant", abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_unmap_grant_ref, request, 1
        )
        frames.give_back(self._frame)


def map(domid: int, reference: int) -> Mapping:
    """Maps the page behind grant `reference` of domain `domid`, writable. OSError(EACCES) if refused."""
    frame = frames.take()
    request = abi.gnttab_map_grant_ref.new(
        host_addr=frame * PAGE_SIZE, flags=abi.GNTMAP_host_map, ref=reference, dom=domid
    )
    what = "map grant %d of domain %d" % (reference, domid)
    hypercall.call(what, abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_map_grant_ref, request, 1)
    status = abi.gnttab_map_grant_ref.get(request, "status")
    if status != abi.GNTST_okay:
        frames.give_back(frame)
        raise OSError(13, "%s: grant status %d" % (what, status - 0x10000))
    return Mapping(frame, abi.gnttab_map_grant_ref.get(request, "handle"))
