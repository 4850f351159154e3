"""A server in this process, spoken to with the wire's messages."""

from collections.abc import Callable

from xoar.xenstore import wire
from xoar.xenstore.connection import Connection
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import Host
from xoar.xenstore.quotas import quotas
from xoar.xenstore.server import Server


def new_server(host: Host | None = None, **limits: int) -> Server:
    """A server whose only manager is domain 0."""
    return Server(Domains({0}), quotas(**limits), host)


class Peer:
    """A client at the other end of a connection. `settle` lets the server do what it was asked."""

    def __init__(self, connection: Connection, settle: Callable[[], None] = lambda: None) -> None:
        self.connection = connection
        self._settle = settle
        self._events: list[tuple[bytes, bytes]] = []

    def call(self, kind: int, *words: bytes, transaction: int = 0, tail: bytes = b"") -> bytes:
        """The reply's payload. Raises Refused."""
        payload = b"".join(word + b"\0" for word in words) + tail
        self.connection.receive(wire.encode(kind, 77, transaction, payload))
        self._settle()
        replies = self._drain()
        assert len(replies) == 1
        reply = replies[0]
        assert (reply.request, reply.transaction) == (77, transaction)
        if reply.kind == wire.ERROR:
            raise Refused(reply.payload[:-1].decode())
        assert reply.kind == kind
        return reply.payload

    def refusal(self, kind: int, *words: bytes, transaction: int = 0) -> str | None:
        """The error's name, None if the request is done."""
        try:
            self.call(kind, *words, transaction=transaction)
        except Refused as error:
            return error.name
        return None

    def events(self) -> list[tuple[bytes, bytes]]:
        """(path, token) of the watches that fired since this was last asked."""
        assert self._drain() == []
        events, self._events = self._events, []
        return events

    def _drain(self) -> list[wire.Message]:
        decoder = wire.Decoder()
        while data := self.connection.output():
            decoder.feed(data)
            self.connection.sent(len(data))
        replies = []
        while (message := decoder.next()) is not None:
            if message.kind == wire.WATCH_EVENT:
                path, token = wire.strings(message.payload)
                self._events.append((path, token))
            else:
                replies.append(message)
        return replies
