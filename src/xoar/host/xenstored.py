"""XenStore on a Unix socket, without Xen: for tests, and for tools that want one.

Clients are privileged as domain 0, as xenstored's socket clients are; who may connect is up to the socket's
file permissions (owner only). There are no rings: INTRODUCE makes a domain known and nothing else.

With `--split`, Logic is a process of its own, which is killed and started again after every so many requests,
when it fails, and when it has not answered a request in time.

    python -m xoar.host.xenstored --socket PATH [--split [--after N] [--patience SECONDS]]
"""

import argparse
import contextlib
import os
import selectors
import socket
import stat
import sys
import time
from collections.abc import Callable

from xoar.host.logic_process import LogicGone, LogicProcess
from xoar.xenstore.connection import Connection
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import ProtocolError
from xoar.xenstore.gate import Gate, Host
from xoar.xenstore.logiclink import LogicLink
from xoar.xenstore.quotas import quotas
from xoar.xenstore.server import Direct

_CHUNK = 8192


class SocketInUse(Exception):
    """Another server listens on the socket."""


class _Host(Host):
    def log(self, text: str) -> None:
        print(text, flush=True)


class Split:
    """Logic in a process of its own, and who watches over it.

    `after`: how many requests an incarnation answers, 0: any number; `patience`: seconds for one request.
    """

    def __init__(self, after: int, patience: float) -> None:
        self.link = LogicLink(self.restart, after, int(patience * 1e9), time.monotonic_ns)
        self._patience = patience
        self._process = LogicProcess()
        self._gate: Gate | None = None
        self._selector: selectors.BaseSelector | None = None
        self._socket: socket.socket | None = None

    def begin(self, gate: Gate, selector: selectors.BaseSelector) -> None:
        """Starts Logic."""
        self._gate, self._selector = gate, selector
        self.restart()

    def restart(self) -> None:
        """Starts Logic again. Raises LogicGone."""
        assert self._gate is not None and self._selector is not None
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
        self._socket, channel = self._process.start()
        self._selector.register(self._socket, selectors.EVENT_READ, self._receive)
        self.link.started(self._gate, channel)

    def time_left(self) -> float | None:
        """Seconds until Logic has had too long for its request; None if it has none."""
        assert self._gate is not None
        due = self.link.deadline(self._gate)
        return None if due is None else max(0.0, (due - time.monotonic_ns()) / 1e9)

    def watch(self) -> None:
        """Rolls Logic back if its time is over."""
        if self._gate is not None and self.link.overdue(self._gate):
            print(f"xenstored: no answer from Logic for {self._patience} s", file=sys.stderr)
            self.link.roll_back(self._gate)

    def close(self) -> None:
        """Ends Logic."""
        self._process.close()
        if self._socket is not None:
            self._socket.close()

    def _receive(self, mask: int) -> None:
        if self._gate is not None:
            self.link.receive(self._gate)


class XenStored:
    """The server and its sockets. `close` ends all connections and removes the socket."""

    def __init__(self, path: str, split: Split | None = None) -> None:
        self._path = path
        self._split = split
        self._gate = Gate(Domains({0}, any_exists=True), quotas(), split.link if split else Direct(), _Host())
        self._gate.connections[0] = None
        self._sockets: dict[Connection, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = _listen(path)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        if split:
            split.begin(self._gate, self._selector)

    def turn(self) -> None:
        """Waits for something to happen and deals with it. Raises LogicGone."""
        for key, mask in self._selector.select(self._split.time_left() if self._split else None):
            handler: Callable[[int], None] = key.data
            handler(mask)
        if self._split:
            self._split.watch()
        for connection in self._gate.take_ready():
            if connection in self._sockets:
                self._move(connection, selectors.EVENT_WRITE)

    def close(self) -> None:
        """Ends all connections and removes the socket."""
        for connection in list(self._sockets):
            self._drop(connection)
        if self._split:
            self._split.close()
        self._selector.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _accept(self, mask: int) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        connection = self._gate.connect(0)
        self._sockets[connection] = client
        self._selector.register(client, selectors.EVENT_READ, lambda mask: self._move(connection, mask))

    def _move(self, connection: Connection, mask: int) -> None:
        """Reads and writes what is possible; whatever goes wrong ends this connection and no other."""
        client = self._sockets.get(connection)
        if client is None:
            return
        try:
            if mask & selectors.EVENT_READ:
                data = client.recv(_CHUNK)
                if not data:
                    self._drop(connection)
                    return
                connection.receive(data)
            self._send(connection, client)
            connection.check()
        except ConnectionError:
            self._drop(connection)
            return
        except LogicGone:
            raise
        except (OSError, ProtocolError) as error:
            print(f"xenstored: a client is cut off: {error}", file=sys.stderr)
            self._drop(connection)
            return
        except Exception as error:
            print(f"xenstored: bug: {error!r}; the client is cut off", file=sys.stderr)
            self._drop(connection)
            return
        events = selectors.EVENT_READ if connection.wants_input else 0
        events |= selectors.EVENT_WRITE if connection.output() else 0
        if self._selector.get_key(client).events != events:
            self._selector.modify(client, events, self._selector.get_key(client).data)

    def _send(self, connection: Connection, client: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := connection.output():
                connection.sent(client.send(data))
                connection.receive(b"")

    def _drop(self, connection: Connection) -> None:
        client = self._sockets.pop(connection)
        self._selector.unregister(client)
        client.close()
        self._gate.disconnect(connection)


def serve(path: str, split: Split | None = None) -> None:
    """Serves XenStore on a Unix socket at `path` until interrupted. Raises SocketInUse, LogicGone."""
    store = XenStored(path, split)
    try:
        while True:
            store.turn()
    except KeyboardInterrupt:
        pass
    finally:
        store.close()


def _listen(path: str) -> socket.socket:
    """A listening socket; takes the place of a socket that nobody serves any more, and of nothing else."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(path) == 0:
                    raise SocketInUse(f"{path}: another server listens there; choose another path or stop it")
            os.unlink(path)
        previous = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="xenstored", description="XenStore on a Unix socket, without Xen.")
    parser.add_argument("--socket", required=True, metavar="PATH", help="where to listen")
    parser.add_argument("--split", action="store_true", help="run Logic as a process of its own")
    parser.add_argument("--after", type=int, default=1, metavar="N", help="roll Logic back after N requests")
    parser.add_argument("--patience", type=float, default=5, metavar="SECONDS", help="time for a request")
    arguments = parser.parse_args()
    path = arguments.socket
    try:
        serve(path, Split(arguments.after, arguments.patience) if arguments.split else None)
    except (OSError, SocketInUse, LogicGone) as error:
        sys.exit(f"xenstored: can't serve {path}: {error}")


if __name__ == "__main__":
    main()
