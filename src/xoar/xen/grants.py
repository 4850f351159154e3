"""Pages that other domains grant to this one, mapped or copied (xen/include/public/grant_table.h)."""

from xoar.abi import xen as abi
from xoar.xen import frames, hypercall
from xoar.xen.pages import Buffer, own_page
from xoar.xen.ring import PAGE_SIZE

_EACCES = 13


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
        raise OSError(_EACCES, "%s: grant status %d" % (what, status - 0x10000))
    return Mapping(frame, abi.gnttab_map_grant_ref.get(request, "handle"))


class Copies:
    """The page behind grant `reference` of domain `domid`, copied to and from the same place of `buffer`."""

    def __init__(self, domid: int, reference: int, buffer: Buffer) -> None:
        self._what = "copy grant %d of domain %d" % (reference, domid)
        self._domid = domid
        self._reference = reference
        self._buffer = buffer
        self._stores: "dict[tuple[tuple[int, int], ...], bytearray]" = {}
        self._fetch = abi.gnttab_copy.new(
            source_ref=reference,
            source_domid=domid,
            dest_frame=buffer.frame,
            dest_domid=abi.DOMID_SELF,
            len=PAGE_SIZE,
            flags=abi.GNTCOPY_source_gref,
        )

    def fetch(self) -> None:
        """Copies the whole page here. OSError(EACCES) if refused."""
        self._copy(self._fetch, 1)

    def store(self, runs: "list[tuple[int, int]]") -> None:
        """Copies these bytes, (offset, length) each, there, in this order. OSError(EACCES) if refused."""
        key = tuple(runs)
        requests = self._stores.get(key)
        if requests is None:
            # there are few kinds, and to make one takes longer than the copy
            requests = self._stores[key] = self._requests(runs)
        self._copy(requests, len(runs))

    def _requests(self, runs: "list[tuple[int, int]]") -> bytearray:
        requests = bytearray(0)
        for offset, length in runs:
            requests += abi.gnttab_copy.new(
                source_frame=self._buffer.frame,
                source_domid=abi.DOMID_SELF,
                source_offset=offset,
                dest_ref=self._reference,
                dest_domid=self._domid,
                dest_offset=offset,
                len=length,
                flags=abi.GNTCOPY_dest_gref,
            )
        return requests

    def _copy(self, requests: bytearray, count: int) -> None:
        hypercall.call(self._what, abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, requests, count)
        for i in range(count):
            status = abi.gnttab_copy.get(requests, "status", i * abi.gnttab_copy.size)
            if status != abi.GNTST_okay:
                raise OSError(_EACCES, "%s: grant status %d" % (self._what, status - 0x10000))
