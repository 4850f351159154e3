"""Messages that only who has a tenant's key can have made: an operator's stream to a tenant's Toolstack.

The stream passes through programs that need not be trusted for it: the keeper, the serial line, Console. Its
first message is `greet` with a random number, the answer `challenge` with another one; both make the
stream's own key. From then on each message is followed by TAG bytes: HMAC-SHA-256 (RFC 2104) of that key over
the direction, the message's place in the stream, and its frame. So none can be made up, changed, left out,
repeated or taken from another stream. What is said is not hidden.
"""

import hashlib
import struct

from xoar.messages.codec import TAG

KEY_SIZE = 32
NONCE_SIZE = 16

TO_TOOLSTACK, TO_OPERATOR = b"Q", b"A"

_BLOCK = 64


def hmac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256; the key has at most 64 bytes."""
    padded = key + bytes(_BLOCK - len(key))
    inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in padded]) + data).digest()
    return hashlib.sha256(bytes([byte ^ 0x5C for byte in padded]) + inner).digest()


def stream_key(key: bytes, nonce: bytes, challenge: bytes) -> bytes:
    """The key of one stream."""
    return hmac(key, b"xoar stream 1" + nonce + challenge)


class Seal:
    """One direction of a stream: TO_TOOLSTACK or TO_OPERATOR."""

    def __init__(self, key: bytes, direction: bytes) -> None:
        self._key = key
        self._direction = direction
        self._count = 0

    def tag(self, frame: bytes) -> bytes:
        """What follows the next message."""
        self._count += 1
        return hmac(self._key, self._direction + struct.pack("<Q", self._count) + frame)[:TAG]

    def fits(self, frame: bytes, untrusted_tag: bytes) -> bool:
        """Whether the next message has come as it was sent. After one that has not, the stream is lost."""
        difference = 0
        # takes the same time wherever the first difference is
        for wanted, came in zip(self.tag(frame), untrusted_tag):
            difference |= wanted ^ came
        return not difference
