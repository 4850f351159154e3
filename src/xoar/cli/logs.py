"""Logs: of a guest what its console showed, of a shard its lines in Xen's log, and Xen's log itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from xoar.host.state import Host

XEN = "xen"
"""The name under which Xen's whole log is shown."""

_POLL = 0.2  # seconds between two looks at a file
# Xen puts this before each line of a domain, but of domain 0's; its own begin with (XEN)
_PREFIX = re.compile(rb"\((?:d(\d+)|XEN)\) ?")


def of_domain(domid: int) -> Callable[[bytes], bytes | None]:
    """Picks a domain's lines out of Xen's log and takes the prefix off; None for the lines of others."""

    def pick(line: bytes) -> bytes | None:
        match = _PREFIX.match(line)
        if match is None:
            return line if domid == 0 else None
        owner = match[1]
        return line[match.end() :] if owner is not None and int(owner) == domid else None

    return pick


def everything(line: bytes) -> bytes | None:
    """Picks all lines."""
    return line


def lines(host: Host, follow: bool) -> Iterator[bytes]:
    """The lines of a host's Xen log, without line ends; with `follow` until the host ends."""
    rest = b""
    for data in _file(host.xen_log, host, follow):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")
    if rest:
        yield rest.rstrip(b"\r")


def _file(path: Path, host: Host, follow: bool) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while True:
            alive = follow and host.alive() is not None
            if data := file.read(1 << 16):
                yield data
            elif alive:
                time.sleep(_POLL)
            else:
                return
