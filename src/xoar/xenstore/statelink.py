"""Logic's end of the link to State: a loop that takes a request, has its operation done, and answers."""

from xoar.messages.schema import BY_NAME
from xoar.xenstore import logic
from xoar.xenstore.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message
    from xoar.xenstore.request import Outcome


class StateLink:
    """`wait()` sleeps until State may have sent something; `report(text)` hears of bugs of ours."""

    def __init__(
        self, channel: "Channel", wait: "Callable[[], None]", report: "Callable[[str], None]" = print
    ) -> None:
        self._channel = channel
        self._wait = wait
        self._report = report
        self._arrived: "list[Message]" = []

    def serve(self) -> None:
        """Waits for one request and answers it."""
        message = self._next()
        while message.kind != "store_request":
            message = self._next()
        number = message.id

        def operate(kind: str, *arguments: object) -> "Outcome":
            return self._operate(number, kind, arguments)

        try:
            refusal, payload = logic.answer(message.fields, operate)
        except Exception as error:
            self._report(
                "bug while answering a request of domain %d: %s" % (message.fields.domid, repr(error))
            )
            refusal, payload = "EIO", b""
        if refusal:
            self._send("store_refusal", number, (refusal,))
        else:
            self._send("store_answer", number, (payload,))

    def _operate(self, number: int, kind: str, arguments: "tuple[object, ...]") -> "Outcome":
        self._send(kind, number, arguments)
        message = self._next()
        while message.id != number:
            message = self._next()
        if message.kind == "store_refusal":
            raise Refused(message.fields.name)
        if message.kind != BY_NAME[kind].reply:
            raise Refused("EIO")
        return tuple(message.fields)

    def _send(self, kind: str, id: int, values: "tuple[object, ...]") -> None:
        names = [name for name, _ in BY_NAME[kind].record.fields]
        self._channel.send(kind, id, **dict(zip(names, values)))
        while not self._channel.flush() and not self._channel.broken:
            self._wait()

    def _next(self) -> "Message":
        while not self._arrived:
            self._arrived = self._channel.receive()
            if not self._arrived:
                self._wait()
        message = self._arrived[0]
        self._arrived = self._arrived[1:]
        return message
