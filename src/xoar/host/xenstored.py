"""XenStore on a Unix socket, without Xen: for tests, and for tools that want one.

Clients are privileged as domain 0, as xenstored's socket clients are; who may connect is up to the socket's
file permissions (owner only). There are no rings: INTRODUCE makes a domain known and nothing else.

    python -m xoar.host.xenstored --socket PATH
"""

import argparse
import contextlib
import os
import selectors
import socket
import stat
import sys
from collections.abc import Callable

from xoar.xenstore.connection import Connection
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import ProtocolError
from xoar.xenstore.gate import Host
from xoar.xenstore.quotas import quotas
from xoar.xenstore.server import Server

_CHUNK = 8192


class SocketInUse(Exception):
    """Another server listens on the socket."""


class _Host(Host):
    def log(self, text: str) -> None:
        print(text, flush=True)


class XenStored:
    """The server and its sockets. `close` ends all connections and removes the socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._server = Server(Domains({0}, any_exists=True), quotas(), _Host())
        self._server.connections[0] = None
        self._sockets: dict[Connection, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = _listen(path)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def turn(self) -> None:
        """Waits for something to happen and deals with it."""
        for key, mask in self._selector.select():
            handler: Callable[[int], None] = key.data
            handler(mask)
        for connection in self._server.take_ready():
            if connection in self._sockets:
                self._move(connection, selectors.EVENT_WRITE)

    def close(self) -> None:
        """Ends all connections and removes the socket."""
        for connection in list(self._sockets):
            self._drop(connection)
        self._selector.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _accept(self, mask: int) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        connection = self._server.connect(0)
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
        except ConnectionError:
            self._drop(connection)
            return
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
        self._server.disconnect(connection)


def serve(path: str) -> None:
    """Serves XenStore on a Unix socket at `path` until interrupted. Raises SocketInUse, OSError."""
    store = XenStored(path)
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
    path = parser.parse_args().socket
    try:
        serve(path)
    except (OSError, SocketInUse) as error:
        sys.exit(f"xenstored: can't serve {path}: {error}")


if __name__ == "__main__":
    main()
