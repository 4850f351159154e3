"""What Console remembers over a rollback: domains and Toolstacks, and what is on its way.

All of it is stored each time that Console goes to sleep; what did not change costs a comparison. The box says
whether the last life ended at rest. If not, a life that was cut off in the middle of its work is
followed by one that knows the same domains, and begins each conversation anew.
"""

from xoar.messages.consoles import PIECE
from xoar.messages.memory import Memory
from xoar.shards.console.services import RelayStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.messages.memory import Box
    from xoar.shards.console.console import Console

    Entries = list[tuple[str, dict[str, Any]]]
    Halves = tuple[bytes, bytes]

_NOTHING = (b"", b"")


class ConsoleMemory:
    """Of `console`, in `box`."""

    def __init__(self, console: "Console", box: "Box", report: "Callable[[str], None]" = print) -> None:
        self._console = console
        self._memory = Memory("console", box, [self._remember], [self._recall], None, report)
        self._all = False
        self._pieces: "dict[tuple[str, int], Halves]" = {}

    def load(self, at_rest: bool) -> None:
        """Takes back what the last life stored: all of it, if that ended at rest."""
        self._all = at_rest
        console = self._console
        self._memory.load()
        if at_rest:
            console.line.halves = self._pieces.get(("line", 0), _NOTHING)
            for link in console.links():
                link.channel.halves = self._pieces.get(("link", link.domid), _NOTHING)
            for channel in console.line.channels:
                if channel not in console.services:
                    console.line.close(channel, "what it was connected to is gone")
        else:
            console.begin_anew()
        self._pieces = {}

    def store(self, rests: bool) -> bool:
        """Stores what there is; with `rests` also what is on its way. False: there was no room."""
        self._all = rests
        return self._memory.store()

    def _remember(self) -> "Entries":
        console = self._console
        found = console.domains.remember() + console.toolstacks.remember()
        if self._all:
            found += _pieces("line", 0, console.line.halves)
            for link in console.links():
                found += _pieces("link", link.domid, link.channel.halves)
            for channel, service in console.services.items():
                found += _pieces("channel", channel, service.halves)
            found += console.line.remember() + console.toolstacks.remember_hangups()
            for channel, service in console.services.items():
                found.append(("remember_service", dict(service.state, channel=channel)))
                if isinstance(service, RelayStream) and service.successor is not None:
                    found.append(("remember_service", dict(service.successor.state, channel=channel)))
        return found

    def _recall(self, message: "Message") -> bool:
        console, fields = self._console, message.fields
        if message.kind == "remember_toolstack":
            try:
                console.toolstack(fields.name, fields.domid, fields.gref, fields.port)
            except OSError:
                console.toolstacks.missing(fields.domid)
            return True
        if message.kind in ("remember_console", "remember_relays"):
            return console.domains.recall(message) or console.toolstacks.recall(message)
        if message.kind not in _ON_ITS_WAY:
            return False
        if not self._all:
            return True
        if message.kind == "remember_bytes":
            key = (fields.stream, fields.number)
            incoming, outgoing = self._pieces.get(key, _NOTHING)
            if fields.direction == "input":
                incoming += fields.data
            else:
                outgoing += fields.data
            self._pieces[key] = (incoming, outgoing)
        elif message.kind == "remember_channel":
            console.line.recall(fields)
        elif message.kind == "remember_service":
            again = fields.channel in console.services
            halves = _NOTHING if again else self._pieces.get(("channel", fields.channel), _NOTHING)
            console.again(fields, halves)
        else:
            return console.toolstacks.recall(message)
        return True


_ON_ITS_WAY = ("remember_bytes", "remember_channel", "remember_service", "remember_hangup")


def _pieces(stream: str, number: int, halves: "Halves") -> "Entries":
    found: "Entries" = []
    for direction, data in zip(("input", "output"), halves):
        for start in range(0, len(data), PIECE):
            fields = {"stream": stream, "number": number, "direction": direction}
            found.append(("remember_bytes", dict(fields, data=data[start : start + PIECE])))
    return found
