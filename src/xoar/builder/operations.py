"""Requests of Builder to XenStore and Console, and what happens when they have answered.

Builder never waits: an operation is a few requests with a continuation, which is called once, when all are
answered, one is refused, or it takes too long.
"""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message

    Done = Callable[[str], None]

TIMEOUT = 5 * 1000000000
"""How long servers may take to answer, in ns."""

Call = namedtuple("Call", ("server", "kind", "fields"))
"""A request: the server's name, the kind of message and its fields."""


class _Operation:
    def __init__(self, awaited: "list[tuple[str, int]]", done: "Done") -> None:
        self.awaited = awaited  # server and number of each request that is unanswered
        self.deadline: "int | None" = None  # None: its requests are held back yet
        self.done = done


class Operations:
    """`servers`: their channels, by name; `clock` gives ns."""

    def __init__(self, servers: "dict[str, Channel]", clock: "Callable[[], int]") -> None:
        self._servers = servers
        self._clock = clock
        self._going_on: "list[_Operation]" = []
        self._next = 1

    def start(self, calls: "list[Call]", done: "Done") -> None:
        """Sends the requests; `done` takes "" or what went wrong."""
        awaited = [(call.server, self._send(call)) for call in calls]
        self._going_on.append(_Operation(awaited, done))

    def answered(self, server: str, message: "Message") -> None:
        """A server has answered."""
        key = (server, message.id)
        for operation in self._going_on:
            if key in operation.awaited:
                operation.awaited.remove(key)
                if message.kind == "error":
                    self._finish(operation, "%s: %s" % (server, message.fields.text))
                elif not operation.awaited:
                    self._finish(operation, "")
                return

    def expire(self) -> None:
        """Ends those that have taken too long."""
        now = self._clock()
        for operation in list(self._going_on):
            if operation.deadline is not None and operation.deadline <= now:
                names = [name for name, _ in operation.awaited]
                self._finish(operation, "no answer from %s" % ", ".join(names))

    def sent(self) -> None:
        """Requests that were held back are on their way: now their time begins."""
        deadline = self._clock() + TIMEOUT
        for operation in self._going_on:
            if operation.deadline is None:
                operation.deadline = deadline

    @property
    def idle(self) -> bool:
        """Whether none goes on."""
        return not self._going_on

    def deadlines(self) -> "list[int]":
        """When there is something to expire, of those whose time has begun."""
        return [operation.deadline for operation in self._going_on if operation.deadline is not None]

    def _send(self, call: Call) -> int:
        number = self._next
        self._next = self._next % 0xFFFFFFFF + 1
        self._servers[call.server].send(call.kind, number, **call.fields)
        return number

    def _finish(self, operation: _Operation, trouble: str) -> None:
        self._going_on.remove(operation)
        operation.done(trouble)
