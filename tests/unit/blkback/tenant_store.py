"""XenStore as a driver domain and Toolstacks find it: each with no more than its own rights."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from xoar.host.xenstored import XenStored
from xoar.xenstore.errors import Refused
from xoar.xenstore.linux import Connection, connect

DRIVER, HOST = 6, 4
HOME = f"/local/domain/{DRIVER}"


class _Server(XenStored):
    """Whoever connects next is the domain `caller`."""

    caller = 0

    def _accept(self, mask: int) -> None:
        connect_as, self._gate.connect = self._gate.connect, lambda _: connect_as(self.caller)  # type: ignore[method-assign]
        try:
            super()._accept(mask)
        finally:
            self._gate.connect = connect_as  # type: ignore[method-assign]


class Store:
    """The store with the records of one driver domain, as the host's Toolstack makes them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._server = _Server(path)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._connections = contextlib.ExitStack()
        self._known: dict[int, Connection] = {}
        root = self.domain(0)
        for path, rights in (("", "r"), ("/service", "b"), ("/backend", "b"), ("/requests", "r")):
            self.make(root, f"{HOME}{path}", HOST, f"{rights}{DRIVER}")

    def connection(self, domid: int) -> Connection:
        """A new connection of a domain."""
        self._server.caller = domid
        made = self._connections.enter_context(connect(self._path))
        with contextlib.suppress(Refused):
            made.read("/")  # the answer tells that the connection was accepted
        return made

    def domain(self, domid: int) -> Connection:
        """A connection of a domain, always the same."""
        if domid not in self._known:
            self._known[domid] = self.connection(domid)
        return self._known[domid]

    def make(self, maker: Connection, path: str, owner: int, *rights: str) -> None:
        """Makes a node; the last right is the owner's own over what others make below it."""
        maker.mkdir(path)
        maker.set_perms(path, [f"n{owner}", *rights, f"b{owner}"])

    def delegate(self, domid: int, name: str, **nodes: str) -> None:
        """What the host's Toolstack writes for a tenant; `nodes` besides, "/" in their names as "__"."""
        base, host = f"{HOME}/tenants/{domid}", self.domain(HOST)
        self.make(host, base, HOST, f"r{DRIVER}")
        self._begin_to_talk(domid)
        for node, value in nodes.items():
            host.write(f"{base}/{node.replace('__', '/')}", value)
        host.write(f"{base}/name", name)

    def build_anew(self, domid: int, name: str) -> Iterator[None]:
        """What the host's Toolstack writes when the tenant's has been built anew; with pauses."""
        base, host = f"{HOME}/tenants/{domid}", self.domain(HOST)
        for node in ("service", "requests"):
            host.rm(f"{base}/{node}")
            yield
        self._begin_to_talk(domid)
        yield
        host.write(f"{base}/name", name)

    def _begin_to_talk(self, domid: int) -> None:
        base, host = f"{HOME}/tenants/{domid}", self.domain(HOST)
        self.make(host, f"{base}/service", HOST, f"b{DRIVER}", f"r{domid}")
        self.make(host, f"{base}/requests", HOST, f"b{domid}", f"r{DRIVER}")

    def withdraw(self, domid: int) -> None:
        self.domain(HOST).rm(f"{HOME}/tenants/{domid}")

    def make_back_end(self, kind: str, toolstack: int, guest: int, number: int) -> str:
        """What XenStore makes when Builder allows a device; its path."""
        path, root = f"{HOME}/backend/{kind}/{guest}/{number}", self.domain(0)
        self.make(root, path, toolstack, f"b{DRIVER}", f"r{guest}")
        if kind == "vbd":
            root.write(f"{path}/physical-device", "")
            root.set_perms(f"{path}/physical-device", [f"n{DRIVER}", f"r{guest}", f"r{toolstack}"])
        return path

    def close(self) -> None:
        self._ends.set()
        self._connections.close()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while not self._ends.is_set():
            self._server.turn()


@contextlib.contextmanager
def store(folder: Path) -> Iterator[Store]:
    made = Store(str(folder / "xenstore"))
    try:
        yield made
    finally:
        made.close()
