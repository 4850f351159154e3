"""The operator's line as the serial port sees it, without the keeper in between."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import SHARDS

from xoar.host import config, up
from xoar.host.emulator import Emulator, Launch, link_modules
from xoar.host.progress import Reporter
from xoar.messages.codec import Decoder, encode
from xoar.messages.line import LineClient

SEED = 4711
TIMEOUT = 60.0


class Line:
    """The client's end of the serial line."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.client = LineClient(65536)
        self.greeted = False

    def until(self, found: Callable[[Any], bool]) -> Any:
        """Moves bytes until an event is what was waited for."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            assert time.monotonic() < deadline, "no answer on the line"
            while self.client.pending:
                self.socket.sendall(self.client.take(4096))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                self.client.refresh()
                continue
            for event in self.client.feed(data):
                if event.kind == "data":
                    self.client.consumed(event.channel, len(event.data))
                if found(event):
                    return event

    def hello(self, nonce: int) -> None:
        """Greets; Console answers the greeting of this very nonce."""
        self.client = LineClient(65536)
        self.client.hello(nonce)
        self.until(lambda event: event.kind == "hello")

    def ps(self) -> list[str]:
        """Names of the domains, from the Toolstack."""
        channel = self.client.open("toolstack", "")
        self.until(lambda event: event.kind == "opened" and event.channel == channel)
        frame = encode("ps", 1, start=0)
        while frame:
            frame = frame[self.client.write(channel, frame) :]
        decoder = Decoder()
        while True:
            event = self.until(lambda event: event.kind == "data" and event.channel == channel)
            decoder.feed(event.data)
            message = decoder.next()
            if message is not None:
                self.client.close(channel)
                return [entry.name for entry in message.fields.objects]


def check(line: Line) -> None:
    noise = random.Random(SEED)
    # Console's first sign of life; nothing may be sent before it
    assert line.socket.recv(1)
    line.socket.settimeout(0.2)
    line.hello(1)
    deadline = time.monotonic() + TIMEOUT
    while "bootstrapper" in (names := line.ps()):
        assert time.monotonic() < deadline, names
    assert names == SHARDS
    for nonce in range(2, 7):
        line.socket.sendall(noise.randbytes(3000))
        line.socket.sendall(b"\x7e" + noise.randbytes(300) + b"\x7e")
        line.hello(nonce)
        assert line.ps() == SHARDS
    # a client that asks for much and then reads nothing for a while
    for _ in range(200):
        channel = line.client.open("xen", "")
        line.client.close(channel)
    while line.client.pending:
        line.socket.sendall(line.client.take(4096))
    time.sleep(5)
    line.hello(99)
    assert line.ps() == SHARDS


def test_console_survives_garbage_and_silence_on_the_serial_port(
    state: None, logs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "xoar.toml"
    file.write_text('[images.tiny]\nbuiltin = "tiny"\n')
    launch = up.prepare(config.load(file), Reporter())
    link_modules(launch.machine, tmp_path)

    async def run(launch: Launch) -> None:
        async with Emulator(launch, tmp_path) as emulator:
            connection = await emulator.start()
            connection.setblocking(True)
            connection.settimeout(TIMEOUT)
            await asyncio.to_thread(check, Line(connection))

    try:
        asyncio.run(run(launch))
    finally:
        (logs / "raw-line-xen.log").write_bytes((tmp_path / "xen.log").read_bytes())
