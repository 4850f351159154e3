"""XenStore from a Linux domain: over /dev/xen/xenbus, or over the Unix socket of a server.

What the kernel's device asks for (Linux, drivers/xen/xenbus/xenbus_dev_frontend.c): each message in one
write, header and payload together at most 4096 bytes; replies and watch events come on the same file. A
watch that is refused fails the write instead of being answered with an error.

Only for CPython; nothing of nano imports it.
"""

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable

from xoar.xenstore.client import Client
from xoar.xenstore.errors import ProtocolError, Refused

DEVICE = "/dev/xen/xenbus"


class _File:
    """Both directions of a blocking file, with the calls of a ByteRing that Client makes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether there is something to read, at the latest after so many seconds (None: any time)."""
        return bool(self._poll.poll(None if seconds is None else int(max(seconds, 0) * 1000 + 0.999)))

    def read(self, limit: int) -> bytes:
        if not self.wait(0):
            return b""
        data = os.read(self.fd, limit)
        if not data:
            raise ProtocolError("XenStore has closed the connection")
        return data

    def write(self, data: bytes) -> int:
        try:
            return os.write(self.fd, data)
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno is None:
                raise
            raise Refused(errno.errorcode.get(error.errno, "EIO")) from error


class Connection(Client):
    """A connection to XenStore; a context manager. Paths that begin without "/" are below the domain's home.

    Besides what Client raises: OSError if the file or socket fails, ProtocolError if the server closes it.
    """

    def __init__(self, fd: int, close: Callable[[], object]) -> None:
        self._file = _File(fd)
        self._close = close
        super().__init__(self._file, self._file, lambda: None, self._file.wait)  # type: ignore[arg-type]

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For select: readable when `next_event(0)` may have something new; see `has_event`."""
        return self._file.fd

    def has_event(self) -> bool:
        """Whether an event has come along with a reply: then `fileno` need not become readable any more."""
        return bool(self._events)

    def next_event(self, seconds: float | None = None) -> tuple[str, str] | None:
        """The oldest (path, token) of a watch that fired; waits so many seconds for one (None: any time)."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            while self.poll():
                pass
            event = self.take_event()
            if event is not None:
                return event
            if not self._file.wait(None if end is None else end - time.monotonic()):
                return None

    def text(self, path: str) -> str | None:
        """The value at a path as text, None if there is no such node or it is not ASCII."""
        try:
            return self.read(path).decode("ascii")
        except Refused as error:
            if error.name != "ENOENT":
                raise
        except UnicodeDecodeError:
            pass
        return None

    def children(self, path: str) -> list[str]:
        """The names of a node's children, sorted; none if there is no such node."""
        try:
            return sorted(self.directory(path))
        except Refused as error:
            if error.name != "ENOENT":
                raise
            return []

    def close(self) -> None:
        """Ends the connection; its watches go with it."""
        self._close()


def connect(path: str = DEVICE) -> Connection:
    """Connects to the kernel's device, or to a server's Unix socket. Raises OSError."""
    if stat.S_ISSOCK(os.stat(path).st_mode):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(path)
        except BaseException:
            client.close()
            raise
        return Connection(client.fileno(), client.close)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return Connection(fd, lambda: os.close(fd))
