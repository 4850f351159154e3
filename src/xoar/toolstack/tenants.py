"""The Toolstacks of the host's tenants: built when the host starts, and again when one ends.

Each is a domain of its own with the tenant's guests; Builder keeps it within its quota and away from the
guests of others. The host's Toolstack has it built, and no other power over it.
"""

from xoar.messages.errors import EBUSY, ENOENT
from xoar.messages.records import TENANT
from xoar.toolstack import records
from xoar.toolstack.builder import RENEWED
from xoar.toolstack.ends import RETRIES, RETRY_MS
from xoar.toolstack.store import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.guest import Request
    from xoar.toolstack.memory import Thing
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.waits import Waits

BUILDING, READY, FAILED = "building", "ready", "failed"
QUICK_END_MS = 20_000
MAX_QUICK_ENDS = 3
"""One that so often in a row ends sooner than QUICK_END_MS after its start is not built again."""

_PER_PAGE = 16


class Tenant:
    """One tenant: the name of its shard, the domid of that, and after how many seconds it is built anew (0:
    never)."""

    def __init__(self, name: str, domid: int, seconds: int) -> None:
        self.name = name
        self.shard = "tenant-" + name
        self.domid = domid
        self.seconds = seconds
        self.state = BUILDING
        self.note = ""
        self.recorded = False  # whether XenStore knows its Toolstack
        self.asked = False  # whether this life has asked for what its state says
        self.restarts = 0
        self.quick_ends = 0
        self.since_ms = 0

    def remembered(self) -> "Thing":
        """What there is to remember."""
        fields = (self.name, self.state, self.note[:256], self.restarts, self.quick_ends, self.since_ms)
        return self, "kept_tenant", fields


def declared(settings: "Callable[[str], list[str]]") -> "list[Tenant]":
    """Those of the command line's words `tenant=<name>:<domid>`, and `tenant_seconds=<seconds>`."""
    seconds = int((settings("tenant_seconds") or ["0"])[0])
    tenants = []
    for word in settings("tenant"):
        name, domid = word.split(":")
        tenants.append(Tenant(name, int(domid), seconds))
    return tenants


class Tenants:
    """All tenants; `owner` is the Toolstack's domid, for `clock` see Waits."""

    def __init__(
        self,
        builder: "Builder",
        store: "StoreLink",
        waits: "Waits",
        clock: "Callable[[], int]",
        owner: int,
        tenants: "list[Tenant]",
        report: "Callable[[str], None]",
    ) -> None:
        self.all = tenants
        self.prepare: "Callable[[Tenant, Callable[[], None]], None]" = lambda tenant, prepared: prepared()
        """Called once XenStore knows a tenant's Toolstack, which runs when `prepared` has been called."""
        self._builder = builder
        self._store = store
        self._waits = waits
        self._clock = clock
        self._owner = owner
        self._report = report

    # the last life's

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way with any of them."""
        return all([tenant.state != BUILDING for tenant in self.all])

    def recall(self, fields: "Any") -> "Tenant | None":
        """The tenant that a record of the last life is about, as it was then; None if there is none."""
        tenant = self.find(fields.name)
        if tenant is not None:
            tenant.state, tenant.note, tenant.restarts = fields.state, fields.note, fields.restarts
            tenant.quick_ends = min(fields.quick_ends, MAX_QUICK_ENDS)
            tenant.since_ms = min(fields.since_ms, self._clock())
            tenant.recorded = tenant.state == READY
        return tenant

    def compare(self, domains: "dict[int, Any]") -> None:
        """Has those built that Builder's rows by domid lack; again, if they have ended or are not whole."""
        for tenant in self.all:
            row = domains.get(tenant.domid)
            if tenant.state == READY:
                ended = "vanished" if row is None or row.state == "dying" else row.reason
                if ended != "none":
                    self.stopped(tenant.domid, ended)
            elif tenant.state == BUILDING and not tenant.asked and row is not None:
                self._anew(tenant, "the Toolstack or Builder began anew while it was being built")
            elif tenant.state == BUILDING and not tenant.asked:
                self._build(tenant)

    def find(self, name: str) -> "Tenant | None":
        """The tenant of that name."""
        for tenant in self.all:
            if tenant.name == name:
                return tenant
        return None

    def stopped(self, domid: int, reason: str) -> None:
        """Builder says that a domain shut itself down or vanished."""
        for tenant in self.all:
            if tenant.domid == domid and tenant.state == READY:
                quick = self._clock() - tenant.since_ms < QUICK_END_MS
                tenant.quick_ends = tenant.quick_ends + 1 if quick else 0
                if reason == "poweroff" and tenant.seconds and not quick:
                    self._anew(tenant, "its Toolstack is being built anew")  # as it should
                else:
                    self._again(tenant, "its Toolstack ended: %s" % reason)

    def deadline_ms(self) -> "int | None":
        """When the next of them has been there for as long as it may."""
        ends = [tenant.since_ms + tenant.seconds * 1000 for tenant in self._limited()]
        return min(ends) if ends else None

    def poll(self) -> None:
        """Has those built anew that have been there for too long."""
        for tenant in self._limited():
            if self._clock() - tenant.since_ms >= tenant.seconds * 1000:
                self._again(tenant, "its Toolstack did not end after %d s" % tenant.seconds)

    def _limited(self) -> "list[Tenant]":
        return [tenant for tenant in self.all if tenant.state == READY and tenant.seconds]

    def page(self, start: int, request: "Request") -> None:
        """Answers tenant_list."""

        def answered(message: "Message") -> None:
            if message.kind == "error":
                request.refuse(message.fields.errno, message.fields.text)
                return
            quotas = {quota.name: quota for quota in message.fields.quotas}
            page = [tenant for tenant in self.all[start : start + _PER_PAGE] if tenant.shard in quotas]
            rows = [self._row(tenant, quotas[tenant.shard]) for tenant in page]
            more = int(len(self.all) > start + _PER_PAGE)
            request.answer("tenants", more=more, tenants=rows)

        # both have the order of the boot plan, and Builder's page is longer
        self._builder.ask("quotas", answered, start=start)

    def _row(self, tenant: Tenant, quota: "Any") -> "Any":
        return TENANT.value(
            tenant.name,
            tenant.domid,
            tenant.state,
            quota.guests,
            quota.memory_kib,
            quota.vcpus,
            quota.devices,
            quota.max_guests,
            quota.max_memory_kib,
            quota.max_vcpus,
            quota.max_devices,
            max(self._clock() - tenant.since_ms, 0),
            tenant.restarts,
            tenant.note[:256],
        )

    def _build(self, tenant: Tenant) -> None:
        tenant.state, tenant.asked = BUILDING, True
        tenant.since_ms = self._clock()
        self._builder.ask("build_shard", lambda reply: self._built(tenant, reply), name=tenant.shard)

    def _built(self, tenant: Tenant, message: "Message") -> None:
        if message.kind != "built":
            self._refused(tenant, "its Toolstack could not be built", message)
            return
        tenant.recorded = True
        batch = Batch(self._store)
        records.shard(batch, tenant.domid, tenant.shard)
        self._store.run(batch, lambda refused: self._recorded(tenant, refused))

    def _recorded(self, tenant: Tenant, refused: str) -> None:
        if refused:
            self._fail(tenant, refused)
        else:
            self.prepare(tenant, lambda: self._prepared(tenant))

    def _prepared(self, tenant: Tenant) -> None:
        self._builder.ask("unpause", lambda reply: self._unpaused(tenant, reply), domid=tenant.domid)

    def _unpaused(self, tenant: Tenant, message: "Message") -> None:
        if message.kind == "done":
            tenant.state, tenant.note = READY, ""
        else:
            self._refused(tenant, "its Toolstack was not started", message)

    def _again(self, tenant: Tenant, note: str) -> None:
        """Builds it anew, unless it has ended too often."""
        self._report("tenant %s: %s" % (tenant.name, note))
        if tenant.quick_ends >= MAX_QUICK_ENDS:
            self._fail(tenant, "%s, %d times right after its start" % (note, MAX_QUICK_ENDS))
        else:
            tenant.restarts += 1
            self._anew(tenant, note)

    def _anew(self, tenant: Tenant, note: str) -> None:
        """Builds it, once what is left of it is gone."""
        tenant.recorded = False
        tenant.state, tenant.asked, tenant.note = BUILDING, True, note
        self._destroy(tenant, RETRIES)

    def _destroy(self, tenant: Tenant, tries: int) -> None:
        def destroyed(message: "Message") -> None:
            if message.kind == "done" or message.fields.errno == ENOENT:
                self._build(tenant)
            elif message.fields.errno == EBUSY and tries:
                # Builder is at it, for an earlier life of this Toolstack or of its own
                self._waits.until(lambda: False, RETRY_MS, lambda _: self._destroy(tenant, tries - 1))
            else:
                self._refused(tenant, "its Toolstack could not be destroyed", message)

        self._builder.ask("destroy", destroyed, domid=tenant.domid)

    def _refused(self, tenant: Tenant, what: str, message: "Message") -> None:
        if message.fields.text == RENEWED:
            tenant.asked = False  # what Builder's next life says decides
        else:
            self._fail(tenant, "%s: %s" % (what, message.fields.text))

    def _fail(self, tenant: Tenant, note: str) -> None:
        tenant.state, tenant.note = FAILED, note
        self._report("tenant %s failed: %s" % (tenant.name, note))
