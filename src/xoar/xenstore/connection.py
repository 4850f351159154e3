"""One client as the gate sees it: bytes in, bytes out, and what the client has open. No I/O.

What a client can make the server keep is bounded. Replies: no further request is taken while more than half
of the output limit is unread. Watch events: an event that is waiting already is not queued twice; one that
finds no room is dropped, and its watch remembered: once there is room again, the watch fires for the path
that it watches, so that a slow client has to look again but never misses a change.
"""

from xoar.xenstore import paths, wire
from xoar.xenstore.errors import ProtocolError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xenstore.gate import Gate
    from xoar.xenstore.overlay import Overlay
    from xoar.xenstore.watches import Watch


class Connection:
    """A client. `domid` is who it is for all access checks: what Xen, or the socket's owner, vouches for."""

    def __init__(self, gate: "Gate", domid: int) -> None:
        self.domid = domid
        self.base = paths.home(domid)
        self.watches: "list[Watch]" = []
        self.transactions: "dict[int, Overlay]" = {}
        self._gate = gate
        self._decoder = wire.Decoder()
        self._queue: "list[bytes]" = []
        self._queued = 0
        self._sent = 0
        self._waiting_events: "set[bytes]" = set()
        self._lost: "list[Watch]" = []
        self._buffers = 0
        self._next_transaction = 1
        self._failure: "Exception | None" = None

    @property
    def privileged(self) -> bool:
        """Whether the client may do everything."""
        return self._gate.domains.manages(self.domid)

    @property
    def wants_input(self) -> bool:
        """Whether bytes are taken: not while a request waits, or the client leaves too much unread."""
        return self._decoder.waiting < wire.MESSAGE_MAX and self._has_room

    @property
    def _has_room(self) -> bool:
        """Whether there is room for the reply to a request."""
        return self._queued <= self._gate.limits["output"] // 2

    def receive(self, untrusted_data: bytes) -> None:
        """Takes bytes from the client. Requests that are complete are answered as far as there is room for
        replies; call it again, without data, once output has been sent.

        Raises ProtocolError if the client can't be talked to any more, and what `fail` was given.
        """
        if untrusted_data:
            self._decoder.feed(untrusted_data)
        self._gate.asks(self)
        self.check()

    def check(self) -> None:
        """Raises what went wrong with the connection, if something did."""
        if self._failure is not None:
            raise self._failure

    def fail(self, failure: Exception) -> None:
        """The connection can't go on: whoever moves its bytes will see that."""
        self._failure = failure
        self._gate.look_at(self)

    def next_request(self) -> "wire.Message | None":
        """The next complete request, if there is one and room for the reply to it."""
        try:
            return self._decoder.next() if self._has_room else None
        except ProtocolError as error:
            self.fail(error)
            return None

    def output(self) -> bytes:
        """The next bytes for the client; empty if there are none."""
        if not self._queue:
            return b""
        return self._queue[0][self._sent :] if self._sent else self._queue[0]

    def sent(self, count: int) -> None:
        """`count` bytes of `output()` are on their way."""
        self._sent += count
        if self._queue and self._sent == len(self._queue[0]):
            message = self._queue[0]
            # a new list: if an old one shrinks, MicroPython's allocator searches the heap from there again
            self._queue = self._queue[1:]
            self._queued -= len(message)
            self._sent = 0
            self._waiting_events.discard(message)
            if self._lost and self._has_room:
                self._make_up()

    def reply(self, kind: int, request: int, transaction: int, payload: bytes) -> None:
        """Queues the answer to a request."""
        self._enqueue(wire.encode(kind, request, transaction, payload))

    def event(self, watch: "Watch", path: bytes) -> None:
        """Queues a watch event, unless the same one waits already."""
        payload = path + b"\0" + watch.token + b"\0"
        if len(payload) > wire.PAYLOAD_MAX:
            self._lose(watch)
            return
        message = wire.encode(wire.WATCH_EVENT, 0, 0, payload)
        if message in self._waiting_events:
            return
        if self._queue and self._queued + len(message) > self._gate.limits["output"]:
            self._lose(watch)
            return
        self._waiting_events.add(message)
        self._enqueue(message)

    def charge(self, amount: int) -> None:
        """Accounts for memory that watches and transactions take. Raises Refused(ENOSPC) beyond the quota."""
        most = self._gate.limits["buffers"] * self._gate.domains.share(self.domid)
        if not self.privileged and self._buffers + amount > most:
            raise Refused("ENOSPC")
        self._buffers += amount

    def release(self, amount: int) -> None:
        """Takes back a charge."""
        self._buffers -= amount

    def new_transaction(self, overlay: "Overlay") -> int:
        """Opens a transaction and returns its number, 1 or more."""
        while self._next_transaction in self.transactions:
            self._next_transaction = self._next_transaction % 0xFFFFFFFF + 1
        number = self._next_transaction
        self._next_transaction = number % 0xFFFFFFFF + 1
        self.transactions[number] = overlay
        return number

    def end_transaction(self, number: int) -> "Overlay":
        """Closes an open transaction."""
        overlay = self.transactions.pop(number)
        self.release(overlay.cost)
        return overlay

    def watch_of(self, path: bytes, token: bytes) -> "Watch | None":
        """The watch of this path with this token, if there is one."""
        for watch in self.watches:
            if watch.path == path and watch.token == token:
                return watch
        return None

    def drop_watch(self, watch: "Watch") -> None:
        """Removes a watch."""
        self.watches.remove(watch)
        self._gate.watches.remove(watch)
        self.release(watch.cost)

    def forget(self) -> None:
        """Drops watches and transactions (RESET_WATCHES)."""
        for watch in self.watches:
            self._gate.watches.remove(watch)
            self.release(watch.cost)
        self.watches = []
        self._lost = []
        for number in list(self.transactions):
            self.end_transaction(number)

    def reset(self) -> None:
        """Back to how it was when it was new: nothing received, nothing to send, nothing open."""
        self.forget()
        self._gate.forget(self)
        self._failure = None
        self._decoder = wire.Decoder()
        self._queue = []
        self._queued = 0
        self._sent = 0
        self._waiting_events = set()

    def _enqueue(self, message: bytes) -> None:
        if not self._queue:
            self._gate.look_at(self)
        self._queue.append(message)
        self._queued += len(message)

    def _lose(self, watch: "Watch") -> None:
        if not watch.lost:
            watch.lost = True
            self._lost.append(watch)
            if not self._queue:
                self._make_up()

    def _make_up(self) -> None:
        lost, self._lost = self._lost, []
        for watch in lost:
            watch.lost = False
            if watch in self.watches:
                watch.fire_itself()
