"""The Toolstacks that operators' streams lead to: the host's own, and one of each tenant.

Each has a link of its own, so who a message comes from is known by the link. A Toolstack may end a stream of
its own, answer on it, or have it connected to the console of one of its own guests; nothing else.
"""

from xoar.shards.console.services import ConsoleReader, LogReader, RelayStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from xoar.messages.channel import Channel
    from xoar.messages.line import LineServer
    from xoar.shards.console.domains import Domains

    class Link(Protocol):
        """A link that a Toolstack opened."""

        channel: Channel

        def close(self) -> None:
            """Unmaps its page and closes its event channel."""


HOST = "toolstack"
_OF_TENANT = "tenant-"
_MAX_HANGUPS = 64


class _Toolstack:
    def __init__(self, name: str, domid: int, link: "Link") -> None:
        self.name = name
        self.domid = domid
        self.link = link
        self.renewals = link.channel.renewals
        self.hangups: "list[int]" = []


class Toolstacks:
    """All of them, and the streams that lead there. `domains` are those whose consoles are here."""

    def __init__(self, line: "LineServer", domains: "Domains") -> None:
        self._line = line
        self._domains = domains
        self._all: "list[_Toolstack]" = []
        self._streams: "dict[int, tuple[_Toolstack, RelayStream]]" = {}
        self._last = 0

    def add(self, name: str, domid: int, link: "Link") -> None:
        """A Toolstack has come; `name` is its shard's."""
        self._all.append(_Toolstack(name, domid, link))

    def remove(self, domid: int) -> bool:
        """A Toolstack is gone; its streams end. False if there was none."""
        gone = [toolstack for toolstack in self._all if toolstack.domid == domid]
        for toolstack in gone:
            self._all.remove(toolstack)
            self._end_streams(toolstack)
            toolstack.link.close()
        return bool(gone)

    def _end_streams(self, toolstack: _Toolstack) -> None:
        for owner, stream in self._streams.values():
            if owner is toolstack:
                stream.hangup()

    def open(self, channel: int, untrusted_tenant: str) -> "tuple[RelayStream | None, str]":
        """A stream to a tenant's Toolstack, "": to the host's; or why there can be none."""
        name = _OF_TENANT + untrusted_tenant if untrusted_tenant else HOST
        found = [toolstack for toolstack in self._all if toolstack.name == name]
        whose = "of tenant %s" % untrusted_tenant if untrusted_tenant else "on this host"
        if not found or found[0].link.channel.broken:
            return None, "there is no Toolstack %s" % whose
        if len(found[0].hangups) >= _MAX_HANGUPS:
            return None, "the Toolstack %s is not reading its link" % whose
        self._last = (self._last + 1) & 0xFFFFFFFF
        stream = RelayStream(self._line, channel, found[0].link.channel, self._last)
        self._streams[stream.number] = (found[0], stream)
        return stream, ""

    def forget(self, stream: RelayStream) -> None:
        """The operator's channel is closed."""
        toolstack, _ = self._streams.pop(stream.number)
        if not stream.hung_up:
            toolstack.hangups.append(stream.number)

    def receive(self) -> bool:
        """Takes what Toolstacks have sent; whether there is more."""
        more = False
        for toolstack in self._all:
            channel = toolstack.link.channel
            messages = channel.receive()
            if channel.renewals != toolstack.renewals:
                # its next life knows nothing of what these were in the middle of
                toolstack.renewals = channel.renewals
                toolstack.hangups = []
                self._end_streams(toolstack)
            for message in messages:
                owner, stream = self._streams.get(message.fields.channel, (None, None))
                if stream is None or owner is not toolstack:
                    continue
                if message.kind == "relay":
                    stream.deliver(message.fields.data)
                elif message.kind == "hangup":
                    stream.hangup()
                elif message.kind == "attach":
                    self._attach(toolstack, stream, message.fields.domid, message.fields.what)
            more = more or channel.more
        return more

    def flush(self) -> None:
        """Sends what waits for room in the links."""
        for toolstack in self._all:
            hangups, channel = toolstack.hangups, toolstack.link.channel
            while hangups and channel.send("hangup", 0, channel=hangups[0]):
                hangups.pop(0)
            channel.flush()

    def _attach(self, toolstack: _Toolstack, stream: RelayStream, domid: int, what: str) -> None:
        stream.hangup()
        domain = self._domains.find(domid)
        if domain is None or domain.parent != toolstack.domid:
            return
        if what == "console":
            if domain.connection is not None:
                stream.successor = ConsoleReader(self._line, stream.line_channel, domain)
        else:
            stream.successor = LogReader(self._line, stream.line_channel, domain, what == "follow")
