"""Many commands on one operator's line: rewrites channel numbers between them. docs/operator-line.md.

No I/O. The keeper feeds what comes from the line and from each command's connection, and sends what
`take_line` and `take` return. Credit passes through, so what waits for a command that does not read
is bounded by the credit that the command itself has given; the keeper drops who gives too much.
Channels to the service `keeper` do not reach the line: they are `requests`, each to be answered once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xoar.messages.frames import (
    CLOSE,
    CREDIT,
    DATA,
    HELLO,
    OPEN,
    OPENED,
    Frame,
    FrameDecoder,
    encode_frame,
)
from xoar.messages.line import clean, decode_hello, encode_hello

KEEPER = "keeper"
"""The service that the keeper answers itself."""
LINE_LIMIT = 64 * 1024
"""Bytes waiting for the line above which no command should be read."""
CLIENT_LIMIT = 4 * 1024 * 1024
"""Bytes waiting for one command above which it is dropped: 64 channels with ample credit need less."""


@dataclass
class _Client:
    decoder: FrameDecoder = field(default_factory=FrameDecoder)
    output: bytearray = field(default_factory=bytearray)
    channels: dict[int, int] = field(default_factory=dict)  # its number -> number on the line
    waiting: int = 0  # nonce of a HELLO that waits for the line


@dataclass(frozen=True)
class Request:
    """What a command asks the keeper for: the words of its OPEN after the service's name."""

    client: int
    channel: int
    words: list[str]


class Mux:
    """The commands' channels on the line. Clients are known by the numbers that `attach` returns.

    Nothing is written to the line before the Console shard has sent its first frame: earlier bytes
    would be lost. `ready` says whether Console has answered this side's HELLO.
    """

    def __init__(self) -> None:
        self.ready = False
        self.heard = False
        self.requests: list[Request] = []
        self._decoder = FrameDecoder()
        self._line = bytearray()
        self._clients: dict[int, _Client] = {}
        self._owners: dict[int, tuple[int, int]] = {}  # number on the line -> client, its number
        self._nonce = 0
        self._last_channel = 0
        self._last_client = 0

    @property
    def congested(self) -> bool:
        """Whether commands should not be read now."""
        return len(self._line) >= LINE_LIMIT

    def greet(self, nonce: int) -> None:
        """Begin a session on the line (u32 nonce, not 0, new each time). Repeat it if none answers."""
        self._nonce = nonce
        self._line += encode_hello(nonce)

    def attach(self) -> int:
        """A new command has connected."""
        self._last_client += 1
        self._clients[self._last_client] = _Client()
        return self._last_client

    def detach(self, client: int) -> None:
        """A command is gone: its channels are closed."""
        gone = self._clients.pop(client, None)
        if gone is not None:
            self._close_all(gone)

    def take_line(self) -> bytes:
        """What is to be sent on the line now."""
        data = bytes(self._line)
        self._line.clear()
        return data

    def take(self, client: int) -> bytes:
        """What is to be sent to that command now."""
        output = self._clients[client].output
        data = bytes(output)
        output.clear()
        return data

    def answer(self, request: Request, data: bytes, reason: str) -> None:
        """Answer a request: `data` (short: the credit of any command has room for it), or why it failed."""
        client = self._clients.get(request.client)
        if client is not None:
            if not reason:
                client.output += encode_frame(OPENED, request.channel, bytes(4))
                client.output += encode_frame(DATA, request.channel, bytes(4) + data)
            client.output += encode_frame(CLOSE, request.channel, clean(reason, 200).encode())

    def from_line(self, untrusted_data: bytes) -> None:
        """Bytes came from the Console shard."""
        for frame in self._decoder.feed(untrusted_data):
            self.heard = True
            if frame.kind == HELLO:
                self._greeted(frame.payload)
            elif frame.channel in self._owners:
                self._to_client(frame)
            elif frame.kind in (DATA, OPENED):
                self._line += encode_frame(CLOSE, frame.channel, b"no such channel")

    def from_client(self, client: int, untrusted_data: bytes) -> None:
        """Bytes came from a command."""
        owner = self._clients[client]
        for frame in owner.decoder.feed(untrusted_data):
            if frame.kind == HELLO:
                self._hello(owner, frame.payload)
            elif frame.kind == OPEN:
                self._open(client, owner, frame)
            elif frame.channel in owner.channels:
                if frame.kind in (DATA, CREDIT, CLOSE):
                    self._line += encode_frame(frame.kind, owner.channels[frame.channel], frame.payload)
                if frame.kind == CLOSE:
                    del self._owners[owner.channels.pop(frame.channel)]
            elif frame.kind == DATA:
                owner.output += encode_frame(CLOSE, frame.channel, b"no such channel")

    def _greeted(self, untrusted_payload: bytes) -> None:
        hello = decode_hello(untrusted_payload)
        if hello is None:
            return
        version, nonce = hello
        if nonce == 0 and self.ready:
            # Console started anew: so do all that use it; a HELLO with nonce 0 tells them
            for client in self._clients.values():
                client.channels.clear()
                client.output += encode_frame(HELLO, 0, untrusted_payload)
            self._owners.clear()
        elif nonce == self._nonce != 0:
            self._nonce = 0
            self.ready = True
            self._version = version
            for client in self._clients.values():
                if client.waiting:
                    self._answer(client)

    def _hello(self, client: _Client, untrusted_payload: bytes) -> None:
        hello = decode_hello(untrusted_payload)
        if hello is None or hello[1] == 0:
            return
        self._close_all(client)
        client.waiting = hello[1]
        if self.ready:
            self._answer(client)

    def _answer(self, client: _Client) -> None:
        # Console's version, not ours: it is the one that the command talks to
        hello = Frame(HELLO, 0, bytes([self._version]) + client.waiting.to_bytes(4, "little"))
        client.output += encode_frame(*hello)
        client.waiting = 0

    def _open(self, client: int, owner: _Client, frame: Frame) -> None:
        if not self.ready or frame.channel == 0 or frame.channel in owner.channels:
            return
        service, *words = frame.payload[4:].decode("ascii", errors="replace").split()[:8] or [""]
        if service == KEEPER:
            self.requests.append(Request(client, frame.channel, words))
            return
        if len(self._owners) >= 0xFFFF:
            owner.output += encode_frame(CLOSE, frame.channel, b"too many channels are open")
            return
        number = self._last_channel % 0xFFFF + 1
        while number in self._owners:
            number = number % 0xFFFF + 1
        self._last_channel = number
        self._owners[number] = (client, frame.channel)
        owner.channels[frame.channel] = number
        self._line += encode_frame(OPEN, number, frame.payload)

    def _to_client(self, frame: Frame) -> None:
        client, channel = self._owners[frame.channel]
        owner = self._clients[client]
        if frame.kind in (DATA, CREDIT, CLOSE, OPENED):
            owner.output += encode_frame(frame.kind, channel, frame.payload)
        if frame.kind == CLOSE:
            del self._owners[frame.channel]
            del owner.channels[channel]

    def _close_all(self, client: _Client) -> None:
        for number in client.channels.values():
            del self._owners[number]
            self._line += encode_frame(CLOSE, number)
        client.channels.clear()
