"""What the base address registers of a device stand for (PCI Local Bus Specification 3.0, 6.2.5.1)."""

from collections import namedtuple

from xoar.pci import config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from xoar.pci.config import Function

    class Bar(NamedTuple):
        """A window of memory: its register's offset and low four bits, its machine address, its bytes."""

        offset: int
        flags: int
        address: int
        size: int

else:
    Bar = namedtuple("Bar", ("offset", "flags", "address", "size"))

COUNT = 6
_IO = 0x1
_KIND = 0x6
_64BIT = 0x4
_FLAGS = 0xF
_ONES = 0xFFFFFFFF


def registers() -> range:
    """The offsets of the registers."""
    return range(config.BAR0, config.BAR0 + 4 * COUNT, 4)


def is_wide(bar: Bar) -> bool:
    """Whether the address takes this register and the next."""
    return bar.flags & _KIND == _64BIT


def measure(function: "Function") -> "list[Bar]":
    """The memory windows of a device, whose memory and I/O decode must be off meanwhile.

    I/O windows are left out: no driver domain is given I/O ports.
    """
    found = []
    offsets = iter(registers())
    for offset in offsets:
        old, mask = _probe(function, offset)
        if mask in (0, _ONES) or mask & _IO:
            continue
        flags = mask & _FLAGS
        address, mask, width = old & ~_FLAGS, mask & ~_FLAGS, 32
        if flags & _KIND == _64BIT:
            # the last register can't be the lower half of a pair
            upper = next(offsets, None)
            if upper is None:
                break
            high, high_mask = _probe(function, upper)
            address, mask, width = high << 32 | address, high_mask << 32 | mask, 64
        size = (1 << width) - mask
        if not mask or size & size - 1:
            continue
        found.append(Bar(offset, flags, address, size))
    return found


def _probe(function: "Function", offset: int) -> "tuple[int, int]":
    old = function.read(offset, 4)
    function.write(offset, 4, _ONES)
    mask = function.read(offset, 4)
    function.write(offset, 4, old)
    return old, mask
