"""What the agents of driver domains say in XenStore (docs/devices.md), parsed.

A driver domain is not trusted with more than its own guests' devices: what it says is bounded and made
printable here, and what cannot be understood counts as not said.
"""

from xoar.messages.errors import EIO, MessageError
from xoar.messages.records import NAME, POOL, VOLUME
from xoar.toolstack import ipv4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_VALUE = 1024
_MAX_KIB = (1 << 63) - 1
_VOLUME_STATES = ("ok", "importing", "bad")


def text(untrusted_value: "bytes | None", limit: int) -> str:
    """At most `limit` characters of printable ASCII; others become "?"."""
    data = (untrusted_value or b"")[:limit]
    return "".join([chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data])


def is_name(untrusted_text: str) -> bool:
    """Whether this is a name as messages have them."""
    try:
        NAME.encode(untrusted_text)
    except MessageError:
        return False
    return True


def number(untrusted_value: "bytes | None", largest: int) -> "int | None":
    """A decimal number from 0 to `largest`, or None."""
    return ipv4.decimal(text(untrusted_value, 24), largest)


def address(untrusted_value: "bytes | None") -> str:
    """An IPv4 address, or ""."""
    value = text(untrusted_value, 16)
    return "" if ipv4.address(value) is None else value


def volume(driver: str, untrusted_name: str, untrusted_value: "bytes | None") -> "Any | None":
    """A VOLUME, or None."""
    words = _words(text(untrusted_value, _MAX_VALUE))
    size = ipv4.decimal(words.get("size_kib", ""), _MAX_KIB)
    used = ipv4.decimal(words.get("used_kib", ""), _MAX_KIB)
    origin, users = _or_nothing(words.get("origin", "-")), _or_nothing(words.get("users", "-"))
    state = words.get("state", "")
    if not is_name(untrusted_name) or size is None or used is None or state not in _VOLUME_STATES:
        return None
    if (origin and not is_name(origin)) or users.strip("0123456789,"):
        return None
    return VOLUME.value(untrusted_name, driver, size, used, origin, users[:64], state)


def pool(driver: str, untrusted_value: "bytes | None") -> "Any | None":
    """A POOL, or None."""
    words = _words(text(untrusted_value, _MAX_VALUE))
    size = ipv4.decimal(words.get("size_kib", ""), _MAX_KIB)
    used = ipv4.decimal(words.get("used_kib", ""), _MAX_KIB)
    return None if size is None or used is None else POOL.value(driver, size, used)


class Reply:
    """What became of a request: `verb` is "ok", "error" or "progress"."""

    def __init__(self, verb: str, errno: int = 0, text: str = "", percent: int = 0) -> None:
        self.verb = verb
        self.errno = errno
        self.text = text
        self.percent = percent
        self.length = 0
        self.sha256 = bytes(32)


def reply(untrusted_value: "bytes | None") -> "Reply | None":
    """A reply, or None if none has come yet; one that cannot be understood is an error."""
    if not untrusted_value:
        return None
    line = text(untrusted_value, _MAX_VALUE)
    verb, _, rest = line.partition(" ")
    if verb == "ok":
        return _success(_words(rest))
    if verb == "progress":
        percent = ipv4.decimal(rest.strip(), 100)
        return None if percent is None else Reply(verb, percent=percent)
    if verb == "error":
        errno, _, what = rest.partition(" ")
        known = ipv4.decimal(errno, 4095)
        return Reply(verb, known or EIO, (what if known else rest)[:256])
    return Reply("error", EIO, "the reply cannot be understood: %s" % line[:200])


def _success(words: "dict[str, str]") -> Reply:
    found = Reply("ok")
    length = ipv4.decimal(words.get("length", "0"), _MAX_KIB)
    digest = words.get("sha256", "00" * 32)
    if length is None or len(digest) != 64 or digest.strip("0123456789abcdef"):
        return Reply("error", EIO, "the reply's length or sha256 cannot be understood")
    found.length = length
    found.sha256 = bytes([int(digest[at : at + 2], 16) for at in range(0, 64, 2)])
    return found


def _words(line: str) -> "dict[str, str]":
    words = {}
    for word in line.split():
        key, _, value = word.partition("=")
        words[key] = value
    return words


def _or_nothing(word: str) -> str:
    return "" if word == "-" else word
