"""A kind of message."""

from xoar.messages.fields import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Kind:
    """One row of the table. `routes` are pairs (sender, receiver); replies get theirs from the requests."""

    def __init__(
        self,
        number: int,
        name: str,
        meaning: str,
        fields: "tuple[tuple[str, Any], ...]" = (),
        routes: "tuple[tuple[str, str], ...]" = (),
        right: str = "",
        reply: str = "",
    ) -> None:
        self.number = number
        self.name = name
        self.meaning = meaning
        self.record = Record(name, *fields)
        self.routes = routes
        self.right = right
        self.reply = reply
