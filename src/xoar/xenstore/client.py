"""The other end of XenStore: requests, replies and watch events over the two byte rings of a link.

For a single-threaded shard. `request` queues, `poll` moves bytes, `take_reply` and `take_event` give what has
come: none of them waits. The helpers below them (`read`, `write`, ...) wait for their reply by calling
`wait`, and watch events that arrive meanwhile queue up.

Paths, tokens and names are str, values bytes. A refusal raises Refused with the error's name, a server that
breaks the protocol ProtocolError, an impossible ring RingError.
"""

from xoar.abi import xen as abi
from xoar.xenstore import wire
from xoar.xenstore.errors import ProtocolError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from xoar.xen.ring import ByteRing, SharedPage

    Result = TypeVar("Result")

_CONNECTION = abi.xenstore_domain_interface.offset("connection") // 4
_ATTEMPTS = 100
_MISSING = "ENOENT"


class Listing:
    """The names of children that come in parts (DIRECTORY_PART): ask from byte `start` on until `take` says
    that `names` are all."""

    def __init__(self) -> None:
        self.names = b""
        self._generation = b""

    @property
    def start(self) -> int:
        """What to ask for next."""
        return len(self.names)

    def take(self, reply: bytes) -> bool:
        """Takes a part; if the node has changed meanwhile, it is asked for from the beginning."""
        end = reply.find(b"\0") + 1
        if reply[:end] != self._generation:
            if self.names:
                self.names = self._generation = b""
                return False
            self._generation = reply[:end]
        self.names += reply[end:]
        if self.names[-2:] == b"\0\0" or self.names == b"\0":
            self.names = self.names[:-1]
            return True
        return False


def reconnect(page: "SharedPage", notify: "Callable[[], object]", wait: "Callable[[], object]") -> None:
    """Has the server begin anew (docs/misc/xenstore-ring.txt): what this domain had asked and watched is
    forgotten, and both rings are empty. `notify` and `wait` as in Client."""
    page.words[_CONNECTION] = abi.XENSTORE_RECONNECT
    while page.words[_CONNECTION] != abi.XENSTORE_CONNECTED:
        notify()
        wait()


class Client:
    """A client of one XenStore link.

    `reader` and `writer` are the rings from and to the server (`ring.xenstore_rings` has them the other way
    round), `notify()` signals the link's event channel, `wait()` returns when the link's event channel may
    have fired; it must keep what other channels' events it sees for its caller.
    """

    def __init__(
        self,
        reader: "ByteRing",
        writer: "ByteRing",
        notify: "Callable[[], object]",
        wait: "Callable[[], object]",
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._notify = notify
        self._wait = wait
        self._decoder = wire.Decoder()
        self._unsent = b""
        self._last_request = 0
        self._replies: "dict[int, wire.Message]" = {}
        self._events: "list[tuple[str, str]]" = []

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or to be taken, and no message has come in part."""
        rest = self._unsent or self._replies or self._events or self._decoder.waiting
        return not rest and not self._reader.readable() and not self._writer.readable()

    def request(self, kind: int, payload: bytes, transaction: int = 0) -> int:
        """Queues a request (wire.READ ...) and returns its number, for `take_reply`."""
        if len(payload) > wire.PAYLOAD_MAX:
            raise Refused("E2BIG")
        self._last_request = self._last_request % 0xFFFFFFFF + 1
        self._unsent += wire.encode(kind, self._last_request, transaction, payload)
        self.poll()
        return self._last_request

    def poll(self) -> bool:
        """Moves what can be moved, both ways; whether anything was."""
        sent = self._writer.write(self._unsent) if self._unsent else 0
        self._unsent = self._unsent[sent:]
        data = self._reader.read(1024)
        if data:
            self._decoder.feed(data)
            self._sort()
        if sent or data:
            self._notify()
            return True
        return False

    def take_reply(self, request: int) -> "bytes | None":
        """The reply to a request, or None if it has not come yet. Raises Refused."""
        message = self._replies.pop(request, None)
        if message is None:
            return None
        if message.kind == wire.ERROR:
            raise Refused(str(message.payload[:-1], "ascii"))
        return message.payload

    def take_event(self) -> "tuple[str, str] | None":
        """The oldest (path, token) of a watch that fired, or None."""
        if not self._events:
            return None
        event = self._events[0]
        self._events = self._events[1:]
        return event

    def call(self, kind: int, payload: bytes, transaction: int = 0) -> bytes:
        """A request's reply, waited for."""
        number = self.request(kind, payload, transaction)
        while True:
            reply = self.take_reply(number)
            if reply is not None:
                return reply
            if not self.poll():
                self._wait()

    def read(self, path: str, transaction: int = 0) -> bytes:
        """The value at a path."""
        return self.call(wire.READ, wire.words(path), transaction)

    def write(self, path: str, value: "str | bytes", transaction: int = 0) -> None:
        """Stores a value; makes what is missing of the path."""
        data = value.encode() if isinstance(value, str) else value
        self.call(wire.WRITE, wire.words(path) + data, transaction)

    def mkdir(self, path: str, transaction: int = 0) -> None:
        """Makes sure that a path exists."""
        self.call(wire.MKDIR, wire.words(path), transaction)

    def rm(self, path: str, transaction: int = 0) -> None:
        """Makes sure that a path and all below it do not exist."""
        try:
            self.call(wire.RM, wire.words(path), transaction)
        except Refused as error:
            if error.name != _MISSING:
                raise

    def exists(self, path: str, transaction: int = 0) -> bool:
        """Whether there is a node at a path."""
        try:
            self.read(path, transaction)
        except Refused as error:
            if error.name != _MISSING:
                raise
            return False
        return True

    def directory(self, path: str, transaction: int = 0) -> "list[str]":
        """The names of a node's children, in no particular order."""
        try:
            names = self.call(wire.DIRECTORY, wire.words(path), transaction)
        except Refused as error:
            if error.name != "E2BIG":
                raise
            names = self._long_directory(path, transaction)
        return [str(name, "ascii") for name in wire.strings(names)]

    def get_perms(self, path: str, transaction: int = 0) -> "list[str]":
        """A node's permissions ("n0", "r5"); the first names its owner."""
        words = wire.strings(self.call(wire.GET_PERMS, wire.words(path), transaction))
        return [str(word, "ascii") for word in words]

    def set_perms(self, path: str, permissions: "list[str]", transaction: int = 0) -> None:
        """Replaces a node's permissions."""
        self.call(wire.SET_PERMS, wire.words(path, *permissions), transaction)

    def watch(self, path: str, token: str) -> None:
        """Sets up a watch: `take_event` gives (path, token) once straight away, and at every change."""
        self.call(wire.WATCH, wire.words(path, token))

    def unwatch(self, path: str, token: str) -> None:
        """Takes a watch back, and its events that wait here."""
        self.call(wire.UNWATCH, wire.words(path, token))
        self._events = [event for event in self._events if event[1] != token]

    def transaction(self, body: "Callable[[int], Result]") -> "Result":
        """Does `body(transaction)`, as often as others interfere, and returns what it returned last.

        Raises Refused(EAGAIN) if others interfered a hundred times.
        """
        for _ in range(_ATTEMPTS):
            number = int(self.call(wire.TRANSACTION_START, b"\0")[:-1])
            try:
                result = body(number)
            except Exception:
                self.call(wire.TRANSACTION_END, b"F\0", number)
                raise
            try:
                self.call(wire.TRANSACTION_END, b"T\0", number)
                return result
            except Refused as error:
                if error.name != "EAGAIN":
                    raise
        raise Refused("EAGAIN")

    def _long_directory(self, path: str, transaction: int) -> bytes:
        listing = Listing()
        while True:
            reply = self.call(wire.DIRECTORY_PART, wire.words(path, "%d" % listing.start), transaction)
            if listing.take(reply):
                return listing.names

    def _sort(self) -> None:
        while True:
            message = self._decoder.next()
            if message is None:
                return
            if message.kind != wire.WATCH_EVENT:
                self._replies[message.request] = message
                continue
            words = wire.strings(message.payload)
            if len(words) < 2:
                raise ProtocolError("a watch event without path and token")
            event = (str(words[0], "ascii"), str(words[1], "ascii"))
            if event not in self._events:
                self._events.append(event)
