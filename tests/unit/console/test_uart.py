"""The serial driver against a model of a 16550 that can stall."""

from __future__ import annotations

from xoar.shards.console.uart import Uart

BASE = 0x2F8


class Chip:
    """A PC16550D as far as the driver can tell: FIFOs of 16, a trigger level of 14, line status."""

    def __init__(self) -> None:
        self.registers: dict[int, int] = {}
        self.to_host = b""
        self.sent = bytearray()
        self.fifo = 0
        self.stalled = False
        self.accesses = 0

    def inb(self, port: int) -> int:
        self.accesses += 1
        register = port - BASE
        if register == 5:
            return (0x01 if self.to_host else 0) | (0x20 if self.fifo == 0 else 0)
        if register == 2:
            return 0xC4 if len(self.to_host) >= 14 else 0xCC if self.to_host else 0xC1
        assert register == 0 and self.to_host, "read from an empty FIFO"
        byte, self.to_host = self.to_host[0], self.to_host[1:]
        return byte

    def outb(self, port: int, value: int) -> None:
        self.registers[port - BASE] = value

    def outs(self, port: int, data: bytes | bytearray | memoryview) -> None:
        self.accesses += 1
        assert port == BASE and self.fifo + len(data) <= 16, "the FIFO has overrun"
        self.sent += data
        self.fifo = len(data) if self.stalled else 0


def test_everything_that_arrived_is_read_in_order() -> None:
    chip = Chip()
    uart = Uart(chip, BASE)
    assert not uart.heard
    chip.to_host = bytes(range(200))
    assert uart.heard
    assert uart.read(512) == bytes(range(200))
    assert uart.read(512) == b""


def test_reading_is_bounded() -> None:
    chip = Chip()
    uart = Uart(chip, BASE)
    chip.to_host = bytes(1000)
    assert 100 <= len(uart.read(100)) < 100 + 16


def test_a_transmitter_that_is_not_ready_is_left_alone() -> None:
    chip = Chip()
    uart = Uart(chip, BASE)
    chip.stalled = True
    assert uart.write(b"a" * 100) == 16
    before = chip.accesses
    assert uart.write(b"a" * 84) == 0
    assert chip.accesses == before + 1
    chip.stalled, chip.fifo = False, 0
    assert uart.write(memoryview(b"b" * 84)) == 84
    assert bytes(chip.sent) == b"a" * 16 + b"b" * 84


def test_a_missing_port_is_noticed() -> None:
    chip = Chip()
    chip.inb = lambda port: 0xFF  # type: ignore[method-assign]
    assert not Uart(chip, BASE).present
    assert Uart(Chip(), BASE).present
