"""The logic: requests of all connections, transactions, watches, domains that come and go. No I/O.

What it keeps is connections with their watches and transactions; nodes, access and quotas are the business of
`contents` and `domains`. The table at the end says which request needs which privilege.

Its host (a shard on Xen, a process with sockets on Linux) makes connections, moves their bytes, and tells of
domains. After any call, `take_ready` gives the connections that have got something to send.
"""

from xoar.xenstore import control, paths, wire
from xoar.xenstore.connection import Connection
from xoar.xenstore.contents import Contents
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import Refused
from xoar.xenstore.nodes import SPECIAL, STORE, View
from xoar.xenstore.overlay import Overlay
from xoar.xenstore.watches import Watch, Watches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xenstore.domains import Permissions
    from xoar.xenstore.nodes import Change

    Handler = Callable[["Server", Connection, View, wire.Message], bytes]
    """Does a request of a connection in a view of the nodes, and returns the reply's payload."""

_DOMID_FIRST_RESERVED = 0x7FF0
_DOMID_SELF = 0x7FF0
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


class Server:
    """One XenStore."""

    def __init__(self, domains: Domains, limits: "dict[str, int]", host: "Host | None" = None) -> None:
        self.domains = domains
        self.limits = limits
        self.host = host or Host()
        self.contents = Contents(domains, limits)
        self.watches = Watches()
        self.connections: "dict[int, Connection | None]" = {}
        self._stopped: "set[int]" = set()
        self._ready: "list[Connection]" = []
        self.contents.make(STORE, b"/tool/xenstored")

    def connect(self, domid: int) -> Connection:
        """A further connection of a domain (a socket client); end it with `disconnect`."""
        return Connection(self, domid)

    def disconnect(self, connection: Connection) -> None:
        """A connection is gone, or must be silent from now on."""
        connection.reset()
        if connection in self._ready:
            self._ready.remove(connection)

    def introduce(self, domid: int, parent: int = 0, records: "tuple[bytes, ...]" = ()) -> Connection:
        """A domain with a ring exists: its connection, as new if there was one.

        `records` are nodes that it starts with, empty: they belong to its parent, and it may read them.
        """
        connection = self.connections.get(domid)
        if connection is not None:
            connection.reset()
            return connection
        self.contents.add_domain(domid)
        self.domains.set_parent(domid, parent)
        for path in records:
            self._fire(self.contents.start(path, ((parent, 0), (domid, wire.READ_ACCESS))))
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
        if not self.domains.children(domid):
            self._fire(self.contents.remove_domain(domid))
        # else what it owns are records of domains that live on, for the next Toolstack of its domid
        self._fire_special(_RELEASE, domid)

    def stopped(self, domid: int) -> None:
        """A domain has shut down or crashed: tells who watches, once until RESUME."""
        if domid in self.connections and domid not in self._stopped:
            self._stopped.add(domid)
            self._fire_special(_RELEASE, domid)

    def take_ready(self) -> "list[Connection]":
        """Connections that have got output since it was last asked, or since their output was last empty."""
        ready, self._ready = self._ready, []
        return ready

    def has_output(self, connection: Connection) -> None:
        """A connection's output is not empty any more."""
        if connection not in self._ready:
            self._ready.append(connection)

    def handle(self, connection: Connection, message: "wire.Message") -> None:
        """Does one request and queues its reply."""
        kind = message.kind
        try:
            payload = self._perform(connection, message)
            if len(payload) > wire.PAYLOAD_MAX:
                raise Refused("E2BIG")
        except Refused as error:
            kind = wire.ERROR
            payload = error.name.encode() + b"\0"
        connection.reply(kind, message.request, message.transaction, payload)
        if kind == wire.WATCH:
            connection.watches[-1].fire_itself()

    def _perform(self, connection: Connection, message: "wire.Message") -> bytes:
        entry = _REQUESTS.get(message.kind)
        if entry is None:
            raise Refused("ENOSYS")
        handler, privileged, transactional = entry
        if privileged and not connection.privileged:
            raise Refused("EACCES")
        view: View = self.contents
        if transactional and message.transaction:
            overlay = connection.transactions.get(message.transaction)
            if overlay is None:
                raise Refused("ENOENT")
            view = overlay
        return handler(self, connection, view, message)

    # nodes

    def _directory(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        return view.get(connection.domid, self._path(connection, message)).children

    def _directory_part(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        path, offset = self._arguments(message, 2)
        node = view.get(connection.domid, self._tree_path(connection, path))
        start = wire.number(offset)
        head = b"%d\0" % node.generation
        names = node.children[start : start + wire.PAYLOAD_MAX - len(head) - 1]
        names = names[: names.rfind(b"\0") + 1]
        if start + len(names) >= len(node.children):
            names += b"\0"
        return head + names

    def _read(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        return view.get(connection.domid, self._path(connection, message)).value

    def _write(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        end = message.payload.find(b"\0")
        if end < 0:
            raise Refused("EINVAL")
        path = self._tree_path(connection, message.payload[:end])
        return self._done(view, view.put(connection.domid, path, message.payload[end + 1 :]))

    def _mkdir(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        return self._done(view, view.make(connection.domid, self._path(connection, message)))

    def _rm(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        return self._done(view, view.remove(connection.domid, self._path(connection, message)))

    def _get_perms(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        path = paths.absolute(wire.one_string(message.payload), connection.base)
        permissions = view.get(connection.domid, path).permissions
        return b"".join([wire.format_permission(entry) + b"\0" for entry in permissions])

    def _set_perms(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        words = wire.strings(message.payload)
        if len(words) < 2:
            raise Refused("EINVAL")
        path = paths.absolute(words[0], connection.base)
        permissions = tuple([wire.parse_permission(word) for word in words[1:]])
        return self._done(view, view.set_permissions(connection.domid, path, permissions))

    # watches and transactions

    def _watch(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        words = wire.strings(message.payload)
        if not 2 <= len(words) <= 3:
            raise Refused("EINVAL")
        depth = wire.number(words[2]) if len(words) == 3 else None
        path = paths.absolute(words[0], connection.base)
        if path[:1] != b"@":
            paths.check(path)
        elif len(path) > paths.RELATIVE_MAX or depth not in (None, 1):
            raise Refused("EINVAL")
        if self._watch_of(connection, path, words[1]) is not None:
            raise Refused("EEXIST")
        most = self.limits["watches"] * self.domains.share(connection.domid)
        if not connection.privileged and len(connection.watches) >= most:
            raise Refused("E2BIG")
        watch = Watch(connection, path, words[1], words[0][:1] not in b"/@", depth)
        connection.charge(watch.cost)
        connection.watches.append(watch)
        self.watches.add(watch)
        return wire.OK

    def _unwatch(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        words = wire.strings(message.payload)
        if len(words) < 2:
            raise Refused("EINVAL")
        watch = self._watch_of(connection, paths.absolute(words[0], connection.base), words[1])
        if watch is None:
            raise Refused("ENOENT")
        connection.watches.remove(watch)
        self.watches.remove(watch)
        connection.release(watch.cost)
        return wire.OK

    def _reset_watches(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        connection.forget()
        return wire.OK

    def _transaction_start(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        if message.transaction:
            raise Refused("EBUSY")
        if not connection.privileged and len(connection.transactions) >= self.limits["transactions"]:
            raise Refused("ENOSPC")
        return b"%d\0" % connection.new_transaction(Overlay(self.contents, connection.charge))

    def _transaction_end(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        decision = wire.one_string(message.payload)
        if decision not in (b"T", b"F"):
            raise Refused("EINVAL")
        if not message.transaction:
            raise Refused("ENOENT")
        overlay = connection.end_transaction(message.transaction)
        if decision == b"T":
            self._fire(self.contents.commit(connection.domid, overlay.reads(), overlay.operations))
        return wire.OK

    # domains

    def _introduce(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        words = self._arguments(message, 3)
        domid = self._domid(words[0])
        port = wire.number(words[2])
        if not port:
            raise Refused("EINVAL")
        self.host.introduce(domid, port)
        self.introduce(domid)
        return wire.OK

    def _release(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        domid = self._introduced(message)
        self.host.release(domid)
        self.release(domid)
        return wire.OK

    def _resume(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        self._stopped.discard(self._introduced(message))
        return wire.OK

    def _set_target(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        words = self._arguments(message, 2)
        domid, target = self._domid(words[0]), self._domid(words[1])
        if domid not in self.connections or target not in self.connections:
            raise Refused("ENOENT")
        self.domains.set_target(domid, target)
        return wire.OK

    def _get_domain_path(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        return paths.home(wire.number(wire.one_string(message.payload), 0xFFFF)) + b"\0"

    def _is_domain_introduced(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        domid = wire.number(wire.one_string(message.payload), 0xFFFF)
        return b"T\0" if domid == _DOMID_SELF or domid in self.connections else b"F\0"

    def _control(self, connection: Connection, view: View, message: "wire.Message") -> bytes:
        return control.perform(self, wire.strings(message.payload))

    # helpers

    def _done(self, view: View, changes: "list[Change]") -> bytes:
        """Fires watches for changes of the contents; those of a transaction wait for its commit."""
        if view is self.contents:
            self._fire(changes)
        return wire.OK

    def _fire(self, changes: "list[Change]") -> None:
        for change in changes:
            self.watches.fire(change, self._visible)

    def _fire_special(self, name: bytes, domid: int) -> None:
        node = self.contents.fetch(name)
        if node is not None:
            permissions = (node.permissions,)
            self.watches.fire_special(name, domid, lambda watcher: self._visible(watcher, permissions))

    def _visible(self, domid: int, permissions: "tuple[Permissions, ...]") -> bool:
        return any([self.domains.access(domid, entry) & wire.READ_ACCESS for entry in permissions])

    def _path(self, connection: Connection, message: "wire.Message") -> bytes:
        return self._tree_path(connection, wire.one_string(message.payload))

    def _tree_path(self, connection: Connection, untrusted_path: bytes) -> bytes:
        path = paths.absolute(untrusted_path, connection.base)
        if path[:1] == b"@":
            raise Refused("EINVAL")
        return path

    def _arguments(self, message: "wire.Message", count: int) -> "list[bytes]":
        words = wire.strings(message.payload)
        if len(words) < count:
            raise Refused("EINVAL")
        return words[:count]

    def _domid(self, untrusted_word: bytes) -> int:
        return wire.number(untrusted_word, _DOMID_FIRST_RESERVED - 1)

    def _introduced(self, message: "wire.Message") -> int:
        domid = self._domid(wire.one_string(message.payload))
        if not domid:
            raise Refused("EINVAL")
        if domid not in self.connections:
            raise Refused("ENOENT")
        return domid

    def _watch_of(self, connection: Connection, path: bytes, token: bytes) -> "Watch | None":
        for watch in connection.watches:
            if watch.path == path and watch.token == token:
                return watch
        return None


# request: (handler, only for managers, its transaction id means something)
_REQUESTS: "dict[int, tuple[Handler, bool, bool]]" = {
    wire.CONTROL: (Server._control, True, True),
    wire.DIRECTORY: (Server._directory, False, True),
    wire.READ: (Server._read, False, True),
    wire.GET_PERMS: (Server._get_perms, False, True),
    wire.WATCH: (Server._watch, False, False),
    wire.UNWATCH: (Server._unwatch, False, False),
    wire.TRANSACTION_START: (Server._transaction_start, False, True),
    wire.TRANSACTION_END: (Server._transaction_end, False, True),
    wire.INTRODUCE: (Server._introduce, True, True),
    wire.RELEASE: (Server._release, True, True),
    wire.GET_DOMAIN_PATH: (Server._get_domain_path, False, True),
    wire.WRITE: (Server._write, False, True),
    wire.MKDIR: (Server._mkdir, False, True),
    wire.RM: (Server._rm, False, True),
    wire.SET_PERMS: (Server._set_perms, False, True),
    wire.IS_DOMAIN_INTRODUCED: (Server._is_domain_introduced, True, True),
    wire.RESUME: (Server._resume, True, True),
    wire.SET_TARGET: (Server._set_target, True, True),
    wire.RESET_WATCHES: (Server._reset_watches, False, True),
    wire.DIRECTORY_PART: (Server._directory_part, False, True),
}
