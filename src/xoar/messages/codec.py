"""Messages to frames and back: `u32 kind, u32 id, u32 length`, then at most MAX_PAYLOAD bytes.

No I/O: bytes in, messages out. Whatever the bytes are, the only exception is MessageError.
"""

import struct
from collections import namedtuple

from xoar.messages.errors import EINVAL, ENOSYS, EPERM, EPROTO, MessageError
from xoar.messages.schema import BY_NAME, BY_NUMBER, MAX_PAYLOAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.seal import Seal

HEADER_SIZE = 12
TAG = 16
"""Bytes that follow each message of a sealed stream (seal.py)."""
MAX_FRAME = HEADER_SIZE + MAX_PAYLOAD

Message = namedtuple("Message", ("kind", "id", "fields"))
"""kind: the kind's name; id: the request's number, 0 if unsolicited; fields: a namedtuple of the kind."""


def encode(kind_name: str, id: int, **fields: "Any") -> bytes:
    """The frame of one message. Raises MessageError for an unknown kind, field or value."""
    kind = BY_NAME.get(kind_name)
    if kind is None:
        raise MessageError("there is no message %s" % kind_name)
    table = kind.record.fields
    values = []
    for name, _ in table:
        if name not in fields:
            raise MessageError("%s: %s is missing" % (kind_name, name))
        values.append(fields[name])
    if len(fields) != len(table):
        known = [name for name, _ in table]
        unknown = [name for name in fields if name not in known]
        raise MessageError("%s: has no field %s" % (kind_name, unknown[0]))
    try:
        payload = kind.record.encode(values)
    except MessageError as error:
        raise MessageError("%s: %s" % (kind_name, error))
    return struct.pack("<III", kind.number, id, len(payload)) + payload


def encode_error(id: int, errno: int, text: str) -> bytes:
    """An `error` frame for any text: what is not printable becomes "?", what is too long is cut."""
    clean = "".join([letter if " " <= letter <= "~" else "?" for letter in text[:256]])
    return encode("error", id, errno=errno, text=clean)


def decode(frame: bytes) -> Message:
    """The message that is this frame. Raises MessageError if it is no whole one, or more than one."""
    decoder = Decoder()
    decoder.feed(frame)
    message = decoder.next()
    if message is None or decoder.rest():
        raise MessageError("%d bytes are not one frame" % len(frame))
    return message


class Decoder:
    """Finds messages in a stream of bytes that arrives in any pieces. From when `seal` is set, a message
    counts only with the tag that follows it."""

    def __init__(self) -> None:
        self.seal: "Seal | None" = None
        self._buffer = b""

    def feed(self, untrusted_data: bytes) -> None:
        """Takes bytes that arrived. Call `next` until it returns None after each call."""
        self._buffer += untrusted_data

    def rest(self) -> bytes:
        """Takes what has arrived and is no whole message yet: the stream becomes another one."""
        rest, self._buffer = self._buffer, b""
        return rest

    @property
    def part(self) -> bytes:
        """What has arrived of a message that is not whole yet."""
        return self._buffer

    @property
    def between(self) -> bool:
        """Whether no part of a message waits for the rest of it."""
        return not self._buffer

    def next(self) -> "Message | None":
        """The next whole message, or None until more bytes arrive.

        Raises MessageError for a frame that is no message; it has been skipped, and the next call goes on
        behind it. If the error is `fatal` the frame's end is unknown and the stream is lost.
        """
        if len(self._buffer) < HEADER_SIZE:
            return None
        number, id, size = struct.unpack_from("<III", self._buffer)
        if size > MAX_PAYLOAD:
            text = "a frame claims %d bytes, at most %d are allowed" % (size, MAX_PAYLOAD)
            raise MessageError(text, id, EPROTO, fatal=True)
        end = HEADER_SIZE + size
        after = end if self.seal is None else end + TAG
        if len(self._buffer) < after:
            return None
        if self.seal is not None and not self.seal.fits(self._buffer[:end], self._buffer[end:after]):
            raise MessageError("the message is not from who has the key", id, EPERM, fatal=True)
        payload = self._buffer[HEADER_SIZE:end]
        self._buffer = self._buffer[after:]
        kind = BY_NUMBER.get(number)
        if kind is None:
            raise MessageError("message kind %d does not exist" % number, id, ENOSYS)
        try:
            fields, used = kind.record.decode(payload, 0)
        except MessageError as error:
            raise MessageError("%s: %s" % (kind.name, error), id, EINVAL)
        if used != size:
            raise MessageError("%s: %d bytes too many" % (kind.name, size - used), id, EINVAL)
        return Message(kind.name, id, fields)
