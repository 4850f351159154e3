"""XenStore's messages: a header of four little-endian u32 (type, request id, transaction id, payload
length) and the payload (io/xs_wire.h, struct xsd_sockmsg; docs/misc/xenstore.txt).
"""

import struct
from collections import namedtuple

from xoar.abi import xen as abi
from xoar.xenstore.errors import ProtocolError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

CONTROL = abi.XS_CONTROL
DIRECTORY = abi.XS_DIRECTORY
READ = abi.XS_READ
GET_PERMS = abi.XS_GET_PERMS
WATCH = abi.XS_WATCH
UNWATCH = abi.XS_UNWATCH
TRANSACTION_START = abi.XS_TRANSACTION_START
TRANSACTION_END = abi.XS_TRANSACTION_END
INTRODUCE = abi.XS_INTRODUCE
RELEASE = abi.XS_RELEASE
GET_DOMAIN_PATH = abi.XS_GET_DOMAIN_PATH
WRITE = abi.XS_WRITE
MKDIR = abi.XS_MKDIR
RM = abi.XS_RM
SET_PERMS = abi.XS_SET_PERMS
WATCH_EVENT = abi.XS_WATCH_EVENT
ERROR = abi.XS_ERROR
IS_DOMAIN_INTRODUCED = abi.XS_IS_DOMAIN_INTRODUCED
RESUME = abi.XS_RESUME
SET_TARGET = abi.XS_SET_TARGET
RESET_WATCHES = abi.XS_RESET_WATCHES
DIRECTORY_PART = abi.XS_DIRECTORY_PART

HEADER_SIZE = abi.XSD_HEADER_SIZE
PAYLOAD_MAX = abi.XENSTORE_PAYLOAD_MAX
"""Bytes; a longer payload, in either direction, breaks the protocol (XENSTORE_PAYLOAD_MAX)."""
MESSAGE_MAX = HEADER_SIZE + PAYLOAD_MAX

OK = b"OK\0"

if TYPE_CHECKING:

    class Message(NamedTuple):
        """One message; `kind` is one of the numbers above if the sender plays fair."""

        kind: int
        request: int
        transaction: int
        payload: bytes

else:
    Message = namedtuple("Message", ("kind", "request", "transaction", "payload"))


def encode(kind: int, request: int, transaction: int, payload: bytes) -> bytes:
    """The bytes of one message; `payload` has at most PAYLOAD_MAX bytes."""
    return struct.pack("<IIII", kind, request, transaction, len(payload)) + payload


class Decoder:
    """Finds messages in a stream of bytes that arrives in any pieces."""

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0

    @property
    def waiting(self) -> int:
        """Bytes that are no part of a message that was returned."""
        return len(self._buffer) - self._start

    def feed(self, untrusted_data: bytes) -> None:
        """Takes bytes that arrived."""
        if self._start == len(self._buffer):
            self._buffer = untrusted_data
        else:
            self._buffer = self._buffer[self._start :] + untrusted_data
        self._start = 0

    def next(self) -> "Message | None":
        """The next complete message, or None. Raises ProtocolError if a payload is too long."""
        have = self.waiting - HEADER_SIZE
        if have < 0:
            return None
        kind, request, transaction, length = struct.unpack_from("<IIII", self._buffer, self._start)
        if length > PAYLOAD_MAX:
            raise ProtocolError("a payload of %d bytes; the limit is %d" % (length, PAYLOAD_MAX))
        if have < length:
            return None
        body = self._start + HEADER_SIZE
        self._start = body + length
        return Message(kind, request, transaction, self._buffer[body : body + length])


def words(*words: str) -> bytes:
    """A payload of strings with a nul at each one's end."""
    return b"".join([word.encode() + b"\0" for word in words])


def strings(untrusted_payload: bytes) -> "list[bytes]":
    """The nul-terminated strings of a payload; bytes after the last nul are ignored, as xenstored does."""
    return untrusted_payload.split(b"\0")[:-1]


def one_string(untrusted_payload: bytes) -> bytes:
    """The only string of a payload that has exactly one nul, at its end. Raises Refused(EINVAL)."""
    end = untrusted_payload.find(b"\0")
    if end < 0 or end != len(untrusted_payload) - 1:
        raise Refused("EINVAL")
    return untrusted_payload[:end]


def number(untrusted_text: bytes, limit: int = 0xFFFFFFFF) -> int:
    """A decimal number 0..limit. Raises Refused(EINVAL) for anything else."""
    if not untrusted_text.isdigit() or len(untrusted_text) > 10:
        raise Refused("EINVAL")
    value = int(untrusted_text)
    if value > limit:
        raise Refused("EINVAL")
    return value


_LETTERS = b"nrwb"  # by access bits (domains.READ_ACCESS, WRITE_ACCESS)


def parse_permission(untrusted_text: bytes) -> "tuple[int, int]":
    """`<letter><domid>` (letters n, r, w, b) to (domid, access bits). Raises Refused(EINVAL)."""
    access = _LETTERS.find(untrusted_text[:1]) if untrusted_text else -1
    if access < 0:
        raise Refused("EINVAL")
    return number(untrusted_text[1:], 0xFFFF), access


def format_permission(permission: "tuple[int, int]") -> bytes:
    """(domid, access bits) to `<letter><domid>`."""
    domid, access = permission
    return _LETTERS[access : access + 1] + b"%d" % domid
