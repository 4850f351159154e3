"""Writes archives in the "newc" cpio format that Linux takes as an initramfs.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux. Owner is root and every
time is zero, so the same entries always give the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A member: `mode` holds type and permissions as in stat(2); `data` a file's bytes or a link's target;
    `device` the (major, minor) of a device node."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive with these entries in order; the folders above an entry are added where missing."""
    out = bytearray()
    known: set[str] = set()
    number = 0
    for entry in entries:
        path = entry.path.strip("/")
        parts = path.split("/")
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        for member in [*(directory(parent) for parent in parents if parent not in known), entry]:
            number += 1
            _append(out, member, number)
        known.update(parents, [path])
    _append(out, Entry("TRAILER!!!", 0), 0)
    return bytes(out) + bytes(-len(out) % 512)


def _append(out: bytearray, entry: Entry, number: int) -> None:
    name = entry.path.strip("/").encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number,
        entry.mode,
        0,
        0,
        links,
        0,
        len(entry.data),
        0,
        0,
        *entry.device,
        len(name),
        0,
    )
    out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)
