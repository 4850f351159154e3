"""Message interrupts of a PCI function for another domain (xen/include/public/physdev.h)."""

from xoar.abi import xen as abi
from xoar.xen import hypercall

_ANY = 0xFFFFFFFF  # -1: Xen chooses


def _physdev(what: str, operation: int, argument: bytearray) -> None:
    hypercall.call(what, abi.HYPERVISOR_physdev_op, operation, argument)


class Function:
    """A function that is domain `domid`'s; `bdf` is segment << 16 | bus << 8 | device << 3 | function."""

    def __init__(self, domid: int, bdf: int) -> None:
        self._domid = domid
        self._bdf = bdf

    def map(self, entry: int, table: int) -> int:
        """Maps an entry of the MSI-X table, whose BAR is at `table`; MSI if both are 0. Returns the pirq.

        OSError: ENODEV (not assigned to the domain), ENODATA (not prepared), ENXIO (memory decode is off),
        EINVAL (no such entry).
        """
        request = abi.physdev_map_pirq.new(
            domid=self._domid,
            type=abi.MAP_PIRQ_TYPE_MSI_SEG,
            index=_ANY,
            pirq=_ANY,
            bus=self._bdf >> 8,  # with the segment in bits 16 to 31
            devfn=self._bdf & 0xFF,
            entry_nr=entry,
            table_base=table,
        )
        what = "map an interrupt of function 0x%x for domain %d" % (self._bdf, self._domid)
        _physdev(what, abi.PHYSDEVOP_map_pirq, request)
        return abi.physdev_map_pirq.get(request, "pirq")

    def unmap(self, pirq: int) -> None:
        """Takes a pirq back. OSError: ESRCH (the domain is gone), EINVAL (it has no such pirq)."""
        request = abi.physdev_unmap_pirq.new(domid=self._domid, pirq=pirq)
        _physdev("unmap pirq %d of domain %d" % (pirq, self._domid), abi.PHYSDEVOP_unmap_pirq, request)

    def prepare_msix(self) -> None:
        """Makes Xen take note of the MSI-X table and write-protect it. OSError(EBUSY): it has done so."""
        self._table("prepare", abi.PHYSDEVOP_prepare_msix)

    def release_msix(self) -> None:
        """Undoes `prepare_msix`. OSError(EBUSY): it was not prepared, or interrupts are mapped."""
        self._table("release", abi.PHYSDEVOP_release_msix)

    def _table(self, verb: str, operation: int) -> None:
        bdf = self._bdf
        request = abi.physdev_pci_device.new(seg=bdf >> 16, bus=bdf >> 8 & 0xFF, devfn=bdf & 0xFF)
        _physdev("%s the MSI-X table of function 0x%x" % (verb, bdf), operation, request)
