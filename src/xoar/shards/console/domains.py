"""The consoles of all domains: who is connected, what each printed, who ended lately.

A domain controls its ring and its event channel and nothing else: it is read at most one ring's worth a turn,
and the first impossible index ends its own console only.

All of it outlives the Console's lives: what was printed lies in `slots`, the rest is remembered as messages.
"""

from xoar.shards.console.history import History
from xoar.xen.ring import RingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from xoar.messages.codec import Message
    from xoar.xen.ring import ByteRing

    class Connection(Protocol):
        """A copy of a console ring (xoar.xen.copied) and its event channel."""

        port: int
        to_client: ByteRing
        to_server: ByteRing

        def fetch(self) -> None:
            """Brings the copy up to date. Raises OSError if Xen refuses."""

        def publish(self) -> None:
            """Copies back what was changed, and signals the domain if there was anything. As `fetch`."""

        def close(self) -> None:
            """Lets the event channel go."""


MAX_DOMAINS = 256
MAX_ENDED = 32
SLOTS = MAX_DOMAINS + MAX_ENDED
_TURN_BYTES = 2048


class Domain:
    """One domain's console; `parent` is the domid of its Toolstack; `gref` and `port` are its ring's, there;
    `slot` is where its history lies; `connection` is None once it has ended, `broken` if its ring made no
    sense."""

    def __init__(
        self,
        domid: int,
        parent: int,
        gref: int,
        port: int,
        slot: int,
        history: History,
        connection: "Connection | None",
        report: "Callable[[str], None]",
    ) -> None:
        self.domid = domid
        self.parent = parent
        self.gref = gref
        self.port = port
        self.slot = slot
        self.history = history
        self.connection = connection
        self.broken = False
        self._report = report

    def read(self) -> bool:
        """Moves what the domain printed into its history; True if there is more."""
        connection = self.connection
        if connection is None or self.broken:
            return False
        try:
            connection.fetch()
            untrusted_data = connection.to_server.read(_TURN_BYTES)
            if untrusted_data:
                self.history.append(untrusted_data)
            more = connection.to_server.readable() > 0
            connection.publish()
            return more
        except (OSError, RingError) as error:
            self._break(error)
            return False

    def write(self, data: bytes) -> int:
        """Gives the domain input; returns how many bytes its ring took."""
        connection = self.connection
        if connection is None or self.broken:
            return 0
        try:
            connection.fetch()
            count = connection.to_client.write(data)
            connection.publish()
            return count
        except (OSError, RingError) as error:
            self._break(error)
            return 0

    def end(self) -> None:
        """Keeps the domain's last words and lets go of its ring."""
        self.read()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _break(self, error: Exception) -> None:
        self.broken = True
        text = "console of domain %d stopped: %s" % (self.domid, error)
        self.history.append(("\r\n[xoar: %s]\r\n" % text).encode())
        self._report(text)


class Domains:
    """All domains that Builder has introduced, and the last ones that it has released. `connect(domid, gref,
    port)` gives a console ring and its event channel, or raises OSError. `slots`: SLOTS pieces of memory."""

    def __init__(
        self,
        connect: "Callable[[int, int, int], Connection]",
        slots: "list[memoryview]",
        report: "Callable[[str], None]",
    ) -> None:
        self.heard = False
        """Whether `read` has read anything since somebody set this to False."""
        self._connect = connect
        self._slots = slots
        self._free = list(range(len(slots)))
        self._report = report
        self._live: "dict[int, Domain]" = {}
        self._by_port: "dict[int, Domain]" = {}
        self._ended: "list[Domain]" = []
        self._ready: "list[Domain]" = []
        self._remembered: "list[tuple[str, dict[str, Any]]] | None" = None

    def __contains__(self, domid: int) -> bool:
        return domid in self._live

    def __len__(self) -> int:
        return len(self._live)

    def find(self, domid: int) -> "Domain | None":
        """The domain, or the last one of that number that has ended."""
        if domid in self._live:
            return self._live[domid]
        for domain in reversed(self._ended):
            if domain.domid == domid:
                return domain
        return None

    def add(self, domid: int, parent: int, gref: int, port: int) -> None:
        """Takes over the console of a new domain; it may have printed already. Raises OSError."""
        connection = self._connect(domid, gref, port)
        slot = self._free.pop(0)
        history = History(self._slots[slot], True)
        self._start(Domain(domid, parent, gref, port, slot, history, connection, self._broken))

    def _broken(self, text: str) -> None:
        self._remembered = None
        self._report(text)

    def _start(self, domain: Domain) -> None:
        self._remembered = None
        self._live[domain.domid] = domain
        if domain.connection is not None:
            self._by_port[domain.connection.port] = domain
            self._ready.append(domain)

    def remove(self, domid: int) -> bool:
        """Ends a domain's console; False if there is none."""
        domain = self._live.pop(domid, None)
        if domain is None:
            return False
        if domain.connection is not None:
            self._by_port.pop(domain.connection.port, None)
        domain.end()
        self._remembered = None
        self._ended.append(domain)
        if len(self._ended) > MAX_ENDED:
            self._free.append(self._ended.pop(0).slot)
        return True

    def drain(self, domid: int) -> None:
        """Reads a domain that Builder says has stopped, whether it signalled or not."""
        domain = self._live.get(domid)
        if domain is not None:
            domain.read()

    def fired(self, ports: "list[int] | None") -> None:
        """Notes the domains whose event channels these are; None: anybody's may have fired."""
        for port in self._by_port if ports is None else ports:
            domain = self._by_port.get(port)
            if domain is not None and domain not in self._ready:
                self._ready.append(domain)

    def read(self) -> bool:
        """Reads each domain that signalled once; True if one of them has more already."""
        ready = self._ready
        self._ready = []
        for domain in ready:
            before = domain.history.end
            if domain.read():
                self._ready.append(domain)
            self.heard = self.heard or domain.history.end != before
        return bool(self._ready)

    def remember(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages (kind, fields) with which `recall` makes this anew."""
        if self._remembered is not None:
            return self._remembered
        found: "list[tuple[str, dict[str, Any]]]" = []
        for domain in list(self._live.values()) + self._ended:
            found.append(
                (
                    "remember_console",
                    {
                        "domid": domain.domid,
                        "parent": domain.parent,
                        "gref": domain.gref,
                        "port": domain.port,
                        "slot": domain.slot,
                        "ended": int(
                            domain.domid not in self._live or self._live[domain.domid] is not domain
                        ),
                        "broken": int(domain.broken),
                    },
                )
            )
        self._remembered = found
        return found

    def recall(self, message: "Message") -> bool:
        """Takes back what the last life remembered, if it is about this. ValueError: it can't be."""
        if message.kind != "remember_console":
            return False
        fields = message.fields
        domid, slot = fields.domid, fields.slot
        if slot not in self._free:
            raise ValueError("domain %d: slot %d is not free" % (domid, slot))
        if fields.ended and len(self._ended) >= MAX_ENDED:
            raise ValueError("domain %d: there are %d consoles that ended" % (domid, MAX_ENDED))
        if not fields.ended and (domid in self._live or len(self._live) >= MAX_DOMAINS):
            raise ValueError("domain %d: it has a console already, or there is no room" % domid)
        connection = None
        if not fields.ended:
            try:
                connection = self._connect(domid, fields.gref, fields.port)
            except OSError:
                pass  # it is gone: Builder will say so
        self._free.remove(slot)
        history = History(self._slots[slot], False)
        domain = Domain(
            domid, fields.parent, fields.gref, fields.port, slot, history, connection, self._broken
        )
        domain.broken = bool(fields.broken)
        if fields.ended:
            self._remembered = None
            self._ended.append(domain)
        else:
            self._start(domain)
        return True
