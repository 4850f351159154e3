"""Frames of the operator's line: bytes on a serial port to frames and back. docs/operator-line.md.

A frame is 0x7e, a stuffed body, 0x7e. The body is `u8 kind, u16 channel, payload, u32 crc32` (little endian;
the checksum covers all that precedes it). In a stuffed body 0x7e is sent as 0x7d 0x5e and 0x7d as 0x7d 0x5d,
so 0x7e is always a frame's edge, and a reader that lost its place finds it again at the next edge.
"""

import binascii
import struct
from collections import namedtuple

MAX_PAYLOAD = 1024
HELLO = 1
OPEN = 2
OPENED = 3
DATA = 4
CREDIT = 5
CLOSE = 6

_EDGE = b"\x7e"
_OVERHEAD = 7
_MAX_STUFFED = 2 * (MAX_PAYLOAD + _OVERHEAD)

Frame = namedtuple("Frame", ("kind", "channel", "payload"))


def encode_frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame. `payload` must not be longer than MAX_PAYLOAD (ValueError)."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError("a frame carries at most %d bytes, not %d" % (MAX_PAYLOAD, len(payload)))
    body = struct.pack("<BH", kind, channel) + payload
    body += struct.pack("<I", binascii.crc32(body))
    return _EDGE + body.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e") + _EDGE


class FrameDecoder:
    """Finds the frames in a stream of bytes that may be damaged; `dropped` counts what was no frame."""

    def __init__(self) -> None:
        self.dropped = 0
        self._tail = b""
        self._skipping = False

    @property
    def part(self) -> bytes:
        """What has arrived of a frame that is not whole yet; feeding it to another decoder is the same as
        feeding it to this one, unless it is longer than any frame."""
        return self._tail

    def feed(self, untrusted_data: bytes) -> "list[Frame]":
        """The frames that these bytes complete. Never raises."""
        pieces = (self._tail + untrusted_data).split(_EDGE)
        self._tail = pieces.pop()
        frames = []
        for piece in pieces:
            if self._skipping:
                self._skipping = False
            elif piece:
                frame = self._decode(piece)
                if frame is None:
                    self.dropped += 1
                else:
                    frames.append(frame)
        if len(self._tail) > _MAX_STUFFED:
            self._tail = b""
            if not self._skipping:
                self._skipping = True
                self.dropped += 1
        return frames

    def _decode(self, piece: bytes) -> "Frame | None":
        if len(piece) > _MAX_STUFFED:
            return None
        body = piece.replace(b"\x7d\x5e", b"\x7e").replace(b"\x7d\x5d", b"\x7d")
        end = len(body) - 4
        if not 3 <= end <= 3 + MAX_PAYLOAD:
            return None
        (checksum,) = struct.unpack_from("<I", body, end)
        if binascii.crc32(body[:end]) != checksum:
            return None
        kind, channel = struct.unpack_from("<BH", body)
        if not HELLO <= kind <= CLOSE:
            return None
        return Frame(kind, channel, body[3:end])
