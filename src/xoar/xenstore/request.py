"""One request of a client, and what Logic can have State do for it. A part of the state.

Logic is not trusted. It never says who asks, or in which transaction: that is what the gate read from the
client's own ring. State checks access, quotas and paths itself.

A request has one operation. It is carried out once; whoever asks for the same one again, because Logic was
rolled back before it answered, gets the same outcome, and any other is refused.
"""

from xoar.messages.schema import BY_NAME
from xoar.xenstore import paths
from xoar.xenstore.errors import Refused
from xoar.xenstore.overlay import Overlay
from xoar.xenstore.watches import Watch
from xoar.xenstore.wire import PAYLOAD_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.xenstore.connection import Connection
    from xoar.xenstore.domains import Permissions
    from xoar.xenstore.gate import Gate
    from xoar.xenstore.logic import Asked
    from xoar.xenstore.nodes import Change, View
    from xoar.xenstore.wire import Message

    Outcome = tuple[Any, ...]
    """The result's fields; their order is that of the message that carries them."""

ANY_DEPTH = 0xFFFFFFFF
"""The depth of a watch of everything below its path."""

_ASKED = BY_NAME["store_request"].record.value
_DONE: "Outcome" = ()
_MAX_ACCESS = 3
_DOMID_FIRST_RESERVED = 0x7FF0


class Request:
    """A request of `connection` that Logic has been handed and has not answered; methods are operations."""

    def __init__(self, number: int, gate: "Gate", connection: "Connection", message: "Message") -> None:
        self.number = number
        self.connection = connection
        self.message = message
        self.asked = self._describe()
        self.tries = 0
        self.cancelled = False
        self.watch: "Watch | None" = None
        self._gate = gate
        self._operation: "tuple[str, tuple[Any, ...]] | None" = None
        self._outcome: "Outcome" = _DONE
        self._refusal = ""

    def operate(self, kind: str, arguments: "tuple[Any, ...]") -> "Outcome":
        """Carries out the request's operation, or returns its outcome again. Raises Refused."""
        if self.cancelled:
            raise Refused("EIO")
        if self._operation is None:
            self._operation = (kind, arguments)
            try:
                self._outcome = self._perform(kind, arguments)
            except Refused as error:
                self._refusal = error.name
        elif self._operation != (kind, arguments):
            raise Refused("EIO")
        if self._refusal:
            raise Refused(self._refusal)
        return self._outcome

    def _describe(self) -> "Asked":
        """The request as Logic is told of it: the same each time, though its operation may change things."""
        connection, message = self.connection, self.message
        transaction = "none"
        if message.transaction:
            transaction = "open" if message.transaction in connection.transactions else "unknown"
        manager = int(connection.privileged)
        asked: "Asked" = _ASKED(connection.domid, manager, transaction, message.kind, message.payload)
        return asked

    def _perform(self, kind: str, arguments: "tuple[Any, ...]") -> "Outcome":
        operation, for_managers = _OPERATIONS[kind]
        if for_managers and not self.connection.privileged:
            raise Refused("EACCES")
        return operation(self, *arguments)

    # nodes

    def read(self, path: bytes) -> "Outcome":
        """The value."""
        return (self._view().get(self.connection.domid, _in_tree(path)).value,)

    def children(self, path: bytes, start: int) -> "Outcome":
        """Generation, size of the whole list of children's names, and a page of it, from byte `start` on."""
        node = self._view().get(self.connection.domid, _in_tree(path))
        return node.generation, len(node.children), node.children[start : start + PAYLOAD_MAX]

    def get_permissions(self, path: bytes) -> "Outcome":
        """The permissions; special nodes have some, too."""
        return (self._view().get(self.connection.domid, path).permissions,)

    def put(self, path: bytes, value: bytes) -> "Outcome":
        """Stores a value."""
        return self._changed(self._view().put(self.connection.domid, _in_tree(path), value))

    def make(self, path: bytes) -> "Outcome":
        """Makes sure that a node exists."""
        return self._changed(self._view().make(self.connection.domid, _in_tree(path)))

    def remove(self, path: bytes) -> "Outcome":
        """Removes a node and all below it."""
        return self._changed(self._view().remove(self.connection.domid, _in_tree(path)))

    def set_permissions(self, path: bytes, permissions: "Permissions") -> "Outcome":
        """Replaces a node's permissions."""
        permissions = tuple([(domid, access) for domid, access in permissions])
        if not permissions or max([access for _, access in permissions]) > _MAX_ACCESS:
            raise Refused("EINVAL")
        return self._changed(self._view().set_permissions(self.connection.domid, path, permissions))

    # transactions and watches

    def begin(self) -> "Outcome":
        """Opens a transaction: its number."""
        connection, limits = self.connection, self._gate.limits
        if not connection.privileged and len(connection.transactions) >= limits["transactions"]:
            raise Refused("ENOSPC")
        return (connection.new_transaction(Overlay(self._gate.contents, connection.charge)),)

    def end(self, commit: int) -> "Outcome":
        """Ends the request's transaction: its changes are made now, all of them or none, or dropped."""
        connection, number = self.connection, self.message.transaction
        if number not in connection.transactions:
            raise Refused("ENOENT")
        overlay = connection.end_transaction(number)
        if commit:
            contents = self._gate.contents
            self._gate.fire(contents.commit(connection.domid, overlay.reads(), overlay.operations))
        return _DONE

    def set_watch(self, path: bytes, token: bytes, depth: int, relative: int) -> "Outcome":
        """Registers a watch, which fires once the request has been answered."""
        connection = self.connection
        if path[:1] != b"@":
            paths.check(path)
        elif len(path) > paths.RELATIVE_MAX:
            raise Refused("EINVAL")
        if relative and not path.startswith(connection.base + b"/"):
            raise Refused("EINVAL")
        if connection.watch_of(path, token) is not None:
            raise Refused("EEXIST")
        most = self._gate.limits["watches"] * self._gate.domains.share(connection.domid)
        if not connection.privileged and len(connection.watches) >= most:
            raise Refused("E2BIG")
        watch = Watch(connection, path, token, relative, None if depth == ANY_DEPTH else depth)
        connection.charge(watch.cost)
        connection.watches.append(watch)
        self._gate.watches.add(watch)
        self.watch = watch
        return _DONE

    def unwatch(self, path: bytes, token: bytes) -> "Outcome":
        """Removes a watch."""
        watch = self.connection.watch_of(path, token)
        if watch is None:
            raise Refused("ENOENT")
        self.connection.drop_watch(watch)
        return _DONE

    def forget(self) -> "Outcome":
        """Drops the client's watches and transactions."""
        self.connection.forget()
        return _DONE

    # for managers: domains, quotas, the log

    def introduce(self, domid: int, port: int) -> "Outcome":
        """Makes a domain known."""
        if domid >= _DOMID_FIRST_RESERVED:
            raise Refused("EINVAL")
        self._gate.host.introduce(domid, port)
        self._gate.introduce(domid)
        return _DONE

    def release(self, domid: int) -> "Outcome":
        """A domain is gone."""
        self._require_introduced(domid)
        self._gate.host.release(domid)
        self._gate.release(domid)
        return _DONE

    def resume(self, domid: int) -> "Outcome":
        """A domain that stopped runs again."""
        self._require_introduced(domid)
        self._gate.resumed(domid)
        return _DONE

    def set_target(self, domid: int, target: int) -> "Outcome":
        """Lets a device model do what its guest may."""
        if domid not in self._gate.connections or target not in self._gate.connections:
            raise Refused("ENOENT")
        self._gate.domains.set_target(domid, target)
        return _DONE

    def is_introduced(self, domid: int) -> "Outcome":
        """Whether a domain is known: 1 or 0."""
        return (int(domid in self._gate.connections),)

    def limits(self) -> "Outcome":
        """All quotas: (name, value)."""
        limits = self._gate.limits
        return (tuple([(name, limits[name]) for name in sorted(limits)]),)

    def set_limit(self, name: str, value: int) -> "Outcome":
        """Changes a quota."""
        if name not in self._gate.limits or not value:
            raise Refused("EINVAL")
        self._gate.limits[name] = value
        return _DONE

    def usage(self, domid: int) -> "Outcome":
        """What a domain owns: nodes, bytes; and whether it has a ring (1 or 0), its watches, transactions."""
        account = self._gate.domains.accounts.get(domid)
        if account is None:
            raise Refused("ENOENT")
        client = self._gate.connections.get(domid)
        if client is None:
            return account.nodes, account.memory, 0, 0, 0
        return account.nodes, account.memory, 1, len(client.watches), len(client.transactions)

    def check(self) -> "Outcome":
        """Logs what is inconsistent."""
        for problem in self._gate.contents.problems():
            self._gate.host.log("xenstore: inconsistent: " + problem)
        return _DONE

    def log(self, text: str) -> "Outcome":
        """Logs a line of the client's."""
        self._gate.host.log("xenstore: control: " + text)
        return _DONE

    # helpers

    def _view(self) -> "View":
        number = self.message.transaction
        if not number:
            return self._gate.contents
        if number not in self.connection.transactions:
            raise Refused("ENOENT")
        return self.connection.transactions[number]

    def _changed(self, changes: "list[Change]") -> "Outcome":
        """Fires watches for changes of the contents; those of a transaction wait for its commit."""
        if not self.message.transaction:
            self._gate.fire(changes)
        return _DONE

    def _require_introduced(self, domid: int) -> None:
        if not domid:
            raise Refused("EINVAL")
        if domid not in self._gate.connections:
            raise Refused("ENOENT")


def _in_tree(path: bytes) -> bytes:
    """The path, unless it is that of a special node."""
    if path[:1] == b"@":
        raise Refused("EINVAL")
    return path


# by the name of the message that asks for it: (operation, only for managers)
_OPERATIONS: "dict[str, tuple[Callable[..., Outcome], bool]]" = {
    "store_read": (Request.read, False),
    "store_list": (Request.children, False),
    "store_get_permissions": (Request.get_permissions, False),
    "store_put": (Request.put, False),
    "store_make": (Request.make, False),
    "store_remove": (Request.remove, False),
    "store_set_permissions": (Request.set_permissions, False),
    "store_begin": (Request.begin, False),
    "store_end": (Request.end, False),
    "store_watch": (Request.set_watch, False),
    "store_unwatch": (Request.unwatch, False),
    "store_forget": (Request.forget, False),
    "store_introduce": (Request.introduce, True),
    "store_release": (Request.release, True),
    "store_resume": (Request.resume, True),
    "store_set_target": (Request.set_target, True),
    "store_is_introduced": (Request.is_introduced, True),
    "store_limits": (Request.limits, True),
    "store_set_limit": (Request.set_limit, True),
    "store_usage": (Request.usage, True),
    "store_check": (Request.check, True),
    "store_log": (Request.log, True),
}
