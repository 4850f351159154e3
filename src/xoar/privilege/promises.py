"""What the design promises about rights, whatever the manifests say.

Each promise is a set of rules that must never be there. They are checked here, where the manifest line that
breaks one is known, and written into the policy as `neverallow` rules, so that checkpolicy judges the
generated text once more.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xoar.privilege.errors import ManifestError
from xoar.privilege.manifest import PROTOCOLS, Manifest
from xoar.privilege.rules import (
    RESTORING,
    Rule,
    Rules,
    channel_type,
    domain_type,
    port_type,
    self_type,
)
from xoar.privilege.shardset import ShardSet, frontend_servers
from xoar.privilege.vectors import AccessVectors

# The only shards with rights over all other domains, and the only one with rights over those that it rolls
# back
BUILDERS = ("bootstrapper", "builder")
RESTORER = "restorer"

_USE_DEVICE = ("use", "use_iommu", "use_iommu_nointremap", "use_noiommu")
_GIVE_DEVICE = (
    "add_device", "remove_device", "plug", "unplug",
    "add_iomem", "remove_iomem", "add_ioport", "remove_ioport",
)  # fmt: skip
_SET_UP_DEVICE = ("setup", "add_irq", "remove_irq")
_CHANGE_POLICY = ("load_policy", "setenforce", "setsecparam", "add_ocontext", "del_ocontext")
# Permissions on the hypervisor with which a domain could change the code or the memory that all others trust
_REPROGRAM = {
    "xen": ("microcode", "kexec", "firmware", "mtrr_add", "mtrr_del", "writeapic", "mca_op"),
    "xen2": ("livepatch_op", "resource_op"),
}
_DEBUG = frozenset({"debug"})
# Xen's pseudo-domains, which own its shared pages and the memory of devices
_NOBODYS_MEMORY = frozenset({"domxen_t", "domio_t"})
_MAP = ("map_read", "map_write", "transfer")


@dataclass(frozen=True)
class Never:
    """Rules that must not exist: any of the sources, targets and permissions combined.

    With `but_optional` they may exist as optional rights, which no `neverallow` rule can tell apart.
    """

    promise: str
    sources: frozenset[str]
    targets: frozenset[str]
    security_class: str
    permissions: frozenset[str]
    but_optional: bool = False

    def forbids(self, rule: Rule, optional: bool = False) -> bool:
        return (
            not (optional and self.but_optional)
            and rule.source in self.sources
            and rule.target in self.targets
            and rule.security_class == self.security_class
            and rule.permission in self.permissions
        )


LINKED_ONLY = "pages and event channels are shared along declared links and front ends only"


def check(rules: Rules, promises: "list[Never]") -> None:
    """Raises ManifestError for the first rule that breaks a promise; it names the line that asks for it."""
    for rule, origins in rules.items():
        for promise in broken(rule, promises, optional=bool(origins[0].condition)):
            text = f'"{rule}" breaks the promise: {promise}'
            raise ManifestError(origins[0].path, max(1, origins[0].line), text)


def broken(rule: Rule, promises: "list[Never]", optional: bool = False) -> tuple[str, ...]:
    """The promises that a rule breaks or would break, each once."""
    return tuple(dict.fromkeys(never.promise for never in promises if never.forbids(rule, optional)))


def promises(shards: ShardSet, vectors: AccessVectors) -> list[Never]:
    """All promises about these domains, in the classes and permissions of the Xen being built."""
    found = []
    for promise, sources, targets, security_class, wanted in _all(shards):
        known = frozenset(vectors.permissions.get(security_class, ()))
        if wanted is None:
            permissions = known
        elif isinstance(wanted, _AllBut):
            permissions = known - wanted.permissions
        else:
            permissions = known & frozenset(wanted)
        if sources and targets and permissions:
            found.append(Never(promise, sources, targets, security_class, permissions))
    # the domain that operators reach Xen through, and only when they say so
    keys = frozenset({domain_type("console")}), frozenset({"xen_t"}), "xen", _DEBUG
    found.append(Never("Console presses Xen's debug keys only while that is permitted", *keys, True))
    return found


@dataclass(frozen=True)
class _AllBut:
    """All permissions of the class but these."""

    permissions: frozenset[str]


# promise, sources, targets, security class, permissions (None: all of the class)
_Claim = tuple[str, frozenset[str], frozenset[str], str, tuple[str, ...] | _AllBut | None]


def _all(shards: ShardSet) -> Iterator[_Claim]:
    manifests = tuple(shards.manifests.values())
    domains = frozenset(domain_type(m.name) for m in manifests) | {self_type(m) for m in manifests}
    for manifest in manifests:
        if manifest.name not in BUILDERS:
            yield from _powerless(manifest, shards, domains)
        if manifest.many:
            yield from _apart(manifest, shards)
        yield from _linked_only(manifest, shards, domains)
    yield from _devices(manifests, shards, domains)

    policy, xen = frozenset({"security_t"}), frozenset({"xen_t"})
    yield "no domain changes the policy", domains, policy, "security", _CHANGE_POLICY
    builder, console = domain_type("builder"), domain_type("console")
    yield "only Builder switches optional rights", domains - {builder}, policy, "security", ("setbool",)
    yield "only Console presses Xen's debug keys", domains - {console}, xen, "xen", tuple(_DEBUG)
    for security_class, permissions in _REPROGRAM.items():
        yield "no domain reprograms the machine", domains, xen, security_class, permissions


def _powerless(manifest: Manifest, shards: ShardSet, domains: frozenset[str]) -> Iterator[_Claim]:
    """What only Bootstrapper and Builder may do, for a domain that is neither."""
    own = frozenset({domain_type(manifest.name)})
    others = domains - {self_type(manifest)}
    restored = _types(shards.restarted) if manifest.name == RESTORER else frozenset()
    strangers = others - restored
    yield "only Bootstrapper and Builder create domains", own, domains, "domain", ("create",)
    promise = (
        "only Bootstrapper and Builder reach into the memory of other domains, and Restorer into that of "
    )
    promise += "those that it rolls back"
    yield promise, own, strangers | _NOBODYS_MEMORY, "mmu", None
    yield promise, own, strangers, "shadow", None
    yield promise, own, others, "domain2", ("resource_map", "mem_access", "mem_paging", "mem_sharing")
    control = "only Bootstrapper and Builder control other domains, and Restorer those that it rolls back"
    for security_class in ("domain", "hvm"):
        yield control, own, strangers, security_class, None
    yield control, own, others, "domain2", None
    for security_class in ("mmu", "shadow", "domain", "hvm"):
        needed = frozenset(permission for name, permission in RESTORING if name == security_class)
        yield control, own, restored, security_class, _AllBut(needed)
    yield control, own, others, "grant", ("setup", "query")
    yield control, own, others, "event", ("reset",)
    ends = frozenset(channel_type(m.name) for m in shards.manifests.values() if m is not manifest)
    yield control, own, ends, "event", ("create", "send", "status")


def _apart(manifest: Manifest, shards: ShardSet) -> Iterator[_Claim]:
    kinds = {"guest": ("guests", shards.guests), "driver": ("driver domains", shards.drivers)}
    who, alike = kinds.get(manifest.kind, ("tenants", shards.tenants))
    promise = f"{who} have no relation with one another"
    own, others = frozenset({domain_type(manifest.name)}), _types(alike)
    for security_class in ("domain", "domain2", "hvm", "mmu", "shadow", "grant", "argo"):
        yield promise, own, others, security_class, None
    yield promise, frozenset({channel_type(manifest.name)}), others, "event", ("bind",)


def _linked_only(manifest: Manifest, shards: ShardSet, domains: frozenset[str]) -> Iterator[_Claim]:
    own = frozenset({domain_type(manifest.name)})
    others = domains - {self_type(manifest)}
    clients = _clients(manifest, shards)
    # who copies its clients' pages maps none
    yield LINKED_ONLY, own, others - (frozenset() if manifest.copies else clients), "grant", _MAP
    # Xen's check of a copy names the owners of both pages, so it is the same for both directions
    names = [use.server for use in manifest.uses if shards.manifests[use.server].copies]
    copying = frozenset(map(domain_type, [*names, *frontend_servers(manifest, "vif")]))
    copied = _types(shards.clients(manifest, "vif")) | (clients if manifest.copies else frozenset())
    yield LINKED_ONLY, own, others - copying - copied, "grant", ("copy",)
    ends = frozenset({channel_type(manifest.name)})
    peers = clients | _servers(manifest) | _first_steps(manifest, shards) | _restoring(manifest, shards)
    yield LINKED_ONLY, ends, domains - peers, "event", ("bind",)


def _devices(manifests: tuple[Manifest, ...], shards: ShardSet, domains: frozenset[str]) -> Iterator[_Claim]:
    """Who may hand out devices, set them up, and use them."""
    promise = "only Bootstrapper and Builder hand out devices, memory of devices and I/O ports"
    builders = frozenset(map(domain_type, BUILDERS))
    # Xen calls it use without IOMMU when a domain without DMA has device memory: to pass it on, and PCIBack
    # configuration space, which it writes
    holders = _types(m for m in manifests if "hardware" in m.receives)
    back_ends = _types(m for m in manifests if shards.clients(m, "pci"))
    ports = {port_type(manifest.name) for manifest in manifests if manifest.serial}
    resources = frozenset({"irq_t", "ioport_t", "iomem_t", "device_t"} | ports)
    yield promise, domains - builders, resources, "resource", _GIVE_DEVICE
    assigners = domains - {domain_type("builder")}
    yield "only Builder assigns devices", assigners, resources, "resource", ("add_device", "remove_device")
    for manifest in manifests:
        if manifest.name not in BUILDERS:
            own, clients = domain_type(manifest.name), _types(shards.clients(manifest, "pci"))
            yield promise, frozenset({own}), domains - clients, "resource", ("add", "remove")

    promise = "only PCIBack sets up devices and their interrupts"
    yield promise, domains - back_ends, resources, "resource", _SET_UP_DEVICE
    promise = "a device is used by driver domains only, behind the IOMMU"
    drivers = _types(shards.drivers)
    behind = frozenset({"iomem_t", "device_t"})
    yield promise, domains - drivers, behind, "resource", ("use_iommu",)
    yield promise, domains - back_ends, frozenset({"device_t"}), "resource", ("use_noiommu",)
    yield promise, domains - back_ends - holders, frozenset({"iomem_t"}), "resource", ("use_noiommu",)
    yield promise, domains, behind, "resource", ("use", "use_iommu_nointremap")

    promise = "I/O ports are used by the domain whose manifest names them, interrupts of the board by none"
    yield promise, domains, frozenset({"ioport_t", "irq_t"}), "resource", _USE_DEVICE
    for manifest in manifests:
        if manifest.serial:
            own, others = port_type(manifest.name), domains - {domain_type(manifest.name)}
            yield promise, others, frozenset({own}), "resource", _USE_DEVICE


def _types(manifests: Iterable[Manifest]) -> frozenset[str]:
    return frozenset(domain_type(manifest.name) for manifest in manifests)


def _first_steps(manifest: Manifest, shards: ShardSet) -> frozenset[str]:
    """The other ends of the channels over which shards tell the first one that they serve."""
    at_boot = [m for level in shards.levels for m in level]
    if manifest is shards.root:
        return _types(at_boot)
    return _types([shards.root]) if manifest in at_boot else frozenset()


def _restoring(manifest: Manifest, shards: ShardSet) -> frozenset[str]:
    """The other ends of the channels between the one who rolls back, those who are, and those who ask for
    it."""
    restorer = shards.restorer
    concerned = [*shards.restarted]
    concerned += [shards.manifests[name] for target in shards.restarted for name in target.restart.by]
    if manifest is restorer:
        return _types(concerned)
    return _types([restorer]) if restorer is not None and manifest in concerned else frozenset()


def _clients(server: Manifest, shards: ShardSet) -> frozenset[str]:
    """Whose pages it maps, along links and as a back end."""
    users = [m for m in shards.manifests.values() if any(use.server == server.name for use in m.uses)]
    return _types(users) | _types(shards.clients(server, *PROTOCOLS))


def _servers(client: Manifest) -> frozenset[str]:
    names = [use.server for use in client.uses] + [frontend.server for frontend in client.frontends]
    return frozenset(domain_type(name) for name in names)
