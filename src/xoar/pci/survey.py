"""What there is on the host's buses, and devices that were taken away from a driver domain, reset."""

from collections import namedtuple

from xoar.pci import config, device
from xoar.pci.config import name
from xoar.pci.errors import PciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from xoar.pci.config import Window
    from xoar.pci.device import Xen

Found = namedtuple("Found", ("bdf", "class_code", "vendor", "device"))
"""`class_code` is base class << 16 | subclass << 8 | interface (PCI Code and ID Assignment Specification)."""

_BRIDGES = 0x06  # base class
_IOMMU = 0x0806  # base class and subclass


def devices(window: "Window") -> "list[Found]":
    """Every function that can be handed out: no bridge, no IOMMU; on the first bus and those below it."""
    found = []
    buses = [window.first_bus]
    for bus in buses:
        for function in window.functions(bus):
            if function.header_type == config.BRIDGE:
                below = function.read(config.SECONDARY_BUS, 1)
                if bus < below <= window.last_bus and below not in buses:
                    buses.append(below)
                continue
            code = function.read(config.CLASS, 4) >> 8
            if function.header_type == 0 and code >> 16 != _BRIDGES and code >> 8 != _IOMMU:
                identity = function.read(config.ID, 4)
                found.append(Found(function.bdf, code, identity & 0xFFFF, identity >> 16))
    return sorted(found)


def survey(
    window: "Window",
    withdrawn: "list[int]",
    xen: "Callable[[int], Xen]",
    report: "Callable[[str], None]",
    tell: "Callable[[list[Found]], None]",
) -> "Generator[int, None, None]":
    """Resets the functions `withdrawn`, then tells of all devices. Yields the milliseconds to wait."""
    for bdf in withdrawn:
        try:
            yield from device.prepare(window, bdf, xen(bdf))
        except PciError as error:
            report("%s was withdrawn, and is not reset: %s" % (name(bdf), error))
    tell(devices(window))
