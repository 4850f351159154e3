"""The consoles of all domains: who is connected, what each printed, who ended lately.

A domain controls its ring and its event channel and nothing else: it is read at most one ring's worth a turn,
and the first impossible index ends its own console only.
"""

from xoar.shards.console.history import History
from xoar.xen.ring import RingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from xoar.xen.ring import ByteRing

    class Connection(Protocol):
        """A mapped console ring and its event channel."""

        port: int
        to_guest: ByteRing
        from_guest: ByteRing

        def notify(self) -> None:
            """Signals the domain."""

        def close(self) -> None:
            """Unmaps the ring and closes the channel."""


MAX_DOMAINS = 256
MAX_ENDED = 32
HISTORY_SIZE = 16384
_TURN_BYTES = 2048


class Domain:
    """One domain's console; `parent` is the domid of its Toolstack; `connection` is None once it has ended,
    `broken` if its ring made no sense."""

    def __init__(
        self, domid: int, parent: int, connection: "Connection", report: "Callable[[str], None]"
    ) -> None:
        self.domid = domid
        self.parent = parent
        self.history = History(HISTORY_SIZE)
        self.connection: "Connection | None" = connection
        self.broken = False
        self._report = report

    def read(self) -> bool:
        """Moves what the domain printed into its history; True if there is more."""
        if self.connection is None or self.broken:
            return False
        try:
            untrusted_data = self.connection.from_guest.read(_TURN_BYTES)
            if untrusted_data:
                self.history.append(untrusted_data)
                self.connection.notify()
            return self.connection.from_guest.readable() > 0
        except RingError as error:
            self._break(error)
            return False

    def write(self, data: bytes) -> int:
        """Gives the domain input; returns how many bytes its ring took."""
        if self.connection is None or self.broken:
            return 0
        try:
            count = self.connection.to_guest.write(data)
        except RingError as error:
            self._break(error)
            return 0
        if count:
            self.connection.notify()
        return count

    def end(self) -> None:
        """Keeps the domain's last words and lets go of its ring."""
        self.read()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _break(self, error: RingError) -> None:
        self.broken = True
        text = "console of domain %d stopped: %s" % (self.domid, error)
        self.history.append(("\r\n[xoar: %s]\r\n" % text).encode())
        self._report(text)


class Domains:
    """All domains that Builder has introduced, and the last ones that it has released."""

    def __init__(self, report: "Callable[[str], None]") -> None:
        self._report = report
        self._live: "dict[int, Domain]" = {}
        self._by_port: "dict[int, Domain]" = {}
        self._ended: "list[Domain]" = []
        self._ready: "list[Domain]" = []

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

    def add(self, domid: int, parent: int, connection: "Connection") -> None:
        """Takes over the console of a new domain; it may have printed already."""
        domain = Domain(domid, parent, connection, self._report)
        self._live[domid] = domain
        self._by_port[connection.port] = domain
        self._ready.append(domain)

    def remove(self, domid: int) -> bool:
        """Ends a domain's console; False if there is none."""
        domain = self._live.pop(domid, None)
        if domain is None:
            return False
        if domain.connection is not None:
            self._by_port.pop(domain.connection.port, None)
        domain.end()
        self._ended.append(domain)
        if len(self._ended) > MAX_ENDED:
            self._ended.pop(0)
        return True

    def drain(self, domid: int) -> None:
        """Reads a domain that Builder says has stopped, whether it signalled or not."""
        domain = self._live.get(domid)
        if domain is not None:
            domain.read()

    def fired(self, ports: "list[int]") -> None:
        """Notes the domains whose event channels these are."""
        for port in ports:
            domain = self._by_port.get(port)
            if domain is not None and domain not in self._ready:
                self._ready.append(domain)

    def read(self) -> bool:
        """Reads each domain that signalled once; True if one of them has more already."""
        ready = self._ready
        self._ready = []
        for domain in ready:
            if domain.read():
                self._ready.append(domain)
        return bool(self._ready)
