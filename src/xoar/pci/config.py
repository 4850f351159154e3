"""Configuration space through the ECAM window (PCI Express Base Specification, 7.2.2).

Each function has 4 KiB, at bus << 20 | device << 15 | function << 12. It is read and written as hardware
wants it: in whole aligned units of 1, 2 or 4 bytes, so the views are used item by item and never as slices.
"""

from xoar.pci.errors import PciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Views = dict[int, memoryview]
    """The same 4 KiB as items of 1, 2 and 4 bytes, by the size of an item."""

# registers of the header, common and type 0 (PCI Local Bus Specification 3.0, 6.1)
ID = 0x00
COMMAND = 0x04
STATUS = 0x06
CLASS = 0x08  # revision, interface, class
CACHE_LINE = 0x0C
HEADER_TYPE = 0x0E
BAR0 = 0x10
SUBSYSTEM = 0x2C
ROM = 0x30
CAPABILITIES = 0x34
INTERRUPT_LINE = 0x3C
# of bridges, type 1
SECONDARY_BUS = 0x19
BRIDGE_CONTROL = 0x3E

COMMAND_MEMORY = 0x2
COMMAND_MASTER = 0x4
COMMAND_NO_INTX = 0x400
STATUS_CAPABILITIES = 0x10
MULTI_FUNCTION = 0x80
BRIDGE = 1
NOBODY = 0xFFFF
"""The vendor that is read where no function is."""

QUIET = COMMAND_NO_INTX | COMMAND_MEMORY
"""COMMAND of a function that nobody drives: no DMA, no INTx; memory decode, as Xen reads the MSI-X table."""


class Function:
    """One function's configuration space. `bdf` is segment << 16 | bus << 8 | device << 3 | function."""

    def __init__(self, bdf: int, views: "Views") -> None:
        self.bdf = bdf
        self._views = views

    def read(self, offset: int, size: int) -> int:
        """What stands at a byte offset; `size` is 1, 2 or 4 bytes, the offset a multiple of it."""
        value: int = self._views[size][offset // size]
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a value of `size` bytes; as `read`."""
        self._views[size][offset // size] = value

    @property
    def present(self) -> bool:
        """Whether there is such a function."""
        return self.read(ID, 2) != NOBODY

    @property
    def header_type(self) -> int:
        """0: a device; 1: a bridge to another bus."""
        return self.read(HEADER_TYPE, 1) & ~MULTI_FUNCTION


class Window:
    """The ECAM window of segment 0.

    `address` is where the first bus lies; `open_page(address)` gives the views of the 4 KiB there.
    """

    def __init__(
        self, open_page: "Callable[[int], Views]", address: int, first_bus: int, last_bus: int
    ) -> None:
        self.first_bus = first_bus
        self.last_bus = last_bus
        self._open_page = open_page
        self._address = address

    def function(self, bdf: int) -> Function:
        """The configuration space of a function, which need not be there. PciError if outside the window."""
        if not self.first_bus <= bdf >> 8 <= self.last_bus:
            raise PciError(
                "%s is not on the buses %d to %d of this host" % (name(bdf), self.first_bus, self.last_bus)
            )
        return Function(bdf, self._open_page(self._address + (bdf - (self.first_bus << 8) << 12)))

    def functions(self, bus: int) -> "Iterator[Function]":
        """The functions on a bus, in ascending order."""
        for device in range(32):
            first = self.function(bus << 8 | device << 3)
            if not first.present:
                continue
            yield first
            if first.read(HEADER_TYPE, 1) & MULTI_FUNCTION:
                for number in range(1, 8):
                    other = self.function(first.bdf | number)
                    if other.present:
                        yield other

    def bridge_to(self, bus: int) -> "Function | None":
        """The bridge or port whose secondary bus this is; None for a root bus."""
        for above in range(self.first_bus, bus):
            for function in self.functions(above):
                if function.header_type == BRIDGE and function.read(SECONDARY_BUS, 1) == bus:
                    return function
        return None


def name(bdf: int) -> str:
    """The usual way to write it: 0000:01:00.0."""
    return "%04x:%02x:%02x.%d" % (bdf >> 16, bdf >> 8 & 0xFF, bdf >> 3 & 0x1F, bdf & 7)
