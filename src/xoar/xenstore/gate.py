"""The gate: who is connected, what they have open, and whose request Logic may answer. No I/O.

Connections read requests from clients' own rings or sockets, so the gate knows who asked for something, and
Logic never says it: Logic is handed one request at a time, and what it has done until it answers is done for
the client that sent this request. That is at most one operation (xoar.xenstore.request).

Logic may be rolled back at any moment. A request that it has not answered is handed to the next incarnation;
its operation, if it has been carried out, is not carried out again. So each request is done once, and is
answered once. With `Logic.after`, the gate hands out no further request until Logic has been rolled back.

The host (a shard on Xen, a process with sockets on Linux) makes connections, moves their bytes, and tells of
domains. After any call, `take_ready` gives the connections that it should look at: they have got something
to send, or can't go on.
"""

from xoar.xenstore import paths, wire
from xoar.xenstore.connection import Connection
from xoar.xenstore.contents import Contents
from xoar.xenstore.domains import READ_ACCESS, WRITE_ACCESS, Domains
from xoar.xenstore.errors import Refused
from xoar.xenstore.nodes import SPECIAL, STORE
from xoar.xenstore.request import Request
from xoar.xenstore.watches import Watches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.xenstore.domains import Permissions
    from xoar.xenstore.nodes import Change
    from xoar.xenstore.request import Outcome

    Records = tuple[tuple[bytes, bool], ...]

MAX_TRIES = 3
"""How often a request is handed out before it is answered with EIO: it may be what makes Logic fail."""

_INTRODUCE, _RELEASE = SPECIAL


class Host:
    """What the server asks of what it runs in; this one has no rings to map."""

    def introduce(self, domid: int, port: int) -> None:
        """A privileged client sent INTRODUCE: a domain offers its XenStore ring. Raises Refused."""

    def release(self, domid: int) -> None:
        """A privileged client sent RELEASE. Raises Refused."""

    def log(self, text: str) -> None:
        """A line for the operator."""
        print(text)


class LogicPort:
    """Where Logic is. `after`: it has to be rolled back after so many requests; 0: only when it fails."""

    after = 0

    def hand(self, gate: "Gate", request: Request) -> None:
        """Has Logic do a request: it calls `gate.operate`, then `gate.answer`, both with its number."""
        raise NotImplementedError

    def roll_back(self, gate: "Gate") -> None:
        """Has Logic rolled back, and `gate.logic_started` called when that is done."""
        raise NotImplementedError


class Gate:
    """One XenStore: its state, its connections, and where the Logic is that reads their requests."""

    def __init__(
        self, domains: Domains, limits: "dict[str, int]", logic: LogicPort, host: "Host | None" = None
    ) -> None:
        self.domains = domains
        self.limits = limits
        self.host = host or Host()
        self.contents = Contents(domains, limits)
        self.watches = Watches()
        self.connections: "dict[int, Connection | None]" = {}
        self.logic = logic
        self._stopped: "set[int]" = set()
        self._records: "dict[int, Records]" = {}
        self._lasting: "set[int]" = set()
        self._ready: "list[Connection]" = []
        self._asking: "list[Connection]" = []
        self._request: "Request | None" = None
        self._handing_out = False
        self._number = 0
        self._answered = 0
        self._fresh = True
        self._lost = False
        self.contents.make(STORE, b"/tool/xenstored")

    # what the host tells

    def connect(self, domid: int) -> Connection:
        """A further connection of a domain (a socket client); end it with `disconnect`."""
        return Connection(self, domid)

    def disconnect(self, connection: Connection) -> None:
        """A connection is gone, or must be silent from now on."""
        connection.reset()
        if connection in self._ready:
            self._ready.remove(connection)

    def introduce(
        self, domid: int, parent: int = 0, records: "Records" = (), memory: bytes = b""
    ) -> Connection:
        """A domain with a ring exists: its connection, as new if there was one.

        `records` are nodes that it starts with, empty, and that go with it, those above others first, each
        with whether it may write there: they belong to its parent, and it may read them. `memory` is a node
        of its own that outlives it, for the next domain of its domid, which is never anybody else's.
        """
        connection = self.connections.get(domid)
        if connection is not None:
            connection.reset()
            return connection
        self.contents.add_domain(domid)
        self.domains.set_parent(domid, parent)
        self._records[domid] = records
        read = ((parent, 0), (domid, READ_ACCESS))
        # the last entry counts where the domain owns what it has made
        written = ((parent, 0), (domid, READ_ACCESS | WRITE_ACCESS), (parent, READ_ACCESS | WRITE_ACCESS))
        for path, writes in records:
            self.fire(self.contents.start(path, written if writes else read))
        if memory:
            self._lasting.add(domid)
            if self.contents.fetch(memory) is None:
                self.fire(self.contents.start(memory, ((domid, 0),)))
        connection = self.connections[domid] = Connection(self, domid)
        self._fire_special(_INTRODUCE, domid)
        return connection

    def release(self, domid: int) -> None:
        """A domain is gone: so are its connection, its nodes, and permissions that name it."""
        if domid not in self.connections:
            return
        connection = self.connections.pop(domid)
        if connection is not None:
            self.disconnect(connection)
        self._stopped.discard(domid)
        # back ends let go of a domain when its records go
        for path, _ in self._records.pop(domid, ()):
            self.fire(self.contents.end(path))
        if domid not in self._lasting and not self.domains.children(domid):
            self.fire(self.contents.remove_domain(domid))
        # else what it owns, its memory and domains' records that live on, is for the next one of its domid
        self._fire_special(_RELEASE, domid)

    def make_back_end(self, domid: int, backend: int, kind: bytes, number: int) -> None:
        """Makes the node of a back end of a domain's device, whatever was there.

        It belongs to the domain's parent; the back end writes to it and the domain reads it, as all that is
        made below it. But what a kernel believes without asking anybody is not the parent's to write: whose
        grants it maps (`frontend-id`, `frontend`), and which of its disks it opens (`physical-device`).

        Raises Refused(ENOENT) if one of the three is not there, or `backend` is not prepared.
        """
        parent = self.domains.parent(domid)
        known = parent in self.connections and domid in self.connections and backend in self.connections
        if not known or self.contents.fetch(paths.backends(backend)) is None:
            raise Refused("ENOENT")
        both = READ_ACCESS | WRITE_ACCESS
        # the last entry counts where the back end owns what it has made
        permissions = ((parent, 0), (backend, both), (domid, READ_ACCESS), (parent, both))
        path = paths.back_end(backend, kind, domid, number)
        self.fire(self.contents.start(path, permissions))
        readers = ((backend, READ_ACCESS), (domid, READ_ACCESS), (parent, READ_ACCESS))
        front_end = paths.front_end(domid, kind, number)
        for name, value in ((b"frontend", front_end), (b"frontend-id", b"%d" % domid)):
            self.fire(self.contents.start(paths.child(path, name), ((STORE, 0),) + readers, value))
        if kind == b"vbd":
            # empty it is as good as missing: Linux waits (XENBUS_EXIST_ERR)
            self.fire(
                self.contents.start(paths.child(path, b"physical-device"), ((backend, 0),) + readers[1:])
            )

    def remove_back_end(self, domid: int, backend: int, kind: bytes, number: int) -> None:
        """Removes that node and all below it, and what holds nothing else then."""
        path = paths.back_end(backend, kind, domid, number)
        self.fire(self.contents.end(path))
        above = paths.parent(path)
        node = self.contents.fetch(above)
        if node is not None and not node.children:
            self.fire(self.contents.end(above))

    def stopped(self, domid: int) -> None:
        """A domain has shut down or crashed: tells who watches, once until `resumed`."""
        if domid in self.connections and domid not in self._stopped:
            self._stopped.add(domid)
            self._fire_special(_RELEASE, domid)

    def resumed(self, domid: int) -> None:
        """A domain runs again: its next stop is news."""
        self._stopped.discard(domid)

    def take_ready(self) -> "list[Connection]":
        """Connections to look at since it was last asked."""
        ready, self._ready = self._ready, []
        return ready

    # what connections tell

    def look_at(self, connection: Connection) -> None:
        """A connection's output is not empty any more, or it is broken."""
        if connection not in self._ready:
            self._ready.append(connection)

    def asks(self, connection: Connection) -> None:
        """A connection may have a complete request."""
        if connection not in self._asking:
            self._asking.append(connection)
        self._hand_out()

    def forget(self, connection: Connection) -> None:
        """A connection starts anew: nobody waits for the answer to its request any more."""
        if connection in self._asking:
            self._asking.remove(connection)
        if self._request is not None and self._request.connection is connection:
            self._request.cancelled = True

    # Logic

    @property
    def outstanding(self) -> int:
        """The number of the request that Logic has and has not answered, 0 if there is none."""
        return self._request.number if self._request is not None else 0

    def logic_started(self, blameless: bool = False) -> None:
        """Logic is as it was at first. It gets the request that the last incarnation left unanswered; if that
        was `blameless`, rolled back though it had not failed, the request counts as not tried."""
        self._fresh = True
        self._lost = False
        self._answered = 0
        request = self._request
        if request is not None and blameless:
            request.tries -= 1
        if request is not None:
            if request.cancelled:
                self._request = None
            elif request.tries < MAX_TRIES:
                self._hand(request)
            else:
                self.answer(request.number, "EIO", b"")
        self._hand_out()

    def logic_lost(self) -> None:
        """Nobody rolls Logic back: until `logic_started` each request is answered with EIO. What the one that
        Logic had was to do may have been done."""
        self._fresh = False
        self._lost = True
        request, self._request = self._request, None
        if request is not None and not request.cancelled:
            self._reply(request, "EIO", b"")
        self._hand_out()

    def operate(self, number: int, kind: str, arguments: "tuple[Any, ...]") -> "Outcome":
        """Carries out the operation of the request that Logic has, once. Raises Refused."""
        request = self._request
        if request is None or number != request.number:
            raise Refused("EIO")
        return request.operate(kind, arguments)

    def answer(self, number: int, refusal: str, payload: bytes) -> None:
        """Logic is done with the request that it has: an error's name, or "" and the reply's payload."""
        request = self._request
        if request is None or number != request.number:
            return
        self._request = None
        self._answered += 1
        if not request.cancelled:
            self._reply(request, refusal, payload)
        if self.logic.after and self._answered >= self.logic.after:
            self._fresh = False
            self.logic.roll_back(self)
        self._hand_out()

    def give_up(self, error: Exception) -> None:
        """A bug of ours while we did what Logic asked for: nobody but this request's client hears of it."""
        if self._request is not None and not self._request.cancelled:
            self._request.cancelled = True
            self._request.connection.fail(error)

    def _reply(self, request: Request, refusal: str, payload: bytes) -> None:
        kind, id, transaction, _ = request.message
        if refusal:
            kind, payload = wire.ERROR, refusal.encode() + b"\0"
        request.connection.reply(kind, id, transaction, payload)
        if request.watch is not None:
            request.watch.fire_itself()

    def _hand_out(self) -> None:
        """Lets Logic do requests, one of each connection in turn, unless that is going on already."""
        if self._handing_out:
            return
        self._handing_out = True
        try:
            while (self._fresh or self._lost) and self._request is None and self._asking:
                connection = self._asking[0]
                self._asking = self._asking[1:]
                message = connection.next_request()
                if message is None:
                    continue
                self._asking.append(connection)
                if self._lost:
                    connection.reply(wire.ERROR, message.request, message.transaction, b"EIO\0")
                else:
                    self._number = self._number % 0xFFFFFFFF + 1
                    self._request = Request(self._number, self, connection, message)
                    self._hand(self._request)
        finally:
            self._handing_out = False

    def _hand(self, request: Request) -> None:
        request.tries += 1
        try:
            self.logic.hand(self, request)
        except Exception as error:
            self.give_up(error)
            self._request = None

    # watches

    def fire(self, changes: "list[Change]") -> None:
        """Tells who watches, and may see it, of changes."""
        for change in changes:
            self.watches.fire(change, self._visible)

    def _fire_special(self, name: bytes, domid: int) -> None:
        node = self.contents.fetch(name)
        if node is not None:
            permissions = (node.permissions,)
            self.watches.fire_special(name, domid, lambda watcher: self._visible(watcher, name, permissions))

    def _visible(self, domid: int, path: bytes, permissions: "tuple[Permissions, ...]") -> bool:
        return any([self.domains.may(domid, path, entry, READ_ACCESS) for entry in permissions])
