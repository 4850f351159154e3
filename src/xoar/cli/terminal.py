"""A guest's console on the operator's terminal: raw mode, so that every key goes to the guest."""

from __future__ import annotations

import os
import selectors
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xoar.cli.plain import Plain

if TYPE_CHECKING:
    from xoar.host.client import Client, Stream

ESCAPE = b"\x1d"
"""Ctrl-], as in telnet and virsh: the key that leaves the console."""

_STEP = 0.05  # seconds to collect what belongs together


def interact(client: Client, console: Stream, history: bytes) -> None:
    """Shows the end of `history`, then connects terminal and guest until the escape key or the guest's end.

    The terminal is set back whatever happens. Raises HostError when the connection is lost.
    """
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    with _raw(keyboard), selectors.DefaultSelector() as selector:
        _write(screen, _recent(history, shutil.get_terminal_size().lines - 2))
        selector.register(keyboard, selectors.EVENT_READ)
        selector.register(client, selectors.EVENT_READ)
        while not console.ended:
            _write(screen, console.read(0))
            ready = {key.fileobj for key, _ in selector.select(5)}
            if keyboard in ready:
                keys = os.read(keyboard, 1024)
                before, escape, _ = keys.partition(ESCAPE)
                console.write(before)
                if escape or not keys:
                    return
            elif not ready:
                console.read(_STEP)  # silence: lets the client repeat its credit


def _recent(history: bytes, lines: int) -> bytes:
    # plain: the terminal would answer old queries again, and the guest would take that for typed text
    recent = Plain().feed(history).split(b"\n")[-max(lines, 1) :]
    return b"\r\n".join(recent)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
