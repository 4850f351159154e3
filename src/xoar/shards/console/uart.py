"""A 16550 serial port by port I/O (National Semiconductor PC16550D), polled: a PVH domain gets no interrupt.

Nothing here waits: a transmitter that is not ready takes nothing, and the caller comes back later. Each port
access is an exit to Xen, so bytes go out by the FIFO's 16 and come in by its trigger level where they can.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Ports(Protocol):
        """Access to I/O ports, as the module `nano` offers it."""

        def inb(self, port: int) -> int:
            """Reads a byte."""

        def outb(self, port: int, value: int) -> None:
            """Writes a byte."""

        def outs(self, port: int, data: "bytes | bytearray | memoryview") -> None:
            """Writes all of `data`."""


_DATA = 0
_INTERRUPT_ENABLE = 1
_INTERRUPT_ID = 2
_FIFO_CONTROL = 2
_LINE_CONTROL = 3
_MODEM_CONTROL = 4
_LINE_STATUS = 5

_DIVISOR_ACCESS = 0x80
_EIGHT_BITS = 0x03
_ENABLE_FIFOS_TRIGGER_14 = 0xC1
_CLEAR_FIFOS = 0x06
_RECEIVED_DATA = 0x01
_DTR_RTS = 0x03
_DATA_READY = 0x01
_TRANSMITTER_EMPTY = 0x20
_FIFO_AT_TRIGGER = 0x04
_TRIGGER = 14
_FIFO_SIZE = 16


class Uart:
    """The port at I/O address `base`, set to 115200 8N1. `present` is False if nothing answers there.
    `fresh`: what is on its way is of no use."""

    def __init__(self, ports: "Ports", base: int, fresh: bool = True) -> None:
        self._ports = ports
        self._base = base
        ports.outb(base + _LINE_CONTROL, _DIVISOR_ACCESS | _EIGHT_BITS)
        ports.outb(base + _DATA, 1)
        ports.outb(base + _INTERRUPT_ENABLE, 0)
        ports.outb(base + _LINE_CONTROL, _EIGHT_BITS)
        ports.outb(base + _FIFO_CONTROL, _ENABLE_FIFOS_TRIGGER_14 | (_CLEAR_FIFOS if fresh else 0))
        # without OUT2 no interrupt leaves the chip; enabled, it shows in the identification register
        # whether the FIFO has reached its trigger level
        ports.outb(base + _MODEM_CONTROL, _DTR_RTS)
        ports.outb(base + _INTERRUPT_ENABLE, _RECEIVED_DATA)
        self.present = ports.inb(base + _LINE_STATUS) != 0xFF

    @property
    def heard(self) -> bool:
        """Whether bytes have arrived."""
        return bool(self._ports.inb(self._base + _LINE_STATUS) & _DATA_READY)

    def read(self, limit: int) -> bytes:
        """Bytes that have arrived: at most `limit` and one FIFO's worth more."""
        base, ports = self._base, self._ports
        data = bytearray()
        while len(data) < limit and self.heard:
            count = 1
            if ports.inb(base + _INTERRUPT_ID) & 0x0F == _FIFO_AT_TRIGGER:
                count = _TRIGGER
            for _ in range(count):
                data.append(ports.inb(base + _DATA))
        return bytes(data)

    def write(self, data: "bytes | memoryview") -> int:
        """Sends as much of `data` as the transmitter takes now; returns how many bytes that was."""
        sent = 0
        while sent < len(data) and self._ports.inb(self._base + _LINE_STATUS) & _TRANSMITTER_EMPTY:
            piece = data[sent : sent + _FIFO_SIZE]
            self._ports.outs(self._base + _DATA, piece)
            sent += len(piece)
        return sent
