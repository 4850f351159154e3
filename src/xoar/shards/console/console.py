"""The Console shard's core: introductions, operators' channels, and who gets what in a turn. No I/O.

One `turn` does a bounded amount for everybody: each domain that signalled is read once, each operator's
channel sends about one frame, the order of the channels rotates. So neither a guest that floods its console
nor an operator who stops reading delays the others, and the number of domains and channels bounds memory.
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

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message
    from xoar.shards.console.domains import Connection
    from xoar.shards.console.toolstacks import Link

    Service = ConsoleReader | LogReader | RelayStream | XenReader

_MAX_DOMID_DIGITS = 5
_EACCES = 13  # what FLASK refuses with (xen/include/public/errno.h)


class Console:
    """`connect(domid, gref, port)` maps a console ring and binds its event channel, or raises OSError.

    `reach(domid, gref, port, peer)` does the same for a Toolstack's link; `read_xen` reads Xen's own log,
    None where the manifest does not grant that; `press(keys)` presses Xen's debug keys, or raises OSError;
    `report` takes lines for Xen's console.
    """

    def __init__(
        self,
        connect: "Callable[[int, int, int], Connection]",
        reach: "Callable[[int, int, int, str], Link]",
        read_xen: "Callable[[int, int], tuple[bytes, int]] | None" = None,
        press: "Callable[[str], None] | None" = None,
        report: "Callable[[str], None]" = print,
    ) -> None:
        self.line = LineServer()
        self.domains = Domains(report)
        self._connect = connect
        self._reach = reach
        self._toolstacks = Toolstacks(self.line, self.domains)
        self._read_xen = read_xen
        self._press = press
        self._services: "dict[int, Service]" = {}
        self._rotation = 0
        self.line.greet()

    @property
    def idle(self) -> bool:
        """Whether no operator has a channel open: the line may be looked at less often."""
        return not self._services

    def introduction(self, builder: "Channel", message: "Message") -> None:
        """Carries out one message of Builder and answers it."""
        fields = message.fields
        if message.kind == "introduce":
            self._introduce(builder, message)
        elif message.kind == "release":
            known = self.domains.remove(fields.domid)
            if self._toolstacks.remove(fields.domid) or known:
                builder.send("done", message.id)
            else:
                builder.fail(message.id, ENOENT, "domain %d has no console here" % fields.domid)
        elif message.kind == "stopped" and fields.domid in self.domains:
            self.domains.drain(fields.domid)

    def toolstack(self, name: str, domid: int, gref: int, port: int) -> None:
        """A Toolstack has opened a link. Raises OSError if it can't be mapped or bound."""
        peer = HOST if name == HOST else "tenant"
        self._toolstacks.add(name, domid, self._reach(domid, gref, port, peer))

    def receive(self, untrusted_data: bytes) -> None:
        """Takes bytes from the operator's line."""
        for event in self.line.feed(untrusted_data):
            if event.kind == "open":
                self._open(event.channel, event.data)
            elif event.kind == "data" and event.channel in self._services:
                self._services[event.channel].data(event.data)
            elif event.kind == "closed":
                self._forget(event.channel)
            elif event.kind == "hello":
                for channel in list(self._services):
                    self._forget(channel)

    def turn(self) -> bool:
        """Moves a bounded amount of everything; True if more can be moved at once."""
        more = self.domains.read()
        more = self._toolstacks.receive() or more
        before = self.line.pending
        channels = list(self._services)
        self._rotation += 1
        for place in range(len(channels)):
            channel = channels[(place + self._rotation) % len(channels)]
            if not self._services[channel].pump():
                self._forget(channel)
        self._toolstacks.flush()
        return more or self.line.pending > before

    def _introduce(self, builder: "Channel", message: "Message") -> None:
        fields = message.fields
        domid, gref, port = fields.domid, fields.gref, fields.port
        if fields.link != "operator" and domid in self.domains:
            builder.fail(message.id, EEXIST, "domain %d has a console already" % domid)
            return
        if len(self.domains) >= MAX_DOMAINS:
            builder.fail(message.id, ENOSPC, "there are %d consoles, the most allowed" % MAX_DOMAINS)
            return
        try:
            if fields.link == "operator":
                self.toolstack(fields.name, domid, gref, port)
            else:
                self.domains.add(domid, fields.parent, self._connect(domid, gref, port))
        except OSError as error:
            number = error.errno or EIO
            builder.fail(message.id, number, "console of domain %d: error %d" % (domid, number))
            return
        builder.send("done", message.id)

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
        stream, reason = self._toolstacks.open(channel, untrusted_tenant)
        if stream is not None:
            self._services[channel] = stream
        return reason

    def _open_xen(self, channel: int, follow: bool) -> str:
        if self._read_xen is None:
            return "Xen's own log cannot be read over this line"
        self._services[channel] = XenReader(self.line, channel, self._read_xen, follow)
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
            self._services[channel] = LogReader(self.line, channel, domain, follow)
        elif domain.connection is None:
            return "domain %s has ended" % untrusted_domid
        else:
            self._services[channel] = ConsoleReader(self.line, channel, domain)
        return ""

    def _forget(self, channel: int) -> None:
        service = self._services.pop(channel, None)
        if isinstance(service, RelayStream):
            self._toolstacks.forget(service)
            if service.successor is not None and channel in self.line.channels:
                self._services[channel] = service.successor
