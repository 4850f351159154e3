"""What the design promises about rights, whatever the manifests say.

Each promise is a set of rules that must never be there. They are checked here, where the manifest line that
breaks one is known, and written into the policy as `neverallow` rules, so that checkpolicy judges the
generated text once more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xoar.privilege.errors import ManifestError
from xoar.privilege.manifest import Manifest
from xoar.privilege.rules import Rule, Rules, channel_type, domain_type, port_type, self_type
from xoar.privilege.shardset import ShardSet
from xoar.privilege.vectors import AccessVectors

# The only shards with rights over other domains
BUILDERS = ("bootstrapper", "builder")

_USE_DEVICE = ("use", "use_iommu", "use_iommu_nointremap", "use_noiommu")
_CHANGE_POLICY = ("load_policy", "setenforce", "setbool", "setsecparam", "add_ocontext", "del_ocontext")
# Permissions on the hypervisor with which a domain could change the code or the memory that all others trust
_REPROGRAM = {
    "xen": ("microcode", "kexec", "firmware", "mtrr_add", "mtrr_del", "writeapic", "mca_op", "debug"),
    "xen2": ("livepatch_op", "resource_op"),
}
_SHARE = ("map_read", "map_write", "copy", "transfer")


@dataclass(frozen=True)
class Never:
    """Rules that must not exist: any of the sources, targets and permissions combined."""

    promise: str
    sources: frozenset[str]
    targets: frozenset[str]
    security_class: str
    permissions: frozenset[str]

    def forbids(self, rule: Rule) -> bool:
        return (
            rule.source in self.sources
            and rule.target in self.targets
            and rule.security_class == self.security_class
            and rule.permission in self.permissions
        )


def check(rules: Rules, promises: "list[Never]") -> None:
    """Raises ManifestError for the first rule that breaks a promise; it names the line that asks for it."""
    for rule, origins in rules.items():
        for never in promises:
            if never.forbids(rule):
                text = f'"{rule}" breaks the promise: {never.promise}'
                raise ManifestError(origins[0].path, max(1, origins[0].line), text)


def promises(shards: ShardSet, vectors: AccessVectors) -> list[Never]:
    """All promises about these domains, in the classes and permissions of the Xen being built."""
    found = []
    for promise, sources, targets, security_class, wanted in _all(shards):
        known = vectors.permissions.get(security_class, ())
        permissions = frozenset(known if wanted is None else set(wanted) & set(known))
        if sources and targets and permissions:
            found.append(Never(promise, sources, targets, security_class, permissions))
    return found


# promise, sources, targets, security class, permissions (None: all of the class)
_Claim = tuple[str, frozenset[str], frozenset[str], str, tuple[str, ...] | None]


def _all(shards: ShardSet) -> Iterator[_Claim]:
    manifests = tuple(shards.manifests.values())
    domains = frozenset(domain_type(m.name) for m in manifests) | {self_type(m) for m in manifests}
    for manifest in manifests:
        if manifest.name not in BUILDERS:
            yield from _powerless(manifest, manifests, domains)
        if manifest.kind == "guest":
            yield from _apart(manifest, shards)
        yield from _linked_only(manifest, shards, domains)

    devices = frozenset({"ioport_t", "iomem_t", "irq_t", "device_t"})
    promise = "a device is used by the domain whose manifest names it, and by no other"
    yield promise, domains, devices, "resource", _USE_DEVICE
    for manifest in manifests:
        if manifest.serial:
            ports = frozenset({port_type(manifest.name)})
            yield promise, domains - {domain_type(manifest.name)}, ports, "resource", _USE_DEVICE

    yield "no domain changes the policy", domains, frozenset({"security_t"}), "security", _CHANGE_POLICY
    for security_class, permissions in _REPROGRAM.items():
        yield "no domain reprograms the machine", domains, frozenset({"xen_t"}), security_class, permissions


def _powerless(
    manifest: Manifest, manifests: tuple[Manifest, ...], domains: frozenset[str]
) -> Iterator[_Claim]:
    """What only Bootstrapper and Builder may do, for a domain that is neither."""
    own = frozenset({domain_type(manifest.name)})
    others = domains - {self_type(manifest)}
    yield "only Bootstrapper and Builder create domains", own, domains, "domain", ("create",)
    promise = "only Bootstrapper and Builder reach into the memory of other domains"
    yield promise, own, others, "mmu", None
    yield promise, own, others, "shadow", None
    yield promise, own, others, "domain2", ("resource_map", "mem_access", "mem_paging", "mem_sharing")
    promise = "only Bootstrapper and Builder control other domains"
    for security_class in ("domain", "domain2", "hvm"):
        yield promise, own, others, security_class, None
    ends = frozenset(channel_type(m.name) for m in manifests if m is not manifest)
    yield promise, own, ends, "event", ("create", "send", "status")


def _apart(guest: Manifest, shards: ShardSet) -> Iterator[_Claim]:
    promise = "guests have no relation with one another"
    own = frozenset({domain_type(guest.name)})
    guests = frozenset(domain_type(other.name) for other in shards.guests)
    for security_class in ("domain", "domain2", "hvm", "mmu", "shadow", "grant", "argo"):
        yield promise, own, guests, security_class, None
    yield promise, frozenset({channel_type(guest.name)}), guests, "event", ("bind",)


def _linked_only(manifest: Manifest, shards: ShardSet, domains: frozenset[str]) -> Iterator[_Claim]:
    promise = "pages and event channels are shared along declared links only"
    own = frozenset({domain_type(manifest.name)})
    clients = _clients(manifest, shards)
    yield promise, own, domains - {self_type(manifest)} - clients, "grant", _SHARE
    ends = frozenset({channel_type(manifest.name)})
    peers = clients | _servers(manifest) | _first_steps(manifest, shards)
    yield promise, ends, domains - peers, "event", ("bind",)


def _first_steps(manifest: Manifest, shards: ShardSet) -> frozenset[str]:
    """The other ends of the channels over which shards tell the first one that they serve."""
    if manifest.kind == "guest":
        return frozenset()
    if manifest is shards.root:
        return frozenset(domain_type(m.name) for level in shards.levels for m in level)
    return frozenset({domain_type(shards.root.name)})


def _clients(server: Manifest, shards: ShardSet) -> frozenset[str]:
    return frozenset(
        domain_type(m.name) for m in shards.manifests.values() if any(u.server == server.name for u in m.uses)
    )


def _servers(client: Manifest) -> frozenset[str]:
    return frozenset(domain_type(use.server) for use in client.uses)
