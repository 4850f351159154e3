"""Operators' requests that Builder decides and answers; the Toolstack passes both on."""

from xoar.messages.schema import BY_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.guest import Request


class Relayed:
    """Requests to Builder whose answers are the operator's as they are."""

    def __init__(self, builder: "Builder") -> None:
        self._builder = builder

    def ask(self, kind: str, request: "Request", **fields: "Any") -> None:
        """Asks Builder for this, and answers the operator's request with the reply."""

        def answered(message: "Message") -> None:
            if message.kind == "error":
                request.refuse(message.fields.errno, message.fields.text)
                return
            names = [name for name, _ in BY_NAME[message.kind].record.fields]
            request.answer(message.kind, **{name: getattr(message.fields, name) for name in names})

        self._builder.ask(kind, answered, **fields)
