"""PCI functions that exist in this process only; also under MicroPython."""

import struct

from xoar.pci import config

FLR, PM, NO_RESET = "flr", "pm", "none"
FORMATS = {1: "<B", 2: "<H", 4: "<I"}


class View:
    """Items of `size` bytes, as nano.memory gives them."""

    def __init__(self, function, size):
        self._function = function
        self._size = size

    def __getitem__(self, item):
        return self._function.read(item * self._size, self._size)

    def __setitem__(self, item, value):
        self._function.write(item * self._size, self._size, value)


class Simulated:
    """One function. `writes` is what was written; after a reset the next `away` reads find nobody."""

    def __init__(self, vendor=0x8086, device=0x10D3):
        self.data = bytearray(4096)
        self.changeable = bytearray(4096)
        self.writes = []
        self.resets = 0
        self.away = 0
        self.absent = 0
        self.behind = []
        self._end = config.CAPABILITIES
        self._free = 0x40
        self._express = self._power = 0
        self.put(config.ID, 2, vendor)
        self.put(config.ID + 2, 2, device)
        self.put(config.CLASS, 4, 0x02000003)
        self.put(config.SUBSYSTEM, 4, 0x12345678)
        self.put(config.INTERRUPT_LINE, 2, 0x010B)
        for offset, bits in (
            (config.COMMAND, 0x547),
            (config.CACHE_LINE, 0xFFFF),
            (config.INTERRUPT_LINE, 0xFF),
        ):
            self.allow(offset, 2, bits)
        self.power_on = None

    def put(self, offset, size, value):
        struct.pack_into(FORMATS[size], self.data, offset, value)

    def get(self, offset, size):
        return struct.unpack_from(FORMATS[size], self.data, offset)[0]

    def allow(self, offset, size, bits):
        struct.pack_into(FORMATS[size], self.changeable, offset, bits)

    def bar(self, number, size, flags, address):
        """Memory (flags 0, 4: 64 bits, 8: prefetchable) or I/O (1) of `size` bytes."""
        offset = config.BAR0 + 4 * number
        mask = -size & (~3 if flags & 1 else ~15)
        for position in range(offset, offset + (8 if flags & 4 else 4), 4):
            self.allow(position, 4, mask & 0xFFFFFFFF)
            self.put(position, 4, address & mask & 0xFFFFFFFF)
            mask >>= 32
            address >>= 32
        self.data[offset] |= flags

    def capability(self, kind, body):
        offset = self._free
        self.data[self._end] = offset
        self.data[offset] = kind
        self.data[offset + 2 : offset + 2 + len(body)] = body
        self._end = offset + 1
        self._free = (offset + 2 + len(body) + 3) & ~3
        self.put(config.STATUS, 2, config.STATUS_CAPABILITIES)
        return offset

    def add_express(self, reset):
        body = struct.pack("<HIHHIHH", 2, reset << 28, 0x2810, 0, 0x11, 0, 0x11)
        self._express = self.capability(0x10, body + bytes(40))
        self.allow(self._express + 8, 2, 0x7FFF)
        return self._express

    def add_power(self, keeps_state):
        self._power = self.capability(0x01, struct.pack("<HHH", 3, keeps_state << 3, 0))
        self.allow(self._power + 4, 2, 0x3)
        return self._power

    def add_msi(self, control=0x018A):
        msi = self.capability(0x05, struct.pack("<HIIHHII", control, 0xFEE00000, 0, 0x41, 0, 0, 0))
        self.allow(msi + 2, 2, 0x71)
        return msi

    def add_msix(self, entries, bar):
        msix = self.capability(0x11, struct.pack("<HII", entries - 1, bar, 0x2000 | bar))
        self.allow(msix + 2, 2, 0xC000)
        return msix

    def read(self, offset, size):
        if self.absent:
            self.absent -= 1
            return (1 << 8 * size) - 1
        return self.get(offset, size)

    def write(self, offset, size, value):
        if offset % size or value >> 8 * size:
            raise ValueError("no such access")
        self.writes.append((offset, size, value))
        if self.power_on is None:
            self.power_on = bytes(self.data)
        before = self.data[self._power + 4] & 3 if self._power else 0
        for position in range(offset, offset + size):
            bits = self.changeable[position]
            self.data[position] = self.data[position] & ~bits | value & bits
            value >>= 8
        if self._express and offset == self._express + 8 and self.writes[-1][2] & 0x8000:
            self.reset()
        if before == 3 and self.data[self._power + 4] & 0xB == 0:
            self.reset()
        if offset == config.BRIDGE_CONTROL and self.behind and self.writes[-1][2] & 0x40:
            for function in self.behind:
                function.reset()

    def reset(self):
        """Registers as at power-on; BARs and what firmware writes are lost."""
        if self.power_on is None:
            self.power_on = bytes(self.data)
        for position in range(len(self.data)):
            self.data[position] = self.power_on[position] & ~self.changeable[position]
        self.resets += 1
        self.absent = self.away


class Machine:
    """Functions by bdf, in a window of 16 buses."""

    address = 0xB0000000

    def __init__(self, functions, first_bus=0):
        self.functions = functions
        self.first_bus = first_bus
        self.window = config.Window(self.open_page, self.address, first_bus, first_bus + 15)

    def open_page(self, address):
        bdf = (address - self.address >> 12) + (self.first_bus << 8)
        function = self.functions.get(bdf)
        if function is None:
            function = Simulated(0xFFFF, 0xFFFF)
        return {size: View(function, size) for size in (1, 2, 4)}


class Xen:
    """Xen's interrupts: pirqs from 33 on; `refused` is raised, as an errno, by all that maps, `kept` by all
    that unmaps."""

    def __init__(self):
        self.mapped = {}
        self.prepared = False
        self.busy = 0
        self.refused = 0
        self.kept = 0
        self._next = 32

    def map(self, entry, table):
        if self.refused:
            raise OSError(self.refused, "refused")
        if (entry, table) in self.mapped.values():
            raise OSError(17, "mapped")
        self._next += 1
        self.mapped[self._next] = (entry, table)
        return self._next

    def unmap(self, pirq):
        if self.kept:
            raise OSError(self.kept, "kept")
        if pirq not in self.mapped:
            raise OSError(22, "not mapped")
        del self.mapped[pirq]

    def prepare_msix(self):
        if self.busy:
            self.busy -= 1
            raise OSError(16, "interrupts are mapped")
        if self.prepared:
            raise OSError(16, "prepared")
        self.prepared = True

    def release_msix(self):
        if self.busy or not self.prepared:
            raise OSError(16, "busy, or not prepared")
        self.prepared = False


NIC = 0x0100  # 0000:01:00.0


def nic(vendor=0x8086, reset=FLR):
    """A network card as QEMU has them: 64-bit BAR, MSI-X table in another, an I/O BAR."""
    card = Simulated(vendor)
    card.bar(0, 0x20000, 4, 0xFE800000)
    card.bar(2, 0x20, 1, 0xC000)
    card.bar(3, 0x4000, 0, 0xFEA00000)
    card.add_power(0 if reset == PM else 1)
    card.add_msi()
    card.add_express(1 if reset == FLR else 0)
    card.add_msix(5, 3)
    return card


def machine(card):
    """A card alone behind a root port at 0000:00:02.0."""
    port = Simulated(device=0x000C)
    port.put(config.HEADER_TYPE, 1, config.BRIDGE)
    port.put(config.SECONDARY_BUS, 1, 1)
    port.allow(config.BRIDGE_CONTROL, 2, 0x40)
    port.behind = [card]
    return Machine({0: Simulated(), 0x10: port, NIC: card})


def run(job):
    """Lets a generator of waits run to its end: (what it returned, milliseconds waited)."""
    waited = 0
    while True:
        try:
            waited += next(job)
        except StopIteration as end:
            return end.value, waited
