"""The boot plan: domids, order, and links of all shards, derived from the manifests, and driver domains.

What Bootstrapper and Builder do with it stands in docs/architecture.md and docs/devices.md.
xoar.host.bundle writes it in their words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from xoar.privilege import rules
from xoar.privilege.errors import PlanError
from xoar.privilege.manifest import Manifest, Right
from xoar.privilege.pci import bdf_number, emulated_bdf
from xoar.privilege.shardset import RESERVED_LINKS, ShardSet

FIRST_GUEST = 32
"""The lowest domid of guests; those below are kept for shards and driver domains."""

FIRST_TENANT = 0x7F00
"""The lowest domid of tenants' shards; those of guests are below."""

MAX_TENANTS = 100
UNASSIGNED = "none"
"""In place of the address of a driver domain's device."""


class Tenant(Protocol):
    """What a host's configuration says of a tenant (xoar.host.config.Tenant)."""

    @property
    def name(self) -> str: ...
    @property
    def memory_kib(self) -> int:
        """Of all its guests together; so are the next three."""

    @property
    def vcpus(self) -> int: ...
    @property
    def guests(self) -> int: ...
    @property
    def devices(self) -> int: ...
    @property
    def key(self) -> bytes:
        """With which its operators show that they are (xoar.messages.seal)."""


class Driver(Protocol):
    """What a host's configuration says of a driver domain (xoar.host.config.Driver)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """The name of its manifest."""

    @property
    def device(self) -> str | None:
        """The address of its PCI function; None in an emulated machine; UNASSIGNED: none until an operator
        gives it one."""

    @property
    def memory_kib(self) -> int | None:
        """None: what its manifest states."""


@dataclass(frozen=True)
class Link:
    """A page of the client, granted to the server, and an event channel."""

    client: str
    server: str
    name: str
    gref: int  # grant reference in the client's table
    role: str | None


@dataclass(frozen=True)
class PlannedShard:
    """A shard with its domid and the links that it opens; `tenant` is whose it is."""

    domid: int
    manifest: Manifest
    links: tuple[Link, ...]
    tenant: Tenant | None = None

    @property
    def name(self) -> str:
        return f"{self.manifest.name}-{self.tenant.name}" if self.tenant else self.manifest.name


@dataclass(frozen=True)
class PlannedDriver:
    """A driver domain: `bdf` is its device's number (xoar.privilege.pci), 0 for none."""

    domid: int
    name: str
    manifest: Manifest
    memory_kib: int
    bdf: int


@dataclass(frozen=True)
class BootPlan:
    """Shards in the order of their domids, which is the order of starting."""

    shards: tuple[PlannedShard, ...]
    waves: tuple[tuple[str, ...], ...]  # names; the shards of one wave start in parallel
    guest_links: tuple[Link, ...]  # what every guest has
    late: tuple[PlannedShard, ...]  # built on request; none without driver domains
    drivers: tuple[PlannedDriver, ...]
    tenants: tuple[PlannedShard, ...] = ()  # built on request, too
    optional: tuple[tuple[Manifest, Right], ...] = ()  # rights that are off, each class and permission once
    restorer: str | None = None  # who rolls shards back

    @property
    def restarted(self) -> tuple[PlannedShard, ...]:
        """The shards that are rolled back."""
        return tuple(shard for shard in self.shards if shard.manifest.restart.rolls_back)

    @property
    def on_request(self) -> tuple[PlannedShard, ...]:
        """All shards that Builder builds."""
        return (*self.late, *self.tenants)

    def links_to(self, server: str) -> tuple[Link, ...]:
        """The links that shards open to `server`, in order of the clients' domids."""
        return tuple(link for shard in self.shards for link in shard.links if link.server == server)


def plan(shards: ShardSet, drivers: Iterable[Driver] = (), tenants: Iterable[Tenant] = ()) -> BootPlan:
    """Gives domids: shards from 1 up by their dependencies, then late ones, then driver domains; tenants'
    shards from FIRST_TENANT up.

    The order of `drivers` and of `tenants` is that of the configuration. Raises PlanError for what can't be.
    """
    order = [manifest for level in shards.levels for manifest in level]
    at_boot = _planned(order, 1)
    late = _planned(shards.late, 1 + len(at_boot))
    planned = _drivers(shards, tuple(drivers), 1 + len(at_boot) + len(late))
    return BootPlan(
        at_boot,
        tuple(tuple(manifest.name for manifest in level) for level in shards.levels),
        tuple(link for guest in shards.guests for link in links(guest)),
        late if planned else (),
        planned,
        _tenants(shards, tuple(tenants)),
        tuple((manifest, right) for manifest in shards.in_boot_order() for right in rules.optional(manifest)),
        shards.restorer.name if shards.restorer else None,
    )


def _planned(manifests: Iterable[Manifest], first: int) -> tuple[PlannedShard, ...]:
    return tuple(
        PlannedShard(domid, manifest, links(manifest)) for domid, manifest in enumerate(manifests, first)
    )


def _tenants(shards: ShardSet, tenants: tuple[Tenant, ...]) -> tuple[PlannedShard, ...]:
    if len(tenants) > MAX_TENANTS:
        raise PlanError(f"there are {len(tenants)} tenants; a host has {MAX_TENANTS} at most")
    found: list[PlannedShard] = []
    for tenant in tenants:
        for manifest in shards.tenants:
            name = f"{manifest.name}-{tenant.name}"
            found.append(PlannedShard(FIRST_TENANT + len(found), manifest, links(manifest, name), tenant))
    return tuple(found)


def _drivers(shards: ShardSet, drivers: tuple[Driver, ...], first: int) -> tuple[PlannedDriver, ...]:
    most = FIRST_GUEST - first
    if len(drivers) > most:
        raise PlanError(f"there are {len(drivers)} driver domains; a host has {most} at most")
    kinds = {manifest.name: manifest for manifest in shards.drivers}
    owners: dict[int, str] = {}
    found = []
    for index, driver in enumerate(drivers):
        manifest = kinds.get(driver.kind)
        if manifest is None:
            text = f'driver {driver.name}: kind "{driver.kind}" is not one of: {", ".join(sorted(kinds))}'
            raise PlanError(text)
        try:
            bdf = _bdf(driver, index)
        except ValueError as error:
            raise PlanError(f"driver {driver.name}: {error}") from error
        if bdf and bdf in owners:
            raise PlanError(f"driver {driver.name}: its device is {owners[bdf]}'s already")
        owners[bdf] = driver.name
        memory = driver.memory_kib or memory_kib(manifest, 0)
        found.append(PlannedDriver(first + index, driver.name, manifest, memory, bdf))
    return tuple(found)


def _bdf(driver: Driver, index: int) -> int:
    if driver.device == UNASSIGNED:
        return 0
    return bdf_number(driver.device) if driver.device else emulated_bdf(index)


def links(manifest: Manifest, client: str = "") -> tuple[Link, ...]:
    """The links that a domain opens, named `client` if not as its manifest.

    References: console 0, xenstore 1, others from 2 in the file's order.
    """
    found = []
    gref = len(RESERVED_LINKS)
    for use in manifest.uses:
        if use.link in RESERVED_LINKS:
            number = RESERVED_LINKS.index(use.link)
        else:
            number, gref = gref, gref + 1
        found.append(Link(client or manifest.name, use.server, use.link, number, use.role))
    return tuple(found)


def memory_kib(manifest: Manifest, library_kib: int) -> int:
    """KiB that a shard is given: what its manifest states, and whole MiB for the library that it receives."""
    assert manifest.memory_kib is not None, "guests are given what their configuration states"
    received = -(-library_kib // 1024) * 1024 if "library" in manifest.receives else 0
    return manifest.memory_kib + received
