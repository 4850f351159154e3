"""The list of capabilities in the first 256 bytes (PCI Local Bus Specification 3.0, 6.7 and appendix H)."""

from xoar.pci import config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.pci.config import Function

POWER_MANAGEMENT = 0x01
MSI = 0x05
VENDOR = 0x09
EXPRESS = 0x10
MSIX = 0x11

# power management: control and status
PMCSR = 4
PMCSR_STATE = 0x3
PMCSR_D3HOT = 0x3
PMCSR_NO_SOFT_RESET = 0x8
# MSI
MSI_CONTROL = 2
MSI_ENABLE = 0x1
MSI_VECTORS = 0x70  # as many as were enabled, as an exponent
MSI_64BIT = 0x80
# PCI Express
EXPRESS_DEVCAP = 4
DEVCAP_RESET = 1 << 28
EXPRESS_DEVCTL = 8
DEVCTL_RESET = 1 << 15
EXPRESS_DEVSTA = 10
DEVSTA_PENDING = 1 << 5
# MSI-X
MSIX_CONTROL = 2
MSIX_ENTRIES = 0x7FF
MSIX_MASK_ALL = 0x4000
MSIX_ENABLE = 0x8000
MSIX_TABLE = 4
MSIX_TABLE_BAR = 0x7

_FIRST = 0x40  # the header's end


def walk(function: "Function") -> "list[tuple[int, int]]":
    """(id, offset) of each capability in the order of the list, which ends at the first that is absurd."""
    found: "list[tuple[int, int]]" = []
    if not function.read(config.STATUS, 2) & config.STATUS_CAPABILITIES:
        return found
    seen = set()
    offset = function.read(config.CAPABILITIES, 1) & 0xFC
    while offset >= _FIRST and offset not in seen:
        seen.add(offset)
        found.append((function.read(offset, 1), offset))
        offset = function.read(offset + 1, 1) & 0xFC
    return found


def find(function: "Function", kind: int) -> int:
    """The offset of the first capability with this id, 0 if there is none."""
    for each, offset in walk(function):
        if each == kind:
            return offset
    return 0
