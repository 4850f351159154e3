"""Both ends of the operator's line: channels with credit over frames. docs/operator-line.md has the rules.

No I/O: `feed` takes received bytes and returns events, `take` gives bytes to send. Nothing that arrives
raises an exception, and what is kept for each channel is a few numbers: who has no credit cannot send, so
a reader that stops stalls only its own channel.

Offsets in DATA and limits in CREDIT count the bytes of a channel's direction from its opening, modulo 2**32.
So a repeated frame changes nothing, a later CREDIT makes up for a lost one, and lost DATA is noticed: its
channel is closed, the others go on.
"""

import struct
from collections import namedtuple

from xoar.messages.frames import (
    CLOSE,
    CREDIT,
    DATA,
    HELLO,
    MAX_PAYLOAD,
    OPEN,
    OPENED,
    FrameDecoder,
    encode_frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.frames import Frame

VERSION = 1
WINDOW = 4096
"""Bytes that may be on their way in one direction of a channel; at least 1024."""
NOT_PERMITTED = "that is an optional right, and not permitted now"
"""How the reason begins that a service is refused with for want of an optional right."""

_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_OUTPUT_LIMIT = 8192
_MAX_CHANNELS = 64
_MAX_DATA = MAX_PAYLOAD - 4
_MAX_REASON = 200

Event = namedtuple("Event", ("kind", "channel", "data"))
"""kind: what happened; data: bytes of "data", text otherwise.

"hello" (a session begins, every channel is gone; not empty: why this end cannot talk to the other), "open"
(server: "service argument"), "opened", "data", "credit" (more may be written), "closed" (the reason, empty if
there was nothing wrong).
"""


class LineError(Exception):
    """The owner of this end used it wrongly: an unknown channel, an open before the greeting."""


def clean(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, those that are no printable ASCII replaced by "?"."""
    return "".join([letter if " " <= letter <= "~" else "?" for letter in text[:limit]])


def _text(untrusted_data: bytes) -> str:
    return "".join([chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in untrusted_data[:_MAX_REASON]])


def encode_hello(nonce: int) -> bytes:
    """The frame that starts a session; the answer has the same nonce (u32, not 0)."""
    return encode_frame(HELLO, 0, struct.pack("<BI", VERSION, nonce))


def decode_hello(payload: bytes) -> "tuple[int, int] | None":
    """(version, nonce) of a HELLO frame's payload; None if it is none."""
    if len(payload) != 5:
        return None
    version, nonce = struct.unpack("<BI", payload)
    return version, nonce


class _Stream:
    """Where the two directions of a channel are."""

    STATE = ("accepted", "sent", "send_limit", "received", "receive_limit", "announced")

    def __init__(self) -> None:
        self.accepted = 0
        self.sent = 0
        self.send_limit = 0
        self.received = 0
        self.receive_limit = 0
        self.announced = 0

    def state(self) -> "dict[str, int]":
        """All of it, by name."""
        return {name: getattr(self, name) for name in self.STATE}


class _End:
    """What both ends share: data, credit, closing."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._decoder = FrameDecoder()
        self._output = b""
        self._streams: "dict[int, _Stream]" = {}

    @property
    def dropped(self) -> int:
        """Frames that were damaged or unknown."""
        return self._decoder.dropped

    @property
    def pending(self) -> int:
        """Bytes that wait to be taken."""
        return len(self._output)

    @property
    def congested(self) -> bool:
        """Whether so much waits to be sent that no more input should be fed: bounds what answers need."""
        return len(self._output) >= 2 * _OUTPUT_LIMIT

    @property
    def channels(self) -> "list[int]":
        """The open channels."""
        return list(self._streams)

    def take(self, limit: int) -> bytes:
        """At most `limit` bytes to put on the line now."""
        data = self.waiting(limit)
        self.sent(len(data))
        return data

    def waiting(self, limit: int) -> bytes:
        """At most `limit` bytes to put on the line now, which stay here until `sent`."""
        return self._output[:limit]

    def sent(self, count: int) -> None:
        """So many bytes are on the line."""
        self._output = self._output[count:]

    def feed(self, untrusted_data: bytes) -> "list[Event]":
        """What the received bytes mean."""
        events: "list[Event]" = []
        for frame in self._decoder.feed(untrusted_data):
            self._frame(frame, events)
        return events

    def writable(self, channel: int) -> int:
        """Bytes that `write` would take now; 0 for a channel that is not open."""
        stream = self._streams.get(channel)
        if stream is None or not stream.accepted:
            return 0
        room = max(_OUTPUT_LIMIT - len(self._output), 0)
        return min((stream.send_limit - stream.sent) & _MASK, room)

    def write(self, channel: int, data: bytes) -> int:
        """Sends as much of `data` as credit and room allow; returns how much that was."""
        count = min(self.writable(channel), len(data))
        for start in range(0, count, _MAX_DATA):
            piece = bytes(data[start : min(start + _MAX_DATA, count)])
            stream = self._streams[channel]
            self._send(DATA, channel, struct.pack("<I", stream.sent) + piece)
            stream.sent = (stream.sent + len(piece)) & _MASK
        return count

    def consumed(self, channel: int, count: int) -> None:
        """Tells the other end that `count` bytes of "data" need no room here any more."""
        stream = self._streams.get(channel)
        if stream is None:
            return
        stream.receive_limit = (stream.receive_limit + count) & _MASK
        # many small pieces make one CREDIT; what is held back is far below the window, so nobody waits for it
        if (stream.receive_limit - stream.announced) & _MASK >= self._window // 4:
            self._announce(channel, stream)

    def close(self, channel: int, reason: str = "") -> None:
        """Ends a channel for both ends; nothing happens if it is not open."""
        if self._streams.pop(channel, None) is not None:
            self._send(CLOSE, channel, clean(reason, _MAX_REASON).encode())

    def _announce(self, channel: int, stream: _Stream) -> None:
        stream.announced = stream.receive_limit
        self._send(CREDIT, channel, struct.pack("<I", stream.receive_limit))

    def _send(self, kind: int, channel: int, payload: bytes) -> None:
        self._output += encode_frame(kind, channel, payload)

    def _fail(self, channel: int, reason: str, events: "list[Event]") -> None:
        self.close(channel, reason)
        events.append(Event("closed", channel, reason))

    def _frame(self, frame: "Frame", events: "list[Event]") -> None:
        channel = frame.channel
        if frame.kind == CLOSE:
            if self._streams.pop(channel, None) is not None:
                events.append(Event("closed", channel, _text(frame.payload)))
            return
        stream = self._streams.get(channel)
        if stream is None:
            # the other end believes in a channel that is gone; a CLOSE is never answered, so this ends
            if frame.kind in (DATA, OPENED):
                self._send(CLOSE, channel, b"no such channel")
        elif len(frame.payload) < 4:
            self._fail(channel, "a frame is cut short", events)
        elif frame.kind == DATA:
            self._data(channel, stream, frame.payload, events)
        elif frame.kind == CREDIT:
            self._credit(channel, stream, frame.payload, events)

    def _data(self, channel: int, stream: _Stream, payload: bytes, events: "list[Event]") -> None:
        (offset,) = struct.unpack_from("<I", payload)
        data = payload[4:]
        if offset != stream.received:
            behind = (stream.received - offset) & _MASK
            if behind >= _HALF or behind < len(data):
                self._fail(channel, "bytes were lost on the line", events)
        elif len(data) > (stream.receive_limit - stream.received) & _MASK:
            self._fail(channel, "more bytes came than there was credit for", events)
        elif data:
            stream.received = (stream.received + len(data)) & _MASK
            events.append(Event("data", channel, data))

    def _credit(self, channel: int, stream: _Stream, payload: bytes, events: "list[Event]") -> None:
        (limit,) = struct.unpack_from("<I", payload)
        if 0 < (limit - stream.send_limit) & _MASK < _HALF:
            stream.send_limit = limit
            events.append(Event("credit", channel, ""))

    def _reset(self, events: "list[Event]", text: str) -> None:
        self._streams = {}
        events.append(Event("hello", 0, text))


class LineServer(_End):
    """Console's end. Each "open" event must be answered with `accept` or `close`."""

    def greet(self) -> None:
        """Says that this end has started anew, so that the other end drops channels of earlier days."""
        self._send(HELLO, 0, struct.pack("<BI", VERSION, 0))

    @property
    def halves(self) -> "tuple[bytes, bytes]":
        """What has come of a frame that is not whole yet, and what waits to be sent."""
        return self._decoder.part, self._output

    @halves.setter
    def halves(self, value: "tuple[bytes, bytes]") -> None:
        incoming, self._output = value
        self._decoder.feed(incoming)  # a whole frame that this one did not see is nobody's

    def remember(self) -> "list[tuple[str, dict[str, int]]]":
        """Messages (kind, fields), one of each channel, with which `recall` makes it anew."""
        return [
            ("remember_channel", dict(channel=number, **stream.state()))
            for number, stream in self._streams.items()
        ]

    def recall(self, fields: "Any") -> None:
        """Opens a channel that a former life had. ValueError: it can't be."""
        channel = fields.channel
        if not channel or channel in self._streams or len(self._streams) >= _MAX_CHANNELS:
            raise ValueError("channel %d is no new one" % channel)
        stream = self._streams[channel] = _Stream()
        for name in _Stream.STATE:
            setattr(stream, name, getattr(fields, name))

    def accept(self, channel: int) -> None:
        """Opens a channel that waits for it; nothing happens if the client has closed it meanwhile."""
        stream = self._streams.get(channel)
        if stream is None or stream.accepted:
            return
        stream.accepted = 1
        stream.receive_limit = stream.announced = self._window
        self._send(OPENED, channel, struct.pack("<I", self._window))

    def _frame(self, frame: "Frame", events: "list[Event]") -> None:
        if frame.kind == HELLO:
            hello = decode_hello(frame.payload)
            if hello is not None:
                self._output = b""
                self._reset(events, "")
                self._send(HELLO, 0, struct.pack("<BI", VERSION, hello[1]))
        elif frame.kind == OPEN:
            self._open(frame.channel, frame.payload, events)
        elif frame.kind != OPENED:
            super()._frame(frame, events)

    def _credit(self, channel: int, stream: _Stream, payload: bytes, events: "list[Event]") -> None:
        before = len(events)
        super()._credit(channel, stream, payload, events)
        if len(events) == before:
            # a client that repeats its credit may have missed ours
            self._announce(channel, stream)

    def _open(self, channel: int, payload: bytes, events: "list[Event]") -> None:
        if channel == 0 or channel in self._streams or len(payload) < 5:
            return
        if len(self._streams) >= _MAX_CHANNELS:
            self._send(CLOSE, channel, b"too many channels are open")
            return
        stream = _Stream()
        (stream.send_limit,) = struct.unpack_from("<I", payload)
        self._streams[channel] = stream
        events.append(Event("open", channel, _text(payload[4:])))


class LineClient(_End):
    """The operator's end. `hello`, wait for the event "hello", then `open`."""

    def __init__(self, window: int = WINDOW) -> None:
        super().__init__(window)
        self.ready = False
        self._nonce = 0
        self._last = 0

    def hello(self, nonce: int) -> None:
        """Starts a session (u32 nonce, not 0, new each time); say it again if no answer comes."""
        self._nonce = nonce
        self.ready = False
        self._output += encode_hello(nonce)

    def open(self, service: str, argument: str = "") -> int:
        """Asks for a channel; its number. Raises LineError before the greeting was answered."""
        if not self.ready:
            raise LineError("the other end of the line has not answered yet")
        if len(self._streams) >= _MAX_CHANNELS:
            raise LineError("at most %d channels can be open" % _MAX_CHANNELS)
        channel = self._last % 0xFFFF + 1
        while channel in self._streams:
            channel = channel % 0xFFFF + 1
        self._last = channel
        stream = _Stream()
        stream.receive_limit = stream.announced = self._window
        self._streams[channel] = stream
        request = ("%s %s" % (service, argument)).strip()
        self._send(OPEN, channel, struct.pack("<I", self._window) + clean(request, _MAX_REASON).encode())
        return channel

    def refresh(self) -> None:
        """Repeats the credit of all channels in case a CREDIT was lost: every few seconds of silence."""
        for channel, stream in self._streams.items():
            self._announce(channel, stream)

    def _frame(self, frame: "Frame", events: "list[Event]") -> None:
        if frame.kind == HELLO:
            hello = decode_hello(frame.payload)
            if hello is not None:
                self._greeted(hello[0], hello[1], events)
        elif frame.kind == OPENED:
            self._opened(frame, events)
        elif frame.kind != OPEN:
            super()._frame(frame, events)

    def _greeted(self, version: int, nonce: int, events: "list[Event]") -> None:
        # a late or repeated answer must not close what was opened since; 0: the other end started anew
        if nonce != self._nonce or (nonce == 0 and not self.ready):
            return
        self._nonce = 0
        self.ready = version == VERSION
        mismatch = "the other end speaks version %d of the line, this one %d" % (version, VERSION)
        self._reset(events, "" if self.ready else mismatch)

    def _opened(self, frame: "Frame", events: "list[Event]") -> None:
        stream = self._streams.get(frame.channel)
        if stream is None:
            super()._frame(frame, events)
        elif not stream.accepted and len(frame.payload) == 4:
            stream.accepted = 1
            (stream.send_limit,) = struct.unpack("<I", frame.payload)
            events.append(Event("opened", frame.channel, ""))
