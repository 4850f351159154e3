"""The end of domains: of those that Builder destroys, and of those that end by themselves.

Before a domain is destroyed, XenStore and Console let go of it. It has gone only when Xen says so: as long
as somebody holds on to one of its pages, it is dying.
"""

from xoar.builder.domains import DYING
from xoar.builder.operations import Call
from xoar.builder.reports import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.builder.domains import Domain
    from xoar.builder.interface import Machine
    from xoar.builder.operations import Done, Operations
    from xoar.builder.plugging import Plugging
    from xoar.messages.channel import Channel

_TIMEOUT = 10 * 1000000000  # ns that a domain may take to vanish


class Ends:
    """`records` are the domains that Builder knows of, by domid; `clients` and `servers` as in Service;
    `kicks`: what has a shard rolled back, by its name."""

    def __init__(
        self,
        machine: "Machine",
        records: "dict[int, Domain]",
        operations: "Operations",
        plugging: "Plugging",
        clients: "dict[str, Channel]",
        servers: "dict[str, Channel]",
        kicks: "dict[str, Callable[[], None]]",
    ) -> None:
        self._machine = machine
        self._records = records
        self._operations = operations
        self._plugging = plugging
        self._clients = clients
        self._servers = servers
        self._kicks = kicks
        self._dying: "dict[int, tuple[int, Done]]" = {}  # domid -> deadline, continuation

    @property
    def idle(self) -> bool:
        """Whether no domain is dying."""
        return not self._dying

    def is_dying(self, domid: int) -> bool:
        """Whether Builder destroys this domain just now."""
        return domid in self._dying

    def release(self, domid: int, done: "Done") -> None:
        """Has the servers let go of a domain, destroys it, and goes on when it has vanished."""
        self._dying[domid] = (self._machine.now() + _TIMEOUT, done)
        self._records[domid].stage = DYING

        def released(trouble: str) -> None:
            # a server that refuses or hangs must not keep a domain alive
            if trouble:
                print("builder: releasing domain %d: %s" % (domid, trouble))
            self._hang_up(domid, record)
            self._machine.destroy(domid)
            self.changed()

        record = self._records[domid]
        calls = [Call(server, "release", {"domid": domid}) for server in record.servers()]
        self._operations.start(calls, released)

    def take_back(self, domid: int) -> None:
        """Destroys a domain that nobody but Builder knows of."""
        self._hang_up(domid, self._records[domid])
        if [info for info in self._machine.domains() if info.domid == domid]:
            self._dying[domid] = (self._machine.now() + _TIMEOUT, lambda trouble: None)
            self._records[domid].stage = DYING
            self._machine.destroy(domid)
            self.changed()
        else:
            self._records.pop(domid, None)

    def changed(self) -> None:
        """Looks at what has ended (VIRQ_DOM_EXC), reports it, and completes what waited for it."""
        present = {info.domid: info for info in self._machine.domains()}
        for domid in list(self._dying):
            if domid not in present:
                self._forget(domid, "")
        for domid, info in present.items():
            record = self._records.get(domid)
            if record and info.reason is None:
                record.reported = False  # a shard that had ended may have been rolled back
            if info.reason is None or domid in self._dying or (record and record.reported):
                continue
            if record:
                record.reported = True
            if domid == 0:
                self._machine.destroy(0)
            elif record:
                self._report(domid, record, reason_of(info))
        for domid in [domid for domid in self._records if domid not in present and domid not in self._dying]:
            record = self._records.pop(domid)
            if domid and not record.reported:
                self._report(domid, record, "vanished")
            self._hang_up(domid, record)
            self._plugging.ended(domid, record.name)

    def expire(self) -> None:
        """Gives up waiting for domains that take too long to vanish."""
        now = self._machine.now()
        for domid in [domid for domid, dying in self._dying.items() if dying[0] <= now]:
            self._forget(domid, "domain %d is still dying: somebody holds on to its pages" % domid)

    def deadlines(self) -> "list[int]":
        """When (ns) there is something to expire."""
        return [dying[0] for dying in self._dying.values()]

    def _report(self, domid: int, record: "Domain", reason: str) -> None:
        print("builder: domain %d (%s) ended: %s" % (domid, record.name or record.parent, reason))
        if record.parent in self._clients:
            self._clients[record.parent].send("stopped", 0, domid=domid, reason=reason)
        for server in self._servers.values():
            server.send("stopped", 0, domid=domid, reason=reason)
        if record.name in self._kicks:
            self._kicks[record.name]()
        if record.name in self._clients:
            self._clean_up_after(record.name)

    def _clean_up_after(self, client: str) -> None:
        """A Toolstack has ended: what it had half created goes; its running guests stay."""
        for domid, record in list(self._records.items()):
            if record.parent == client and not record.started and domid not in self._dying:
                self.release(domid, lambda trouble: None)

    def _hang_up(self, domid: int, record: "Domain") -> None:
        """Gives back a domain's page and port, if it was a client that Builder built."""
        if record.parent is not None and self._clients.pop(record.name, None) is not None:
            self._machine.close(domid)

    def _forget(self, domid: int, trouble: str) -> None:
        done = self._dying.pop(domid)[1]
        if not trouble:
            self._plugging.ended(domid, self._records.pop(domid).name)
        done(trouble)
