"""Operators' requests: streams that Console relays, messages in them, one answer for each request.

Console vouches for the stream's number; what is in a stream is the operator's and untrusted until decoded.
The number of streams, of unanswered requests and of unsent bytes of each is bounded.
"""

from xoar.messages.codec import Decoder, encode, encode_error
from xoar.messages.errors import EBUSY, EIO, EPERM, MessageError
from xoar.messages.schema import accepted

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
_ACCEPTED = accepted("operator", "toolstack")


class Stream:
    """One operator's byte stream."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.decoder = Decoder()
        self.unanswered = 0
        self.unsent = b""
        self.ending = False

    @property
    def overfull(self) -> bool:
        """Whether its operator leaves so many answers unread that it must be ended."""
        return len(self.unsent) > _MAX_UNSENT


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
        self._stream.unsent += frame


class Operators:
    """All streams on the link from Console. `handlers` deal with one kind each, given fields and request."""

    def __init__(self, relay: "Channel", handlers: "Handlers") -> None:
        self._relay = relay
        self._handlers = handlers
        self._streams: "dict[int, Stream]" = {}

    def receive(self, message: "Message") -> None:
        """Takes one message from Console."""
        if message.kind == "hangup":
            self._streams.pop(message.fields.channel, None)
        elif message.kind == "relay":
            self._piece(message.fields.channel, message.fields.data)

    def flush(self) -> None:
        """Sends answers as far as the link takes them."""
        for number in list(self._streams):
            stream = self._streams[number]
            while stream.unsent:
                piece = stream.unsent[:_PIECE]
                if not self._relay.send("relay", 0, channel=number, data=piece):
                    break
                stream.unsent = stream.unsent[_PIECE:]
            done = stream.overfull or (stream.ending and not stream.unsent)
            if done and self._relay.send("hangup", 0, channel=number):
                del self._streams[number]
        self._relay.flush()

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
                    stream.ending = True
                    return
                continue
            if message is None:
                return
            request = Request(stream, message.id)
            try:
                self._handle(message, request, stream)
            except Exception as error:
                # a bug must not end the management of all guests
                print("toolstack: bug while serving %s: %s" % (message.kind, repr(error)))
                request.refuse(EIO, "a bug in the Toolstack: %s" % repr(error))

    def _handle(self, message: "Message", request: Request, stream: Stream) -> None:
        kind, fields = message.kind, message.fields
        if kind not in _ACCEPTED:
            request.refuse(EPERM, "an operator may not send %s" % kind)
        elif stream.unanswered > _MAX_UNANSWERED:
            request.refuse(EBUSY, "%d requests of this stream are unanswered" % _MAX_UNANSWERED)
        else:
            self._handlers[kind](fields, request)
