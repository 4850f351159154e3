"""Driver domains that are delegated to tenants: what the host's Toolstack keeps and tells of that.

Builder decides which Toolstack's guests are linked to which driver domain. What a tenant may have of a driver
domain (networks, room for volumes, images to clone) the driver domain is told in its records, the tenant's
Toolstack in its own (docs/devices.md); both are written anew when one of the two comes back.
"""

from xoar.messages.errors import EINVAL, ENOENT
from xoar.messages.records import DELEGATION
from xoar.toolstack import records
from xoar.toolstack.delegated import DELEGATED, NETWORKS, driver_word, network_word
from xoar.toolstack.driver import BLKBACK, NETBACK, tenant_path
from xoar.toolstack.store import Batch
from xoar.xenstore import wire
from xoar.xenstore.paths import node_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.driver import Driver
    from xoar.toolstack.drivers import Drivers
    from xoar.toolstack.guest import Request
    from xoar.toolstack.memory import Thing
    from xoar.toolstack.networks import DeclaredNetworks
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.tenants import Tenant, Tenants

_PER_PAGE = 6
_SERVICE, _REQUESTS = "/service", "/requests"
"""What a driver domain says to a tenant's Toolstack, and what that asks for."""


class Delegation:
    """`fields` are a DELEGATION."""

    def __init__(self, fields: "Any", driver: "Driver", tenant: "Tenant") -> None:
        self.fields = fields
        self.driver = driver
        self.tenant = tenant
        self.told = False  # both sides can know of it

    @property
    def path(self) -> str:
        """Where the driver domain reads it."""
        return tenant_path(self.driver.domid, self.tenant.domid)


class Delegations:
    """All delegations; `owner` is the Toolstack's domid."""

    def __init__(
        self,
        builder: "Builder",
        store: "StoreLink",
        drivers: "Drivers",
        networks: "DeclaredNetworks",
        tenants: "Tenants",
        owner: int,
        report: "Callable[[str], None]",
    ) -> None:
        self._builder = builder
        self._store = store
        self._drivers = drivers
        self._networks = networks
        self._tenants = tenants
        self._owner = owner
        self._report = report
        self._all: "list[Delegation]" = []
        drivers.preparing.append(self._write_all)
        tenants.prepare = self._tell_anew

    def users(self, network: str) -> "list[str]":
        """The tenants that may use a network."""
        return [
            "tenant " + entry.tenant.name for entry in self._all if network in _names(entry.fields.networks)
        ]

    # operators' requests

    def delegate(self, fields: "Any", request: "Request") -> None:
        """Delegates a driver domain to a tenant; other words replace those of an earlier time."""
        driver, tenant = self._parties(fields, request)
        if driver is None or tenant is None:
            return
        wrong = self._judge(fields, driver)
        if wrong:
            request.refuse(EINVAL, wrong)
            return

        def allowed(message: "Message") -> None:
            if message.kind != "done":
                request.refuse(message.fields.errno, message.fields.text)
                return
            earlier = self._find(driver, tenant)
            made = Delegation(fields, driver, tenant)
            made.told = earlier is not None and earlier.told
            self._all = [entry for entry in self._all if entry is not earlier] + [made]
            if driver.recorded and tenant.recorded and earlier is None:
                self._write(made, [""], True)
            elif driver.recorded and earlier is not None:
                self._write(made, [path for path in _words(earlier) if path not in _words(made)], False)

            def told() -> None:
                made.told = True
                request.answer("done")

            self._tell(tenant, told)

        self._builder.ask("allow_delegation", allowed, driver=driver.name, toolstack=tenant.shard)

    def withdraw(self, fields: "Any", request: "Request") -> None:
        """Takes a delegation back."""
        driver, tenant = self._parties(fields, request)
        if driver is None or tenant is None:
            return

        def withdrawn(message: "Message") -> None:
            if message.kind != "done":
                request.refuse(message.fields.errno, message.fields.text)
                return
            # the tenant's Toolstack first: it is not to take this for an end of the driver domain
            left = [entry for entry in self._all if entry is not self._find(driver, tenant)]
            gone, self._all = [entry for entry in self._all if entry not in left], left
            self._tell(tenant, lambda: self._remove(gone, lambda: request.answer("done")))

        self._builder.ask("withdraw_delegation", withdrawn, driver=driver.name, toolstack=tenant.shard)

    def page(self, start: int, request: "Request") -> None:
        """Answers delegation_list."""
        end = start + _PER_PAGE
        rows = [DELEGATION.value(*entry.fields) for entry in self._all[start:end]]
        request.answer("delegations", more=int(len(self._all) > end), delegations=rows)

    # the last life's

    def remembered(self) -> "list[Thing]":
        """What there is to remember: those that were answered for."""
        return [(entry, "kept_delegation", entry.fields) for entry in self._all if entry.told]

    def recall(self, fields: "Any") -> "tuple[Delegation | None, str]":
        """The delegation that a record of the last life is about, or what is wrong with it."""
        driver, tenant = self._drivers.find(fields.driver), self._tenants.find(fields.tenant)
        if driver is None or tenant is None or self._find(driver, tenant) is not None:
            return None, "there is no such driver domain or tenant, or it is there already"
        wrong = self._judge(fields, driver)
        if wrong:
            return None, wrong
        entry = Delegation(DELEGATION.value(*fields), driver, tenant)
        entry.told = True
        self._all.append(entry)
        return entry, ""

    # records

    def _write_all(self, batch: Batch, driver: "Driver") -> None:
        """A driver domain's records are written, which runs after that."""
        for entry in self._all:
            if entry.driver is driver and entry.tenant.recorded:
                self._add(batch, entry, [""], True)

    def _tell_anew(self, tenant: "Tenant", told: "Callable[[], None]") -> None:
        """A tenant's Toolstack has been built, and runs once it is told. What driver domains said to the last
        one is gone then, so it is not taken for a word to this one; what they were told of the tenant stays,
        for the guests that run."""
        for entry in self._all:
            if entry.tenant is tenant and entry.driver.recorded:
                self._write(entry, [_SERVICE, _REQUESTS], True)
        self._tell(tenant, told)  # XenStore does one after the other

    def _write(self, entry: Delegation, removed: "list[str]", talk: bool) -> None:
        batch = Batch(self._store)
        self._add(batch, entry, removed, talk)
        self._run(batch, lambda: None)

    def _add(self, batch: Batch, entry: Delegation, removed: "list[str]", talk: bool) -> None:
        """What the driver domain reads; it takes it for whole once there is a name, and looks again when that
        is written. First goes what is to be `removed`; `talk`: the two begin to speak to each other."""
        path, driver, tenant = entry.path, entry.driver.domid, entry.tenant.domid
        for below in removed:
            batch.add(wire.RM, path + below)
        batch.read_by(path, self._owner, driver)
        if talk:
            batch.make(path + _SERVICE, self._owner, driver, tenant)
            batch.make(path + _REQUESTS, self._owner, tenant, driver)
        for below in _words(entry):
            batch.add(wire.WRITE, path + below, "")
        if entry.driver.kind == BLKBACK:
            batch.add(wire.WRITE, path + "/volumes_kib", "%d" % entry.fields.volumes_kib)
        batch.add(wire.WRITE, path + "/name", entry.tenant.name)

    def _tell(self, tenant: "Tenant", told: "Callable[[], None]") -> None:
        """Writes what a tenant's Toolstack reads."""
        batch = Batch(self._store)
        if tenant.recorded:
            home = records.domain_path(tenant.domid)
            entries = [entry for entry in self._all if entry.tenant is tenant]
            networks = [
                self._networks.find(name) for entry in entries for name in _names(entry.fields.networks)
            ]
            words = [network_word(network.fields) for network in networks if network is not None]
            # in this order: a network counts if its driver domain is known
            for name, text in (
                (DELEGATED, " ".join([driver_word(entry.driver) for entry in entries])),
                (NETWORKS, " ".join(words)),
            ):
                batch.add(wire.WRITE, "%s/%s" % (home, name), text)
        self._run(batch, told)

    def _remove(self, entries: "list[Delegation]", removed: "Callable[[], None]") -> None:
        batch = Batch(self._store)
        for entry in entries:
            if entry.driver.recorded:
                batch.add(wire.RM, entry.path)
        self._run(batch, removed)

    def _run(self, batch: Batch, done: "Callable[[], None]") -> None:
        def finished(refused: str) -> None:
            if refused:
                # one of the two has just ended: all is written again when it is back
                self._report("delegation: %s" % refused)
            done()

        self._store.run(batch, finished)

    # judging

    def _find(self, driver: "Driver", tenant: "Tenant") -> "Delegation | None":
        for entry in self._all:
            if entry.driver is driver and entry.tenant is tenant:
                return entry
        return None

    def _parties(self, fields: "Any", request: "Request") -> "tuple[Driver | None, Tenant | None]":
        """The two that a request names; refuses it if one is missing."""
        driver, tenant = self._drivers.find(fields.driver), self._tenants.find(fields.tenant)
        if driver is None:
            request.refuse(ENOENT, "there is no driver domain %s" % fields.driver)
        elif tenant is None:
            request.refuse(ENOENT, "there is no tenant %s" % fields.tenant)
        return driver, tenant

    def _judge(self, fields: "Any", driver: "Driver") -> str:
        """What is wrong with a delegation; "" if nothing is."""
        if driver.kind != NETBACK and fields.networks:
            return "%s is a %s: it has no networks" % (driver.name, driver.kind)
        if driver.kind != BLKBACK and (fields.volumes_kib or fields.images):
            return "%s is a %s: it has no volumes" % (driver.name, driver.kind)
        for name in _names(fields.networks):
            network = self._networks.find(name)
            if network is None or network.driver is not driver:
                return "%s has no network %s" % (driver.name, name)
        return ""


def _names(entries: "list[Any]") -> "list[str]":
    """Of an array of NAMED."""
    return [entry.name for entry in entries]


def _words(entry: Delegation) -> "list[str]":
    """The nodes that name what the tenant may have of the driver domain."""
    fields = entry.fields
    networks = ["/networks/%s" % name for name in _names(fields.networks)]
    return networks + ["/images/%s" % node_of(name) for name in _names(fields.images)]
