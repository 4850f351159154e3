"""The Console shard's core: introductions, operators' channels, and who gets what in a turn. No I/O.

One `turn` does a bounded amount for everybody: each domain that signalled is read once, each operator's
channel sends about one frame, the order of the channels rotates. So neither a guest that floods its console
nor an operator who stops reading delays the others, and the number of domains and channels bounds memory.

All that it knows can be remembered at the end of any turn, what is on its way included: a next life goes on
where this one stopped, and nobody notices (memory.py).
"""

from xoar.messages.errors import EEXIST, EIO, ENOENT, ENOSPC
from xoar.messages.line import NOT_PERMITTED, LineServer
from xoar.shards.console import keys
from xoar.shards.console.domains import MAX_DOMAINS, Domains
from xoar.shards.console.services import ConsoleReader, LogReader, RelayStream, XenReader
from xoar.shards.console.toolstacks import HOST, Toolstacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.shards.console.domains import Connection
    from xoar.shards.console.links import Link

    Service = ConsoleReader | LogReader | RelayStream | XenReader

_MAX_DOMID_DIGITS = 5
_EACCES = 13  # what FLASK refuses with (xen/include/public/errno.h)


def _called(function: "Callable[..., Any]", *arguments: "Any") -> "Any":
    return function(*arguments)


class Console:
    """`connect(domid, gref, port)` reaches a console ring and binds its event channel, or raises OSError.

    `reach(domid, gref, port, peer)` does the same for a link of another shard; `slots` is memory for what
    domains print (Domains); `read_xen` reads Xen's own log, None where the manifest does not grant that;
    `press(keys)` presses Xen's debug keys, or raises OSError; `report` takes lines for Xen's console;
    `call(function, ...)` calls it and lets no bug of ours through.
    """

    def __init__(
        self,
        connect: "Callable[[int, int, int], Connection]",
        reach: "Callable[[int, int, int, str], Link]",
        slots: "list[memoryview]",
        read_xen: "Callable[[int, int], tuple[bytes, int]] | None" = None,
        press: "Callable[[str], None] | None" = None,
        report: "Callable[[str], None]" = print,
        call: "Callable[..., Any]" = _called,
    ) -> None:
        self.line = LineServer()
        self.domains = Domains(connect, slots, report)
        self.toolstacks = Toolstacks(self.line, self.domains)
        self.services: "dict[int, Service]" = {}
        self.changed = False
        """Whether domains or Toolstacks have come or gone since somebody set this to False."""
        self._reach = reach
        self._read_xen = read_xen
        self._press = press
        self._call = call
        self._builders: "list[Link]" = []
        self._links: "list[Link]" = []
        self._rotation = 0
        self._heard = False

    def begin_anew(self) -> None:
        """What was on its way in a former life is lost: each conversation begins anew."""
        self.line.greet()
        for link in self._links:
            link.channel.renew()

    def builder(self, domid: int, gref: int, port: int) -> None:
        """The link of who introduces domains. Raises OSError if it can't be reached or bound."""
        link = self._reach(domid, gref, port, "builder")
        self._builders.append(link)
        self._links.append(link)

    def toolstack(self, name: str, domid: int, gref: int, port: int) -> None:
        """A Toolstack has opened a link. Raises OSError if it can't be reached or bound."""
        link = self._reach(domid, gref, port, HOST if name == HOST else "tenant")
        self.toolstacks.add(name, link, gref, port)
        self._links.append(link)

    def fired(self, ports: "list[int] | None") -> bool:
        """Notes whose event channels these are; None: anybody's may have fired. Whether that can change
        anything that is to be remembered: what domains print, and nobody reads, does not."""
        matters = ports is None
        for link in self._links:
            if ports is None or link.port in ports:
                link.ready = matters = True
        self.domains.fired(ports)
        return matters or (bool(ports) and self._readers)

    @property
    def _readers(self) -> bool:
        """Whether somebody reads a log or a console."""
        return any([not isinstance(service, RelayStream) for service in self.services.values()])

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until another domain signals, or bytes come from the line."""
        return not self.line.pending and not any([s.looked_after for s in self.services.values()])

    def receive(self, untrusted_data: bytes) -> None:
        """Takes bytes from the operator's line."""
        for event in self.line.feed(untrusted_data):
            if event.kind == "open":
                self._open(event.channel, event.data)
            elif event.kind == "data" and event.channel in self.services:
                self.services[event.channel].data(event.data)
            elif event.kind == "closed":
                self._forget(event.channel)
            elif event.kind == "hello":
                for channel in list(self.services):
                    self._forget(channel)

    def turn(self, untrusted_data: bytes = b"") -> bool:
        """Moves a bounded amount of everything; True if more can be moved at once. What is to be told to
        other shards waits for `go_on`."""
        for link in self._links:
            link.hold()
        more = False
        self._heard = bool(untrusted_data)
        self.domains.heard = self.toolstacks.heard = False
        for builder in self._builders:
            for message in builder.receive():
                self._heard = True
                self._call(self._introduction, builder, message)
            more = more or builder.ready
        if untrusted_data:
            self._call(self.receive, untrusted_data)
        return bool(self._call(self._move)) or more

    @property
    def heard(self) -> bool:
        """Whether the last turn has taken anything from anybody but what domains printed."""
        return self._heard or self.toolstacks.heard

    def go_on(self) -> None:
        """Tells other shards what was done: who was introduced is remembered by now."""
        for link in self._links:
            link.go_on()

    def _move(self) -> bool:
        more = self.domains.read()
        more = self.toolstacks.receive() or more
        before = self.line.pending
        channels = list(self.services)
        self._rotation += 1
        for place in range(len(channels)):
            channel = channels[(place + self._rotation) % len(channels)]
            if not self.services[channel].pump():
                self._forget(channel)
        self.toolstacks.flush()
        return more or self.line.pending > before

    def _introduction(self, builder: "Link", message: "Message") -> None:
        """Carries out one message of Builder and answers it."""
        fields, channel = message.fields, builder.channel
        if message.kind == "introduce":
            self._introduce(builder, message)
        elif message.kind == "release":
            known = self.domains.remove(fields.domid)
            if self._remove_toolstack(fields.domid) or known:
                self.changed = True
                channel.send("done", message.id)
            else:
                channel.fail(message.id, ENOENT, "domain %d has no console here" % fields.domid)
        elif message.kind == "stopped" and fields.domid in self.domains:
            self.domains.drain(fields.domid)

    def _remove_toolstack(self, domid: int) -> bool:
        self._links = [link for link in self._links if link.domid != domid or link in self._builders]
        return self.toolstacks.remove(domid)

    def _introduce(self, builder: "Link", message: "Message") -> None:
        fields, channel = message.fields, builder.channel
        domid, gref, port = fields.domid, fields.gref, fields.port
        if fields.link != "operator" and domid in self.domains:
            channel.fail(message.id, EEXIST, "domain %d has a console already" % domid)
            return
        if len(self.domains) >= MAX_DOMAINS:
            channel.fail(message.id, ENOSPC, "there are %d consoles, the most allowed" % MAX_DOMAINS)
            return
        try:
            if fields.link == "operator":
                self.toolstack(fields.name, domid, gref, port)
            else:
                self.domains.add(domid, fields.parent, gref, port)
        except OSError as error:
            number = error.errno or EIO
            channel.fail(message.id, number, "console of domain %d: error %d" % (domid, number))
            return
        self.changed = True
        channel.send("done", message.id)

    def _open(self, channel: int, untrusted_request: str) -> None:
        if channel not in self.line.channels:
            # closed again in the same piece of input
            return
        words = untrusted_request.split(" ")
        service, arguments = words[0], words[1:]
        follow = arguments[-1:] == ["follow"]
        reason = ""
        if service == "toolstack" and len(arguments) <= 1:
            reason = self._open_toolstack(channel, "".join(arguments))
        elif service == "xen" and len(arguments) == follow:
            reason = self._open_xen(channel, follow)
        elif service == "keys" and len(arguments) == 1:
            reason = self._press_keys(arguments[0])
        elif service == "console" and len(arguments) == 1:
            reason = self._open_domain(channel, arguments[0], True, False)
        elif service == "log" and len(arguments) == 1 + follow:
            reason = self._open_domain(channel, arguments[0], False, follow)
        else:
            reason = (
                "there is no service '%s'; there are: toolstack, console, log, xen, keys" % untrusted_request
            )
        if reason:
            self.line.close(channel, reason)
        else:
            self.line.accept(channel)
            if service == "keys":
                self.line.close(channel)

    def _open_toolstack(self, channel: int, untrusted_tenant: str) -> str:
        stream, reason = self.toolstacks.open(channel, untrusted_tenant)
        if stream is not None:
            self.services[channel] = stream
        return reason

    def _open_xen(self, channel: int, follow: bool) -> str:
        if self._read_xen is None:
            return "Xen's own log cannot be read over this line"
        self.services[channel] = XenReader(self.line, channel, self._read_xen, follow)
        return ""

    def _press_keys(self, untrusted_keys: str) -> str:
        reason = keys.refusal(untrusted_keys)
        if reason or self._press is None:
            return reason or "Xen's debug keys cannot be pressed over this line"
        try:
            self._press(untrusted_keys)
        except OSError as error:
            if error.args[0] == _EACCES:
                return "%s (xen.debug of console)" % NOT_PERMITTED
            return "Xen refused the keys: error %d" % error.args[0]
        return ""

    def _open_domain(self, channel: int, untrusted_domid: str, interactive: bool, follow: bool) -> str:
        if not untrusted_domid.isdigit() or len(untrusted_domid) > _MAX_DOMID_DIGITS:
            return "'%s' is no domain id" % untrusted_domid
        domain = self.domains.find(int(untrusted_domid))
        if domain is None:
            return "domain %s has no console" % untrusted_domid
        if not interactive:
            self.services[channel] = LogReader(self.line, channel, domain, follow)
        elif domain.connection is None:
            return "domain %s has ended" % untrusted_domid
        else:
            self.services[channel] = ConsoleReader(self.line, channel, domain)
        return ""

    def _forget(self, channel: int) -> None:
        service = self.services.pop(channel, None)
        if isinstance(service, RelayStream):
            self.toolstacks.forget(service)
            if service.successor is not None and channel in self.line.channels:
                self.services[channel] = service.successor

    def links(self) -> "list[Link]":
        """All links of other shards."""
        return self._links

    def again(self, fields: "Any", halves: "tuple[bytes, bytes]") -> None:
        """Connects a channel with what it was connected to in a former life (remember_service). A second one
        is the first one's successor. ValueError: it can't be."""
        channel, kind = fields.channel, fields.service
        first = self.services.get(channel)
        if channel not in self.line.channels:
            raise ValueError("channel %d is not open" % channel)
        if first is not None and (not isinstance(first, RelayStream) or kind not in ("console", "log")):
            raise ValueError("channel %d is connected twice" % channel)
        service: "Service"
        if kind == "relay":
            service = self.toolstacks.reopen(channel, fields)
        elif kind == "xen":
            if self._read_xen is None:
                raise ValueError("channel %d: Xen's log can't be read" % channel)
            service = XenReader(self.line, channel, self._read_xen, bool(fields.follow))
        else:
            domain = self.domains.find(fields.domid)
            if domain is None:
                raise ValueError("channel %d: domain %d has no console" % (channel, fields.domid))
            if kind == "console":
                service = ConsoleReader(self.line, channel, domain)
            else:
                service = LogReader(self.line, channel, domain, bool(fields.follow))
        service.go_on(fields, halves)
        if isinstance(first, RelayStream) and not isinstance(service, (RelayStream, XenReader)):
            first.successor = service
        else:
            self.services[channel] = service
