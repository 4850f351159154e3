"""What only the first domain can learn of the machine: where configuration space and device memory lie.

Sources: ACPI specification 6.4, 5.2.5 to 5.2.8 (RSDP, XSDT); PCI Firmware Specification 3.2, 4.1.2 (MCFG);
PCI Local Bus Specification 3.0, chapter 6; PCI-to-PCI Bridge Specification 1.2, 3.2.5.4 (bus numbers).
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]
    """(physical address, length in bytes) -> the bytes."""

_RAM = 1  # in a memory map; all other types are firmware's
_MOST_TABLES = 128
_FOUR_GIB = 1 << 32
_CHIPSET = 0xFEC00000  # from here to 4 GiB: interrupt controllers, timers, firmware
_SMALLEST = 1 << 20
_BRIDGE = 1
BUS = 1 << 20
"""Bytes of configuration space of a bus."""


def mcfg(read: "Read", rsdp: int) -> "tuple[int, int, int] | None":
    """(address of bus 0's configuration space, first bus, last bus) of segment 0; None without an MCFG."""
    (xsdt,) = struct.unpack_from("<Q", read(rsdp, 36), 24)
    if not xsdt:
        return None
    length = min(_length(read, xsdt), 36 + 8 * _MOST_TABLES)
    entries = read(xsdt, length)
    for at in range(36, length - 7, 8):
        (table,) = struct.unpack_from("<Q", entries, at)
        if read(table, 4) == b"MCFG":
            content = read(table, min(_length(read, table), 4096))
            for entry in range(44, len(content) - 15, 16):
                base, segment, first, last = struct.unpack_from("<QHBB", content, entry)
                if segment == 0:
                    return base, first, last
    return None


def _length(read: "Read", table: int) -> int:
    length: int = struct.unpack_from("<I", read(table, 8), 4)[0]
    return length


def last_bus(word: "Callable[[int], int]", ecam: "tuple[int, int, int]") -> int:
    """The highest bus that a bridge on the first one leads to; the firmware has numbered them.

    `word` reads the 32 bits at an address.
    """
    address, first, last = ecam
    found = first
    for function in range(256):
        at = address + first * BUS + (function << 12)
        if word(at) & 0xFFFF != 0xFFFF and word(at + 0x0C) >> 16 & 0x7F == _BRIDGE:
            found = max(found, word(at + 0x18) >> 16 & 0xFF)
    return min(found, last)


def windows(
    memory_map: "list[tuple[int, int, int]]", ecam: "tuple[int, int, int]"
) -> "list[tuple[int, int]]":
    """(address, size) of what can be devices' memory: what the memory map (address, size, type) leaves free
    above RAM and below the chipset's own, but for configuration space. RAM is never in it."""
    taken = [(start, start + size) for start, size, _ in memory_map]
    taken.append((ecam[0], ecam[0] + (ecam[2] + 1) * BUS))
    low = max([0] + [start + size for start, size, kind in memory_map if kind == _RAM and start < _FOUR_GIB])
    result = []
    position = low
    for start, end in sorted(taken):
        if start > position and min(start, _CHIPSET) - position >= _SMALLEST:
            result.append((position, min(start, _CHIPSET) - position))
        position = max(position, end)
    if _CHIPSET - position >= _SMALLEST:
        result.append((position, _CHIPSET - position))
    return result
