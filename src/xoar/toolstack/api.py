"""Operators' requests: streams that Console relays, messages in them, one answer for each request.

Console vouches for the stream's number; what is in a stream is the operator's and untrusted until decoded.
A tenant's Toolstack takes sealed streams only (xoar.messages.seal): Console can't speak for its operators.
The number of streams, of unanswered requests and of unsent bytes of each is bounded.
"""

from xoar.messages.codec import Decoder, encode, encode_error
from xoar.messages.errors import EBUSY, EIO, EPERM, MessageError
from xoar.messages.schema import accepted
from xoar.messages.seal import NONCE_SIZE, TO_OPERATOR, TO_TOOLSTACK, Seal, hmac, stream_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message

    Handlers = dict[str, Callable[[Any, "Request"], None]]

MAX_STREAMS = 64
_MAX_UNANSWERED = 16
_MAX_UNSENT = 65536
_PIECE = 4096
_MAX_REPORTS = 16


class Stream:
    """One operator's byte stream."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.decoder = Decoder()
        self.unanswered = 0
        self.unsent = b""
        self.ending = False
        self.seal: "Seal | None" = None
        # the guest whose console the stream becomes when it ends, until Console knows: domid, and what of it
        self.successor: "tuple[int, str] | None" = None

    @property
    def overfull(self) -> bool:
        """Whether its operator leaves so many answers unread that it must be ended."""
        return len(self.unsent) > _MAX_UNSENT

    @property
    def idle(self) -> bool:
        """Whether its next message can be served by who knows nothing of it."""
        busy = self.unanswered or self.unsent or self.ending or self.seal is not None
        return not busy and self.decoder.between

    def send(self, frame: bytes) -> None:
        """Queues a message."""
        self.unsent += frame if self.seal is None else frame + self.seal.tag(frame)


class Request:
    """One request that waits for its answer; the stream may be gone by then, which does no harm.

    Only the first answer counts.
    """

    def __init__(self, stream: Stream, id: int) -> None:
        self._stream = stream
        self._id = id
        self._answered = False
        stream.unanswered += 1

    def answer(self, kind: str, **fields: "Any") -> None:
        """Sends the reply."""
        self._send(encode(kind, self._id, **fields))

    def refuse(self, errno: int, text: str) -> None:
        """Sends `error`."""
        self._send(encode_error(self._id, errno, text))

    def _send(self, frame: bytes) -> None:
        if self._answered:
            return
        self._answered = True
        self._stream.unanswered -= 1
        self._stream.send(frame)

    def become(self, domid: int, what: str) -> None:
        """Answers `done`; after that the stream is a guest's console (records.CONSOLE)."""
        self.answer("done")
        self._stream.successor = (domid, what)
        self._stream.ending = True


class Key:
    """What a tenant's operators have, who must show it; `unique()` gives bytes that it never gave before."""

    def __init__(self, key: bytes, unique: "Callable[[], bytes]") -> None:
        self.key = key
        self._unique = unique

    def challenge(self) -> bytes:
        """A number that nobody can know before."""
        return hmac(self.key, b"xoar challenge" + self._unique())[:NONCE_SIZE]


class Operators:
    """All streams on the link to Console. `handlers` deal with one kind each, given fields and request;
    `role` is the shard's, as routes have it; without a `key` streams are not sealed."""

    def __init__(
        self, relay: "Channel", handlers: "Handlers", role: str = "toolstack", key: "Key | None" = None
    ) -> None:
        self._relay = relay
        self._handlers = handlers
        self._accepted = accepted("operator", role)
        self._key = key
        self._streams: "dict[int, Stream]" = {}
        self._reports = 0

    @property
    def idle(self) -> bool:
        """Whether all is answered and sent, no message has come in part, and each stream can go on without
        what is known of it here: a sealed one can't."""
        return all([stream.idle for stream in self._streams.values()])

    def receive(self, message: "Message") -> None:
        """Takes one message from Console."""
        if message.kind == "hangup":
            self._streams.pop(message.fields.channel, None)
        elif message.kind == "relay":
            self._piece(message.fields.channel, message.fields.data)

    def forget(self) -> None:
        """Console has begun anew: nobody is at the other end of these streams."""
        self._streams.clear()

    def flush(self) -> None:
        """Sends answers as far as the link takes them."""
        for number in list(self._streams):
            stream = self._streams[number]
            while stream.unsent and self._attached(stream):
                piece = stream.unsent[:_PIECE]
                if not self._relay.send("relay", 0, channel=number, data=piece):
                    break
                stream.unsent = stream.unsent[_PIECE:]
            done = stream.overfull or (stream.ending and not stream.unsent)
            if done and self._relay.send("hangup", 0, channel=number):
                del self._streams[number]
        self._relay.flush()

    def _attached(self, stream: Stream) -> bool:
        """Tells Console whose console a stream becomes, before the last piece of its answer: what an operator
        sends who has that is for the console. False if there is no room."""
        if stream.successor is None or len(stream.unsent) > _PIECE:
            return True
        domid, what = stream.successor
        if not self._relay.send("attach", 0, channel=stream.number, domid=domid, what=what):
            return False
        stream.successor = None
        return True

    def _piece(self, number: int, untrusted_data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            if len(self._streams) >= MAX_STREAMS:
                self._relay.send("hangup", 0, channel=number)
                return
            stream = self._streams[number] = Stream(number)
        if stream.ending:
            return
        stream.decoder.feed(untrusted_data)
        while True:
            try:
                message = stream.decoder.next()
            except MessageError as error:
                Request(stream, error.id).refuse(error.errno, str(error))
                if error.fatal:
                    self._say("an operator's stream is ended: %s" % error)
                    stream.ending = True
                    return
                continue
            if message is None:
                return
            if self._key is not None and stream.seal is None:
                if not self._begin(stream, message, self._key):
                    return
                continue
            request = Request(stream, message.id)
            try:
                self._handle(message, request, stream)
            except Exception as error:
                # a bug must not end the management of all guests
                print("toolstack: bug while serving %s: %s" % (message.kind, repr(error)))
                request.refuse(EIO, "a bug in the Toolstack: %s" % repr(error))

    def _begin(self, stream: Stream, message: "Message", key: Key) -> bool:
        """The first message of a stream that must be sealed."""
        request = Request(stream, message.id)
        if message.kind != "greet":
            text = "this Toolstack serves who has its tenant's key: name the tenant, and use its key"
            request.refuse(EPERM, text)
            self._say("an operator's stream is ended: it has no key")
            stream.ending = True
            return False
        challenge = key.challenge()
        request.answer("challenge", nonce=challenge)
        own = stream_key(key.key, message.fields.nonce, challenge)
        stream.decoder.seal, stream.seal = Seal(own, TO_TOOLSTACK), Seal(own, TO_OPERATOR)
        return True

    def _say(self, text: str) -> None:
        if self._reports < _MAX_REPORTS:
            self._reports += 1
            print("toolstack: " + text)

    def _handle(self, message: "Message", request: Request, stream: Stream) -> None:
        kind, fields = message.kind, message.fields
        if kind not in self._accepted or kind not in self._handlers:
            request.refuse(EPERM, "an operator may not send %s" % kind)
        elif stream.unanswered > _MAX_UNANSWERED:
            request.refuse(EBUSY, "%d requests of this stream are unanswered" % _MAX_UNANSWERED)
        else:
            self._handlers[kind](fields, request)
