"""The Toolstacks that operators' streams lead to: the host's own, and one of each tenant.

Each has a link of its own, so who a message comes from is known by the link. A Toolstack may end a stream of
its own, answer on it, or have it connected to the console of one of its own guests; nothing else.
"""

from xoar.shards.console.services import ConsoleReader, LogReader, RelayStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.messages.line import LineServer
    from xoar.shards.console.domains import Domains
    from xoar.shards.console.links import Link


HOST = "toolstack"
_OF_TENANT = "tenant-"
_MAX_HANGUPS = 64


class _Toolstack:
    def __init__(self, name: str, link: "Link", gref: int, port: int) -> None:
        self.name = name
        self.link = link
        self.gref = gref
        self.port = port
        self.renewals = link.channel.renewals
        self.hangups: "list[int]" = []


class Toolstacks:
    """All of them, and the streams that lead there. `domains` are those whose consoles are here."""

    def __init__(self, line: "LineServer", domains: "Domains") -> None:
        self.heard = False
        """Whether `receive` has taken anything since somebody set this to False."""
        self._line = line
        self._domains = domains
        self._all: "list[_Toolstack]" = []
        self._streams: "dict[int, tuple[_Toolstack, RelayStream]]" = {}
        self._last = 0
        self._gone: "set[int]" = set()

    def add(self, name: str, link: "Link", gref: int, port: int) -> None:
        """A Toolstack has come; `name` is its shard's; `gref` and `port` are its link's, there."""
        self._all.append(_Toolstack(name, link, gref, port))

    def remove(self, domid: int) -> bool:
        """A Toolstack is gone; its streams end. False if there was none."""
        gone = [toolstack for toolstack in self._all if toolstack.link.domid == domid]
        for toolstack in gone:
            self._all.remove(toolstack)
            self._end_streams(toolstack)
            toolstack.link.close()
        known = bool(gone) or domid in self._gone
        self._gone.discard(domid)
        return known

    def missing(self, domid: int) -> None:
        """A Toolstack that a former life knew can't be reached any more: Builder will say that it is gone."""
        self._gone.add(domid)

    def remember(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages (kind, fields) of those that came after the boot."""
        found: "list[tuple[str, dict[str, Any]]]" = [("remember_relays", {"last": self._last})]
        for toolstack in self._all:
            if toolstack.name != HOST:
                fields = {"name": toolstack.name, "domid": toolstack.link.domid}
                found.append(("remember_toolstack", dict(fields, gref=toolstack.gref, port=toolstack.port)))
        return found

    def remember_hangups(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages of what Toolstacks have not heard yet."""
        return [
            ("remember_hangup", {"domid": toolstack.link.domid, "number": number})
            for toolstack in self._all
            for number in toolstack.hangups
        ]

    def recall(self, message: "Message") -> bool:
        """Takes back what `remember_hangups` gave, or the number of `remember`. ValueError: it can't be."""
        if message.kind == "remember_relays":
            self._last = message.fields.last
        elif message.kind == "remember_hangup":
            toolstack = self._of(message.fields.domid)
            if len(toolstack.hangups) >= _MAX_HANGUPS:
                raise ValueError("too many streams of domain %d have ended" % toolstack.link.domid)
            toolstack.hangups.append(message.fields.number)
        else:
            return False
        return True

    def reopen(self, channel: int, fields: "Any") -> RelayStream:
        """A stream that a former life had. ValueError: it can't be."""
        toolstack = self._of(fields.domid)
        if fields.number in self._streams:
            raise ValueError("there are two streams %d" % fields.number)
        return self._stream(channel, toolstack, fields.number)

    def _of(self, domid: int) -> _Toolstack:
        for toolstack in self._all:
            if toolstack.link.domid == domid:
                return toolstack
        raise ValueError("domain %d is no Toolstack" % domid)

    def _stream(self, channel: int, toolstack: _Toolstack, number: int) -> RelayStream:
        link = toolstack.link
        stream = RelayStream(self._line, channel, link.channel, number, link.domid)
        self._streams[number] = (toolstack, stream)
        return stream

    def _end_streams(self, toolstack: _Toolstack) -> None:
        for owner, stream in self._streams.values():
            if owner is toolstack:
                if not stream.hung_up:
                    stream.successor = None  # its operator has not been told
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
        return self._stream(channel, found[0], self._last), ""

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
            messages = toolstack.link.receive()
            if channel.renewals != toolstack.renewals:
                # its next life knows nothing of what these were in the middle of
                self.heard = True
                toolstack.renewals = channel.renewals
                toolstack.hangups = []
                self._end_streams(toolstack)
            self.heard = self.heard or bool(messages)
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
            more = more or toolstack.link.ready
        return more

    def flush(self) -> None:
        """Tells Toolstacks of streams that ended."""
        for toolstack in self._all:
            hangups, channel = toolstack.hangups, toolstack.link.channel
            while hangups and channel.send("hangup", 0, channel=hangups[0]):
                hangups.pop(0)

    def _attach(self, toolstack: _Toolstack, stream: RelayStream, domid: int, what: str) -> None:
        domain = self._domains.find(domid)
        if domain is None or domain.parent != toolstack.link.domid:
            return
        if what == "console":
            if domain.connection is not None:
                stream.successor = ConsoleReader(self._line, stream.line_channel, domain)
        else:
            stream.successor = LogReader(self._line, stream.line_channel, domain, what == "follow")
