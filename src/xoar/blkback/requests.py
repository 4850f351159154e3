"""Requests of the Toolstack: one line of words each (docs/devices.md, Requests to BlkBack)."""

import errno
from typing import NamedTuple

from xoar.blkback import names
from xoar.blkback.errors import RequestError

SIZE_MAX = 1 << 36
"""KiB, 64 TiB: the largest volume that can be asked for."""
DATA_START = 1 << 20
"""Bytes: where data on the exchange disk starts."""
ALIGNMENT = 4096
"""Bytes: offsets on the exchange disk are multiples of it, since it is read without the page cache."""

_OFFSET_MAX = 1 << 60


class Request(NamedTuple):
    """A request; what its action has no use for is 0 or empty. Sizes in KiB, offset and length in bytes."""

    action: str
    name: str
    source: str = ""
    size: int = 0
    format: str = ""
    offset: int = 0
    length: int = 0
    sha256: str = ""


_WORDS = {
    "create": ("name", "size"),
    "clone": ("source", "name"),
    "grow": ("name", "size"),
    "delete": ("name",),
    "import": ("name", "format", "offset", "length", "size", "sha256"),
    "export": ("name", "offset", "length"),
}


def parse(untrusted_line: str) -> Request:
    """The request of a line. Raises RequestError(EINVAL)."""
    action, *words = untrusted_line.split(" ")
    fields = _WORDS.get(action)
    if fields is None:
        raise _invalid(f"{action[:20]!a} is no request: it is one of {', '.join(_WORDS)}")
    if len(words) != len(fields):
        raise _invalid(f"{action} needs {len(fields)} words ({' '.join(fields)}), not {len(words)}")
    try:
        values = {field: _READERS[field](word) for field, word in zip(fields, words, strict=True)}
    except ValueError as error:
        raise _invalid(f"{action}: {error}") from error
    return Request(action=action, **values)  # type: ignore[arg-type]


def _invalid(text: str) -> RequestError:
    return RequestError(errno.EINVAL, text)


def _number(word: str, low: int, high: int, what: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 20 and low <= int(word) <= high):
        raise ValueError(f"{word[:24]!a} is no {what}: a decimal number from {low} to {high}")
    return int(word)


def _size(word: str) -> int:
    return _number(word, 1, SIZE_MAX, "size in KiB")


def _offset(word: str) -> int:
    value = _number(word, DATA_START, _OFFSET_MAX, "offset in bytes")
    if value % ALIGNMENT:
        raise ValueError(f"offset {value} is no multiple of {ALIGNMENT}")
    return value


def _length(word: str) -> int:
    return _number(word, 1, _OFFSET_MAX, "length in bytes")


def _format(word: str) -> str:
    if word not in ("raw", "qcow2"):
        raise ValueError(f"{word[:20]!a} is no format: raw or qcow2")
    return word


def _sha256(word: str) -> str:
    if len(word) != 64 or word.strip("0123456789abcdef"):
        raise ValueError("a SHA-256 has 64 digits 0-9 a-f")
    return word


_READERS = {
    "name": names.check,
    "source": names.check,
    "size": _size,
    "format": _format,
    "offset": _offset,
    "length": _length,
    "sha256": _sha256,
}
