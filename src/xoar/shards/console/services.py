"""What an operator's channel can be connected to. Each has `data` and `pump`; neither waits.

`pump` moves what it can within the channel's credit and a fair share of the line; False: the channel is done
and has been closed. `state` is what a next life needs to go on with it (remember_service), `halves` the bytes
that are on their way, in and out.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.channel import Channel
    from xoar.messages.line import LineServer
    from xoar.shards.console.domains import Domain

_SHARE = 1020
"""Bytes of one channel in one turn: one full frame."""

_NOTICE_SIZE = 64

_MAX_BACKLOG = 32768


def _state(service: str, **fields: "Any") -> "dict[str, Any]":
    """All fields of remember_service but the channel."""
    found: "dict[str, Any]" = {"service": service}
    for name in ("domid", "position", "stop", "follow", "number", "hung_up"):
        found[name] = fields.get(name, 0)
    return found


class LogReader:
    """Sends what a domain printed: all that is kept and, with `follow`, what comes until it ends."""

    looked_after = False
    """Whether it is to be looked at often, though nobody signals."""

    def __init__(self, line: "LineServer", channel: int, domain: "Domain", follow: bool) -> None:
        self.line = line
        self.channel = channel
        self.domain = domain
        self._position = domain.history.start
        self._follow = follow
        # without `follow` a domain that prints faster than the line carries must not keep it open for ever
        self._stop = domain.history.end

    @property
    def state(self) -> "dict[str, Any]":
        """Where it is."""
        return _state(
            "log", domid=self.domain.domid, position=self._position, stop=self._stop, follow=int(self._follow)
        )

    @property
    def halves(self) -> "tuple[bytes, bytes]":
        """Nothing: what was printed stays where it is until the line takes it."""
        return b"", b""

    def go_on(self, fields: "Any", halves: "tuple[bytes, bytes]") -> None:
        """From where a former life was, which may have said anything."""
        end = self.domain.history.end
        self._position, self._stop = min(fields.position, end), min(fields.stop, end)

    def data(self, untrusted_data: bytes) -> None:
        """A log takes no input."""
        self.line.consumed(self.channel, len(untrusted_data))

    def pump(self) -> bool:
        """Sends the next part of the history."""
        room = min(self.line.writable(self.channel), _SHARE)
        history = self.domain.history
        stop = history.end if self._follow else self._stop
        if self._position < history.start and room >= _NOTICE_SIZE:
            notice = "\r\n[xoar: %d bytes skipped]\r\n" % (history.start - self._position)
            room -= self.line.write(self.channel, notice.encode())
            self._position = history.start
        if history.start <= self._position < stop and room:
            data = history.read(self._position, min(room, stop - self._position))
            self._position += len(data)
            self.line.write(self.channel, data)
        if self._position >= stop and (not self._follow or self.domain.connection is None):
            self.line.close(self.channel)
            return False
        return True


class ConsoleReader(LogReader):
    """A guest's console from now on, with input; the guest's ring decides how fast that is taken."""

    looked_after = True  # who types waits for the echo

    def __init__(self, line: "LineServer", channel: int, domain: "Domain") -> None:
        super().__init__(line, channel, domain, True)
        self._position = domain.history.end
        self._input = b""

    @property
    def state(self) -> "dict[str, Any]":
        """Where it is."""
        return _state("console", domid=self.domain.domid, position=self._position)

    @property
    def halves(self) -> "tuple[bytes, bytes]":
        """Input that the guest has not taken."""
        return self._input, b""

    def go_on(self, fields: "Any", halves: "tuple[bytes, bytes]") -> None:
        """As in LogReader."""
        super().go_on(fields, halves)
        self._input = halves[0]

    def data(self, untrusted_data: bytes) -> None:
        """Input for the guest; at most the channel's window waits here."""
        self._input += untrusted_data

    def pump(self) -> bool:
        """Gives the guest its input, then sends what it printed."""
        if self._input:
            count = self.domain.write(self._input)
            self._input = self._input[count:]
            self.line.consumed(self.channel, count)
        if self.domain.broken:
            self.line.close(self.channel, "the guest broke its console ring")
            return False
        return super().pump()


class XenReader:
    """The hypervisor's own log; `read(position, limit)` returns (bytes, next position)."""

    looked_after = True  # Xen tells nobody that it has said something

    def __init__(
        self,
        line: "LineServer",
        channel: int,
        read: "Callable[[int, int], tuple[bytes, int]]",
        follow: bool,
    ) -> None:
        self._line = line
        self._channel = channel
        self._read = read
        self._follow = follow
        self._position = 0

    @property
    def state(self) -> "dict[str, Any]":
        """Where it is."""
        return _state("xen", position=self._position, follow=int(self._follow))

    @property
    def halves(self) -> "tuple[bytes, bytes]":
        """Nothing: the log is Xen's."""
        return b"", b""

    def go_on(self, fields: "Any", halves: "tuple[bytes, bytes]") -> None:
        """From where a former life was. Xen does not mind any number."""
        self._position = fields.position & 0xFFFFFFFF

    def data(self, untrusted_data: bytes) -> None:
        """A log takes no input."""
        self._line.consumed(self._channel, len(untrusted_data))

    def pump(self) -> bool:
        """Sends the next part of the log."""
        room = min(self._line.writable(self._channel), _SHARE)
        if not room:
            return True
        data, self._position = self._read(self._position, room)
        self._line.write(self._channel, data)
        if not data and not self._follow:
            self._line.close(self._channel)
            return False
        return True


class RelayStream:
    """The operator's requests to a Toolstack, passed on unread under a number of their own.

    The number is not the line's channel number, so a late message about an ended stream meets nobody. When it
    ends and has a `successor`, that takes over the operator's channel, and gets all that comes from now on.
    """

    looked_after = False

    def __init__(
        self, line: "LineServer", channel: int, relay: "Channel", number: int, toolstack: int
    ) -> None:
        self.number = number
        self._toolstack = toolstack
        self.line_channel = channel
        self.successor: "LogReader | None" = None
        self._line = line
        self._relay = relay
        self._input = b""
        self._output = b""
        self.hung_up = False

    @property
    def state(self) -> "dict[str, Any]":
        """Which stream it is."""
        return _state("relay", domid=self._toolstack, number=self.number, hung_up=int(self.hung_up))

    @property
    def halves(self) -> "tuple[bytes, bytes]":
        """What waits for room in the link, and on the line."""
        return self._input, self._output

    def go_on(self, fields: "Any", halves: "tuple[bytes, bytes]") -> None:
        """The same stream as in a former life."""
        self.hung_up = bool(fields.hung_up)
        self._input, self._output = halves

    def data(self, untrusted_data: bytes) -> None:
        """A piece for the Toolstack; at most the channel's window waits here."""
        self._input += untrusted_data

    def deliver(self, data: bytes) -> None:
        """A piece from the Toolstack."""
        self._output += data

    def hangup(self) -> None:
        """The Toolstack has ended the stream."""
        self.hung_up = True

    def pump(self) -> bool:
        """Moves both directions."""
        piece = self._input[:4096] if self.successor is None else b""
        if piece and self._relay.send("relay", 0, channel=self.number, data=piece):
            self._line.consumed(self.line_channel, len(piece))
            self._input = self._input[len(piece) :]
        count = self._line.write(self.line_channel, self._output[:_SHARE])
        self._output = self._output[count:]
        reason = ""
        if len(self._output) > _MAX_BACKLOG:
            reason = "the answers are not being read"
        elif self._relay.broken:
            reason = "the link to the Toolstack is broken"
        elif not self.hung_up or self._output:
            return True
        if reason or self.successor is None:
            self._line.close(self.line_channel, reason)
        elif self._input:
            self.successor.data(self._input)
        return False
