"""State's end of the link to Logic: hands requests out, carries out operations, takes answers.

Whatever comes from Logic, the worst is that the one request that it has gets a wrong answer.
"""

from xoar.messages.errors import ENOENT
from xoar.messages.schema import BY_NAME
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import LogicPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message
    from xoar.xenstore.gate import Gate
    from xoar.xenstore.request import Request


ROLLBACK_TIME = 30_000_000_000
"""Nanoseconds after which nobody rolls Logic back any more; it takes milliseconds."""


DOUBT = 500_000_000
"""Nanoseconds for which nonsense in the link's page may come of a rollback that somebody else asked for: its
page is put back some milliseconds before State is told."""


class LogicLink(LogicPort):
    """`restart()` has Logic rolled back, whatever it is doing; then a new channel comes with `started`.

    `after` is the number of requests after which that is to happen, 0: only when Logic fails. `patience` is
    the time that Logic has for a request, 0: any; `now()` is the clock that it is measured with.
    """

    def __init__(
        self,
        restart: "Callable[[], None]",
        after: int = 0,
        patience: int = 0,
        now: "Callable[[], int]" = lambda: 0,
    ) -> None:
        self.after = after
        self._restart = restart
        self._patience = patience
        self._now = now
        self._due: "int | None" = None  # an answer, or, without a channel, a rollback
        self._channel: "Channel | None" = None
        self.doubted = False
        """Whether Logic is about to be rolled back for what is in the page, not for its silence."""

    def started(self, gate: "Gate", channel: "Channel") -> None:
        """Logic is as it was at first, and so is the link to it."""
        blameless = self._channel is not None
        self._channel = channel
        self.doubted = False
        gate.logic_started(blameless)

    def hand(self, gate: "Gate", request: "Request") -> None:
        """Sends a request to Logic."""
        if self._channel is None:
            request.tries -= 1  # it is handed out again once there is a Logic
            return
        if not self.doubted:
            self._due = self._now() + self._patience if self._patience else None
        self._send("store_request", request.number, request.asked)

    def roll_back(self, gate: "Gate") -> None:
        """Lets go of Logic, and of whatever it still sends."""
        self._channel = None
        self._due = self._now() + ROLLBACK_TIME if self._patience else None
        self._restart()

    def deadline(self, gate: "Gate") -> "int | None":
        """When Logic will have had too long for its request, or who rolls it back for that; None if nobody
        waits for either."""
        return self._due if self._channel is None or gate.outstanding or self.doubted else None

    def overdue(self, gate: "Gate") -> bool:
        """Whether Logic has had too long for its request; True once each time that it is handed one."""
        return self._channel is not None and self._passed(gate)

    def abandoned(self, gate: "Gate") -> bool:
        """Whether a rollback has taken too long; True once for each, and requests are refused until it is
        done."""
        if self._channel is not None or not self._passed(gate):
            return False
        gate.logic_lost()
        return True

    def _passed(self, gate: "Gate") -> bool:
        due = self.deadline(gate)
        if due is None or self._now() < due:
            return False
        self._due = None
        return True

    def receive(self, gate: "Gate") -> bool:
        """Deals with what Logic has sent, unless it leaves our answers unread; True if there is more."""
        channel = self._channel
        if channel is None:
            return False
        channel.flush()
        if channel.congested:
            return False
        for message in channel.receive():
            if channel is self._channel:
                self._take(gate, channel, message)
        if channel.broken and channel is self._channel and not self.doubted:
            if self._patience:
                self.doubted, self._due = True, self._now() + DOUBT
            else:
                self.roll_back(gate)
        return channel.more

    def _take(self, gate: "Gate", channel: "Channel", message: "Message") -> None:
        if not message.id or message.id != gate.outstanding:
            channel.fail(message.id, ENOENT, "there is no such request")
        elif message.kind == "store_answer":
            gate.answer(message.id, "", message.fields.payload)
        elif message.kind == "store_refusal":
            gate.answer(message.id, message.fields.name, b"")
        elif BY_NAME[message.kind].reply:
            self._operate(gate, channel, message)

    def _operate(self, gate: "Gate", channel: "Channel", message: "Message") -> None:
        try:
            outcome = gate.operate(message.id, message.kind, message.fields)
            self._send(BY_NAME[message.kind].reply, message.id, outcome)
        except Refused as error:
            self._send("store_refusal", message.id, (error.name,))
        except Exception as error:
            gate.give_up(error)
            self._send("store_refusal", message.id, ("EIO",))

    def _send(self, kind: str, id: int, values: "tuple[object, ...]") -> None:
        if self._channel is not None:
            names = [name for name, _ in BY_NAME[kind].record.fields]
            self._channel.send(kind, id, **dict(zip(names, values)))
