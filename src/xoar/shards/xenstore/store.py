"""The XenStore shard's core: Builder's introductions, clients' rings, and who is served in a turn. No I/O.

One `turn` does a bounded amount for everybody who signalled. Whatever goes wrong with one client, a bug of
ours included, stops that client's connection and nothing else.
"""

from xoar.messages.errors import EEXIST, EIO, ENOENT, ENOSPC
from xoar.xenstore import paths
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import Gate, Host
from xoar.xenstore.quotas import quotas
from xoar.xenstore.ringlink import ERROR_COMM, RingLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message
    from xoar.xen.ring import SharedPage
    from xoar.xenstore.gate import LogicPort, Records

    class Transport(Protocol):
        """A mapped XenStore ring and its event channel."""

        page: SharedPage
        port: int

        def notify(self) -> None:
            """Signals the client."""

        def close(self) -> None:
            """Unmaps the ring and closes the channel."""


MAX_DOMAINS = 256
_MAX_REPORTS = 8
_TENANT = "tenant-"  # a tenant's Toolstack, which is built again and has its domid for itself

# What 64 hostile guests can make the shard keep fits its memory (docs/xenstore.md, "Limits").
# Nodes of guests have more permissions here than elsewhere (toolstack/store.py), which count as their size.
LIMITS = {"node-size": 2048 + 64, "memory": 96 * 1024, "buffers": 32 * 1024, "output": 16 * 1024}


class _Client:
    """A domain's link, its transport, and how often it has been in the log."""

    def __init__(self, transport: "Transport", link: RingLink) -> None:
        self.transport = transport
        self.link = link
        self.reports = 0


class _NoIntroductions(Host):
    """Domains are introduced by Builder, over its own link: never by what a XenStore client says."""

    def __init__(self, report: "Callable[[str], None]") -> None:
        self._report = report

    def introduce(self, domid: int, port: int) -> None:
        raise Refused("EACCES")

    def release(self, domid: int) -> None:
        raise Refused("EACCES")

    def log(self, text: str) -> None:
        self._report(text)


class Store:
    """`connect(domid, gref, port)` maps a XenStore ring and binds its event channel, or raises OSError;
    `logic` is where Logic is; `backends` are domids with higher quotas; `report` takes lines for Xen's
    console. No domain is privileged.
    """

    def __init__(
        self,
        connect: "Callable[[int, int, int], Transport]",
        logic: "LogicPort",
        backends: "frozenset[int]" = frozenset(),
        report: "Callable[[str], None]" = print,
    ) -> None:
        domains = Domains(set(), False, backends)
        self.server = Gate(domains, quotas(**LIMITS), logic, _NoIntroductions(report))
        self._connect = connect
        self._report = report
        self._clients: "dict[int, _Client]" = {}
        self._by_port: "dict[int, _Client]" = {}
        self._busy: "list[_Client]" = []

    def introduce(
        self,
        domid: int,
        gref: int,
        port: int,
        parent: int = 0,
        records: "Records" = (),
        memory: bytes = b"",
    ) -> None:
        """Makes a domain's ring known. Raises OSError if it can't be mapped or bound."""
        transport = self._connect(domid, gref, port)
        connection = self.server.introduce(domid, parent, records, memory)
        client = _Client(transport, RingLink(transport.page, self.server, connection))
        self._clients[domid] = self._by_port[transport.port] = client
        self._busy.append(client)

    def introduction(self, builder: "Channel", message: "Message") -> None:
        """Carries out one message of Builder and answers it."""
        domid = message.fields.domid
        if message.kind == "introduce":
            self._introduce(builder, message)
        elif message.kind == "make_back_end":
            self._make_back_end(builder, message)
        elif message.kind == "remove_back_end":
            fields = message.fields
            self.server.remove_back_end(domid, fields.backend, fields.device_kind.encode(), fields.number)
            builder.send("done", message.id)
        elif message.kind == "stopped":
            self.server.stopped(domid)
        elif message.kind == "release":
            if domid in self._clients:
                self._release(domid)
                builder.send("done", message.id)
            else:
                builder.fail(message.id, ENOENT, "domain %d has no connection here" % domid)

    def turn(self, ports: "list[int]") -> bool:
        """Serves the clients behind these ports; True if more can be done at once."""
        busy, self._busy = self._busy, []
        for port in ports:
            client = self._by_port.get(port)
            if client is not None and client not in busy:
                busy.append(client)
        for client in busy:
            self._guarded(client, client.link.serve)
            if client.link.busy():
                self._busy.append(client)
        for connection in self.server.take_ready():
            ready = self._clients.get(connection.domid)
            if ready is not None:
                self._guarded(ready, ready.link.flush)
                if ready.link.busy() and ready not in self._busy:
                    self._busy.append(ready)
        return bool(self._busy)

    def _guarded(self, client: _Client, step: "Callable[[], bool]") -> None:
        was = client.link.stopped
        try:
            notify = step()
        except Exception as error:
            notify = client.link.stop(ERROR_COMM, "a bug: " + repr(error))
        if client.link.stopped and not was and client.reports < _MAX_REPORTS:
            client.reports += 1
            self._report(
                "xenstore: domain %d is cut off: %s" % (client.link.connection.domid, client.link.stopped)
            )
        if notify:
            client.transport.notify()

    def _introduce(self, builder: "Channel", message: "Message") -> None:
        fields = message.fields
        domid = fields.domid
        if domid in self._clients:
            builder.fail(message.id, EEXIST, "domain %d has a connection already" % domid)
        elif len(self._clients) >= MAX_DOMAINS:
            builder.fail(message.id, ENOSPC, "there are %d connections, the most allowed" % MAX_DOMAINS)
        else:
            try:
                first = records(domid, fields.parent, fields.uuid)
                # Builder names the boot plan's shards only
                memory = paths.memory(domid) if fields.name.startswith(_TENANT) else b""
                self.introduce(domid, fields.gref, fields.port, fields.parent, first, memory)
            except OSError as error:
                number = error.errno or EIO
                builder.fail(message.id, number, "XenStore ring of domain %d: error %d" % (domid, number))
                return
            builder.send("done", message.id)

    def _make_back_end(self, builder: "Channel", message: "Message") -> None:
        fields = message.fields
        try:
            self.server.make_back_end(
                fields.domid, fields.backend, fields.device_kind.encode(), fields.number
            )
        except Refused:
            text = "domain %d serves no devices yet, or domain %d is gone"
            builder.fail(message.id, ENOENT, text % (fields.backend, fields.domid))
            return
        builder.send("done", message.id)

    def _release(self, domid: int) -> None:
        client = self._clients.pop(domid)
        del self._by_port[client.transport.port]
        if client in self._busy:
            self._busy.remove(client)
        self.server.release(domid)
        client.transport.close()


def records(domid: int, parent: int, uuid: bytes) -> "Records":
    """The nodes that a domain starts with, if it is a Toolstack's. Only guests have a uuid (not zeros)."""
    if not parent:
        return ()
    home = paths.home(domid)
    if not any(uuid):
        return ((home, False),)
    below = [(paths.child(home, name), writes) for name, writes in paths.OF_A_GUEST]
    return ((home, False), (paths.vm(uuid), False)) + tuple(below)
