"""Messages over the two byte rings of a link between shards.

Nothing that the other end does raises an exception here: a malformed or forbidden message is answered with
`error`, unless it is one itself, an impossible ring or an unknown frame end breaks the channel (`broken` says
why), and what does not fit waits in a bounded queue. The channel never waits; its owner calls `receive` and
`flush` when the link's event channel has fired.
"""

from xoar.messages.codec import MAX_FRAME, Decoder, Message, encode, encode_error
from xoar.messages.errors import EPERM, MessageError
from xoar.messages.schema import accepted
from xoar.xen.ring import RingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.renewal import Renewal
    from xoar.xen.ring import ByteRing

MAX_QUEUE = 4 * MAX_FRAME
"""Bytes that may wait for room in the outgoing ring."""

_RING_READS = 4
_MANY = 1 << 30
_MAX_REPORTS = 16


class Channel:
    """One end of a link. `peer` and `me` are names as the schema's routes have them.

    `notify()` signals the link's event channel; `report(text)` gets one line for each refused message, at
    most 16 in the life of the channel. `renewal`: either end may begin the conversation anew; `renewals`
    counts how often the other end did. While `held`, what is sent waits for the next `flush`.
    """

    def __init__(
        self,
        incoming: "ByteRing",
        outgoing: "ByteRing",
        notify: "Callable[[], None]",
        peer: str,
        me: str,
        report: "Callable[[str], None]" = print,
        renewal: "Renewal | None" = None,
    ) -> None:
        self.broken = ""
        self.more = False
        self.held = False
        self.renewals = 0
        self._received = 0  # messages
        self._emptied = 0  # times that nothing was left in the queue
        self._renewal = renewal
        self._incoming = incoming
        self._outgoing = outgoing
        self._notify = notify
        self._peer = peer
        self._accepted = accepted(peer, me)
        self._decoder = Decoder()
        self._queue = b""
        self._report = report
        self._reports = 0

    @property
    def congested(self) -> bool:
        """Whether the largest message would find no room: a server then leaves requests in the ring."""
        return len(self._queue) + MAX_FRAME > MAX_QUEUE

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way: all that has come was received, all that was sent is in the ring, or
        this end waits to begin anew."""
        return self._silent or (not self._queue and self._decoder.between and not self._arrived())

    @property
    def _silent(self) -> bool:
        """Whether nothing goes either way until the conversation begins anew."""
        return bool(self.broken) or (self._renewal is not None and self._renewal.waits)

    def _arrived(self) -> bool:
        """Whether the ring holds something, if only an impossible offset, which `receive` finds."""
        try:
            return self._incoming.readable() > 0
        except RingError:
            return True

    @property
    def quiet(self) -> bool:
        """Whether it is idle, and the other end has taken all that was sent."""
        try:
            return self.idle and not self._outgoing.readable()
        except RingError:
            return False

    @property
    def unread(self) -> bool:
        """Whether something has come that is to be received."""
        return not self._silent and (self.more or self._arrived())

    @property
    def stalled(self) -> "tuple[int | None, int | None]":
        """Of which message half has come, and of which queue something waits for room in the ring, by numbers
        that never come again; None for each if there is none. It is for the other end to go on."""
        if self._silent:
            return None, None
        return (
            None if self._decoder.between else self._received,
            self._emptied if self._queue else None,
        )

    @property
    def halves(self) -> "tuple[bytes, bytes]":
        """What has come of a message that is not whole yet, and what waits for room in the ring: who is to go
        on in this one's place (a next life) is given them."""
        return self._decoder.part, self._queue

    @halves.setter
    def halves(self, value: "tuple[bytes, bytes]") -> None:
        incoming, self._queue = value
        self._decoder.feed(incoming)

    def renew(self) -> None:
        """Begins the conversation anew: what was on its way either way is lost."""
        assert self._renewal is not None
        self._forget()
        self._renewal.begin()
        self._notify()

    def send(self, kind: str, id: int, **fields: "Any") -> bool:
        """Queues a message and sends what the ring takes; False (nothing queued) if the queue is full.

        Raises MessageError if the values do not fit the schema: a mistake of ours, never of the peer.
        """
        return self._enqueue(encode(kind, id, **fields))

    def fail(self, id: int, errno: int, text: str) -> bool:
        """Answers a request with `error`; any text will do."""
        return self._enqueue(encode_error(id, errno, text))

    def flush(self) -> bool:
        """Moves queued bytes into the ring; True if none are left."""
        if self._queue and not self.broken and self._may_go_on():
            try:
                count = self._outgoing.write(self._queue)
            except RingError as error:
                self._break(str(error))
                return False
            if count:
                self._queue = self._queue[count:]
                self._emptied += int(not self._queue)
                self._notify()
        return not self._queue

    def receive(self, most: int = _MANY) -> "list[Message]":
        """Messages that have arrived, at most so many. `more` is set if there are more already."""
        messages: "list[Message]" = []
        self.more = False
        if not self._may_go_on() or self.broken:
            return messages
        try:
            self._decode(messages, most)
            for _ in range(_RING_READS):
                if len(messages) == most:
                    break
                untrusted_data = self._incoming.read(1024)
                if not untrusted_data:
                    break
                self._notify()
                self._decoder.feed(untrusted_data)
                self._decode(messages, most)
                if self.broken:
                    return messages
            self.more = len(messages) == most or self._incoming.readable() > 0
        except RingError as error:
            self._break(str(error))
        return messages

    def _may_go_on(self) -> bool:
        """Does what the other end wants; whether it has done what this one wants."""
        renewal = self._renewal
        if renewal is None:
            return True
        if renewal.wanted:
            self._forget()
            self._incoming.reset()
            self._outgoing.reset()
            renewal.fulfil()
            self.renewals += 1
            self._notify()
        return not renewal.waits

    def _forget(self) -> None:
        self._decoder = Decoder()
        self._queue = b""
        self.broken = ""

    def _decode(self, messages: "list[Message]", most: int) -> None:
        while len(messages) < most:
            try:
                message = self._decoder.next()
            except MessageError as error:
                self._received += 1
                self._refuse(error.id, error.errno, str(error))
                if error.fatal:
                    self._break(str(error))
                    return
                continue
            if message is None:
                return
            self._received += 1
            if message.kind in self._accepted:
                messages.append(message)
            elif message.kind == "error":  # answered with another, it would go to and fro for ever
                self._say("ignored an error that %s reports" % self._peer)
            else:
                self._refuse(message.id, EPERM, "%s may not send %s" % (self._peer, message.kind))

    def _refuse(self, id: int, errno: int, text: str) -> None:
        self.fail(id, errno, text)
        self._say("refused a message from %s: %s" % (self._peer, text))

    def _break(self, text: str) -> None:
        self.broken = text
        self._queue = b""
        self._say("the link to %s is broken: %s" % (self._peer, text))

    def _say(self, text: str) -> None:
        if self._reports < _MAX_REPORTS:
            self._reports += 1
            self._report(text)

    def _enqueue(self, frame: bytes) -> bool:
        if self.broken or len(self._queue) + len(frame) > MAX_QUEUE:
            return False
        self._queue += frame
        if not self.held:
            self.flush()
        return True
