"""Requests to Builder and their answers, several at a time."""

from xoar.messages.codec import Message
from xoar.messages.errors import EIO
from xoar.messages.schema import BY_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.channel import Channel

    Answered = Callable[[Message], None]


RENEWED = "Builder was restarted while it worked on this; try again"


class Builder:
    """The Toolstack's view of its link to Builder."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._last = 0
        self._answered: "dict[int, Answered]" = {}
        self._unsent: "list[tuple[int, str, dict[str, Any]]]" = []

    def ask(self, kind: str, answered: "Answered", **fields: "Any") -> None:
        """Sends a request; `answered(message)` is called once, with the reply or an `error`."""
        self._last = self._last % 0xFFFFFFFF + 1
        self._answered[self._last] = answered
        self._unsent.append((self._last, kind, fields))
        self.flush()

    @property
    def idle(self) -> bool:
        """Whether nothing is unanswered."""
        return not self._answered and not self._unsent

    def flush(self) -> None:
        """Sends what waits for room in the link."""
        while self._unsent and not self._channel.broken:
            id, kind, fields = self._unsent[0]
            if not self._channel.send(kind, id, **fields):
                break
            self._unsent.pop(0)
        self._channel.flush()

    def answer(self, message: "Message") -> None:
        """Passes a reply on; one that nobody waits for is dropped."""
        answered = self._answered.pop(message.id, None)
        if answered is not None:
            answered(message)

    def renewed(self) -> None:
        """The other end has begun anew: what it was asked is refused, not what is asked because of that."""
        answered, self._answered, self._unsent = self._answered, {}, []
        for id in sorted(answered):
            answered[id](Message("error", id, BY_NAME["error"].record.value(EIO, RENEWED)))

    def fail_all(self, text: str) -> bool:
        """The link is broken: every request is answered with an `error`, those made meanwhile included.

        Returns whether there was any.
        """
        progress = bool(self._answered)
        while self._answered:
            id = next(iter(self._answered))
            self.answer(Message("error", id, BY_NAME["error"].record.value(EIO, text)))
        self._unsent = []
        return progress
