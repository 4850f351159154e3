"""XenStore's Logic as a process: for tests of what happens when it is rolled back, and without Xen.

A process that has loaded everything and served nobody stands for the snapshot. It forks an incarnation
whenever it is told to, and kills the one before; what Logic has in its memory lives no longer than that.

    python -m xoar.host.logic_process CONTROL_FD
"""

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any

from xoar.messages.channel import Channel
from xoar.xen.ring import RingError
from xoar.xenstore.statelink import StateLink

_CHUNK = 65536


class LogicGone(Exception):
    """The process that starts Logic has ended."""


class SocketRing:
    """One direction of a stream socket that does not block, as a channel wants it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def readable(self) -> int:
        """0: what has arrived is read at once."""
        return 0

    def read(self, limit: int) -> bytes:
        """What has arrived. Raises RingError if the other end is gone."""
        try:
            data = self._end.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise RingError(str(error)) from error
        if not data:
            raise RingError("the other end is gone")
        return data

    def write(self, data: bytes) -> int:
        """Sends what the socket takes. Raises RingError if the other end is gone."""
        try:
            return self._end.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise RingError(str(error)) from error


class LogicProcess:
    """Starts Logic, and starts it again."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._snapshot = subprocess.Popen(
                [sys.executable, "-m", __name__, str(number)], pass_fds=[number], stdin=subprocess.DEVNULL
            )

    def start(self) -> tuple[socket.socket, Channel]:
        """Ends the incarnation that there is, if there is one: State's end of the link to the next one."""
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        with theirs:
            try:
                socket.send_fds(self._control, [b"s"], [theirs.fileno()])
            except OSError as error:
                raise LogicGone(f"Logic can't be started again: {error}") from error
        ring: Any = SocketRing(mine)
        return mine, Channel(ring, ring, _no_need, "logic", "xenstore", _report)

    def close(self) -> None:
        """Ends Logic."""
        self._control.close()
        self._snapshot.wait()


def _no_need() -> None:
    """A socket wakes its other end by itself."""


def _report(line: str) -> None:
    print(f"xenstored: {line}", file=sys.stderr)


def _say_nothing(line: str) -> None:
    """Logic's end breaks whenever State has had enough of it."""


def _incarnation(end: socket.socket) -> None:
    end.setblocking(False)
    ring: Any = SocketRing(end)
    channel = Channel(ring, ring, _no_need, "xenstore", "logic", _say_nothing)

    def wait() -> None:
        if channel.broken:
            os._exit(0)
        select.select([end], [], [])

    link = StateLink(channel, wait)
    while True:
        link.serve()


def snapshot(control: socket.socket) -> None:
    """Starts an incarnation for each link that comes, until nobody is there to send any."""
    gc.collect()
    gc.freeze()
    child = 0
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if not data:
            return
        child = os.fork()
        if not child:
            control.close()
            _incarnation(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    snapshot(socket.socket(fileno=int(sys.argv[1])))
