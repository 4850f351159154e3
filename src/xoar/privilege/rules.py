"""From manifests to allow rules: which type may do what to which, and because of which manifest line.

The rules follow the checks in Xen's xen/xsm/flask/hooks.c. Theory of operation:

- A domain has a type, `<name>_t`. A shard is one domain, so what it does to itself is checked against its own
  type. Guests are many domains of one type; what a guest does to itself is checked against `guest_t_self`
  (a type transition), so that a rule about itself says nothing about other guests. The same holds for driver
  domains and for tenants' shards.
- Each end of an event channel has a label, `<name>_t_channel` for the ends that <name> holds (a type
  transition). Whoever allocates or binds the end needs `event create` on that label; the label needs `event
  bind` on the domain at the other end; the holder needs `event send` on it.
- A link: the client's page is mapped by the server (`grant map_read map_write`, the target being the page's
  owner; and `unmap`, unless the client is there for ever), and the server binds to a port of the client that
  a builder allocated for it. The builder's `event create` on the client's label stands in the builder's
  manifest.
- A server that copies its clients' pages (pages = "copied") has `grant copy` in place of that, both ways: Xen
  asks whether the owner of the source may copy to the owner of the destination, whoever calls.
- The front end of a device: its domain allocates its end of the channel itself and grants pages by itself;
  else it is as with a link. Pages of a vif are also copied, in both directions: Xen asks whether the owner of
  the source may copy to the owner of the destination, whoever calls.
- Each shard that the first one starts tells it over an event channel when it serves.
- Who receives the hardware gets from the first shard the permission to pass on the memory of devices.
- A shard that is rolled back: the one that does it ("restarts") stops it, maps its memory and sets its state;
  an event channel leads there from it and from each shard that may ask. It has no right to change its memory
  map, so its shared info page is placed by the first shard.
- An I/O port that a manifest owns gets a label of its own, so that nobody else can be given it.
- An optional right becomes a rule that holds while a boolean of the policy is on, which it is not at boot.
  One boolean is for one class and permission of one manifest, on all targets that it states.

All else is denied.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from xoar.privilege.errors import ManifestError
from xoar.privilege.manifest import Frontend, Manifest, Right
from xoar.privilege.shardset import ShardSet

# The three permissions of class event whose target is the channel's label, not a domain
ON_CHANNELS = ("create", "send", "status")


class Rule(NamedTuple):
    """One permission: `allow source target:security_class permission;`"""

    source: str
    target: str
    security_class: str
    permission: str

    def __str__(self) -> str:
        return f"allow {self.source} {self.target}:{self.security_class} {self.permission};"


@dataclass(frozen=True)
class Origin:
    """Why a rule is there: a manifest's line, or a rule of the system about this manifest (line 0).

    An optional right has the name of the policy's boolean as its `condition`, all else "".
    """

    path: Path
    line: int
    why: str
    condition: str = ""

    @property
    def manifest(self) -> str:
        """The manifest by its folder's name: no path of this machine."""
        return "/".join(self.path.parts[-2:])

    def __str__(self) -> str:
        why = f"{self.why} (optional, off by default)" if self.condition else self.why
        return f"{self.manifest}:{self.line}: {why}" if self.line else f"{self.manifest}: {why}"


Rules = dict[Rule, list[Origin]]


@dataclass(frozen=True)
class Group:
    """Rules that differ only in the permission and have the same origins; `str()` is a line of the policy."""

    source: str
    target: str
    security_class: str
    permissions: tuple[str, ...]
    origins: tuple[Origin, ...]

    def __str__(self) -> str:
        return f"allow {self.source} {self.target}:{self.security_class} {name_set(self.permissions)};"

    @property
    def condition(self) -> str:
        """The boolean that they depend on; "": none. Only a manifest states an optional right, and alone."""
        return self.origins[0].condition


def grouped(allowed: Rules) -> list[Group]:
    """All rules, in the order of the first one of each group."""
    permissions: dict[tuple[str, str, str, tuple[Origin, ...]], list[str]] = {}
    for rule, origins in allowed.items():
        key = (rule.source, rule.target, rule.security_class, tuple(origins))
        permissions.setdefault(key, []).append(rule.permission)
    return [
        Group(source, target, security_class, tuple(names), origins)
        for (source, target, security_class, origins), names in permissions.items()
    ]


def name_set(names: Iterable[str]) -> str:
    """Names as the policy's language has them: one alone, or several in braces."""
    names = list(names)
    return names[0] if len(names) == 1 else "{ " + " ".join(names) + " }"


def domain_type(name: str) -> str:
    """The type of a shard, of all guests or driver domains of a kind, or of a special target."""
    return f"{name}_t"


def self_type(manifest: Manifest) -> str:
    """The type against which Xen checks what the domain does to itself."""
    return domain_type(manifest.name) + ("_self" if manifest.many else "")


def channel_type(name: str) -> str:
    """The type of the event channel ends that the domain holds."""
    return f"{domain_type(name)}_channel"


def port_type(name: str) -> str:
    """The type of the I/O ports that the domain owns."""
    return f"{name}_ioport_t"


def derive(shards: ShardSet) -> Rules:
    """All allow rules with their origins.

    Raises ManifestError for a right that is stated twice or that the domain has anyway.
    """
    rules: Rules = {}
    for manifest in shards.in_boot_order():
        for rule, origin in _structural(manifest, shards):
            rules.setdefault(rule, []).append(origin)
    implied = set(rules)
    for manifest in shards.in_boot_order():
        for right in manifest.rights:
            rule = stated(manifest, right, shards)
            if rule in rules:
                _raise_repeated(manifest, right, rules[rule][0], implied=rule in implied)
            condition = boolean(manifest, right) if right.optional else ""
            rules[rule] = [Origin(manifest.path, right.line, right.why, condition)]
    return rules


def boolean(manifest: Manifest, right: Right) -> str:
    """The policy's name for the switch of an optional right."""
    return f"{manifest.name}_{right.security_class}_{right.permission}"


def optional(manifest: Manifest) -> list[Right]:
    """The optional rights of a manifest: one for each class and permission, whatever they are on."""
    found = {boolean(manifest, right): right for right in reversed(manifest.rights) if right.optional}
    return list(reversed(found.values()))


def at_boot(allowed: Rules) -> Rules:
    """The rules that hold while nothing optional is permitted."""
    return {rule: origins for rule, origins in allowed.items() if not origins[0].condition}


def _structural(manifest: Manifest, shards: ShardSet) -> Iterator[tuple[Rule, Origin]]:
    own, own_self = domain_type(manifest.name), self_type(manifest)
    if manifest is shards.root:
        why = "Xen creates the first domain at boot"
        yield Rule("xenboot_t", own, "domain", "create"), Origin(manifest.path, 0, why)
    if manifest.restart.rolls_back:
        yield from _restarted(manifest, shards)
    elif manifest.kind == "shard":
        why = "nano maps its own shared info page and, with that, its clock"
        yield Rule(own, own_self, "mmu", "physmap"), Origin(manifest.path, 0, why)
    if manifest.kind == "shard":
        why = "nano tells Xen how it wants to be woken by events"
        yield Rule(own, own_self, "hvm", "setparam"), Origin(manifest.path, 0, why)
        if manifest is not shards.root and not manifest.on_request:
            yield from _ready(manifest, shards.root)
    for use in manifest.uses:
        origin = Origin(manifest.path, use.line, f"{manifest.name} opens the link {use.link} to {use.server}")
        yield from ((rule, origin) for rule in _shared(manifest, shards.manifests[use.server]))
    for frontend in manifest.frontends:
        yield from _frontend(manifest, frontend, shards.manifests[frontend.server])
    if manifest.serial:
        yield from _serial(manifest, shards.root)
    if "hardware" in manifest.receives:
        yield from _hardware(manifest, shards.root)
    if "restarts" in manifest.receives:
        why = f"{manifest.name} takes memory for the snapshots of others when they ask"
        yield Rule(own, own_self, "mmu", "adjust"), Origin(manifest.path, manifest.receives_line, why)


def _shared(manifest: Manifest, to: Manifest) -> Iterator[Rule]:
    """For pages of the client that the server maps or copies, and an event channel."""
    client, server = domain_type(manifest.name), domain_type(to.name)
    client_end, server_end = channel_type(manifest.name), channel_type(to.name)
    if to.copies:
        yield Rule(client, server, "grant", "copy")
        yield Rule(server, client, "grant", "copy")
    elif not (to.name == "builder" and manifest.on_request):  # whom it builds it reaches without a grant
        yield Rule(server, client, "grant", "map_read")
        yield Rule(server, client, "grant", "map_write")
        if manifest.kind != "shard" or manifest.lives != "forever":
            yield Rule(server, client, "grant", "unmap")
    yield Rule(client_end, server, "event", "bind")
    yield Rule(server_end, client, "event", "bind")
    yield Rule(server, server_end, "event", "create")
    yield Rule(server, server_end, "event", "send")
    yield Rule(client, client_end, "event", "send")


def _frontend(manifest: Manifest, frontend: Frontend, to: Manifest) -> Iterator[tuple[Rule, Origin]]:
    name, server = manifest.name, frontend.server
    why = f"each {frontend.protocol} of {name} has its back end in {server}"
    origin = Origin(manifest.path, frontend.line, why)
    for rule in _shared(manifest, to):
        yield rule, origin
    yield Rule(domain_type(name), channel_type(name), "event", "create"), origin
    if frontend.protocol == "vif":
        yield Rule(domain_type(name), domain_type(server), "grant", "copy"), origin
        yield Rule(domain_type(server), domain_type(name), "grant", "copy"), origin


def _ready(manifest: Manifest, root: Manifest) -> Iterator[tuple[Rule, Origin]]:
    own, end = domain_type(manifest.name), channel_type(manifest.name)
    origin = Origin(manifest.path, 0, f"it tells {root.name} when it serves")
    yield Rule(domain_type(root.name), channel_type(root.name), "event", "create"), origin
    yield Rule(channel_type(root.name), own, "event", "bind"), origin
    yield Rule(end, domain_type(root.name), "event", "bind"), origin
    yield Rule(own, end, "event", "create"), origin
    yield Rule(own, end, "event", "send"), origin


def _serial(manifest: Manifest, root: Manifest) -> Iterator[tuple[Rule, Origin]]:
    assert manifest.serial is not None
    origin = Origin(manifest.path, manifest.serial.line, f"the serial port belongs to {manifest.name}")
    own, ports, giver = domain_type(manifest.name), port_type(manifest.name), domain_type(root.name)
    yield Rule(giver, own, "resource", "add"), origin
    yield Rule(giver, ports, "resource", "add_ioport"), origin
    # the name is Xen's: a domain without DMA is created without an IOMMU context
    yield Rule(own, ports, "resource", "use_noiommu"), origin


def _hardware(manifest: Manifest, root: Manifest) -> Iterator[tuple[Rule, Origin]]:
    why = f"{manifest.name} passes on configuration space and the memory of devices"
    origin = Origin(manifest.path, manifest.receives_line, why)
    own, giver = domain_type(manifest.name), domain_type(root.name)
    yield Rule(giver, own, "resource", "add"), origin
    yield Rule(giver, "iomem_t", "resource", "add_iomem"), origin
    # Xen lets a domain pass on only what it may use itself
    yield Rule(own, "iomem_t", "resource", "use_noiommu"), origin


RESTORING = (
    ("domain", "pause"), ("domain", "unpause"), ("domain", "resume"), ("domain", "getdomaininfo"),
    ("hvm", "gethvmc"), ("hvm", "sethvmc"), ("shadow", "logdirty"), ("mmu", "map_read"), ("mmu", "map_write"),
)  # fmt: skip
"""What is done to a shard that is rolled back, by class and permission."""


def _restarted(manifest: Manifest, shards: ShardSet) -> Iterator[tuple[Rule, Origin]]:
    assert shards.restorer is not None
    name, restorer = manifest.name, shards.restorer.name
    own, line = domain_type(name), manifest.restart.line
    origin = Origin(manifest.path, line, f"{name} is rolled back by {restorer}")
    for security_class, permission in RESTORING:
        yield Rule(domain_type(restorer), own, security_class, permission), origin
    yield Rule(own, channel_type(name), "event", "status"), origin
    yield from ((rule, origin) for rule in _signals(name, restorer))
    placed = Origin(manifest.path, line, f"{name} can't place its shared info page itself")
    yield Rule(domain_type(shards.root.name), own, "mmu", "physmap"), placed
    for who in manifest.restart.by:
        origin = Origin(manifest.path, manifest.restart.by_line, f"{who} asks {restorer} to roll {name} back")
        yield from ((rule, origin) for rule in _signals(who, restorer))


def _signals(name: str, server_name: str) -> Iterator[Rule]:
    """For an event channel without a page, whose end in `name` a builder allocates."""
    own, server = domain_type(name), domain_type(server_name)
    own_end, server_end = channel_type(name), channel_type(server_name)
    yield Rule(own_end, server, "event", "bind")
    yield Rule(server_end, own, "event", "bind")
    yield Rule(server, server_end, "event", "create")
    yield Rule(server, server_end, "event", "send")
    yield Rule(own, own_end, "event", "send")


def stated(manifest: Manifest, right: Right, shards: ShardSet) -> Rule:
    """The rule that a manifest's right becomes. Raises ManifestError for one that only links can give."""
    if right.on == "self":
        target, holder = self_type(manifest), manifest.name
    else:
        target, holder = domain_type(right.on), right.on
    if right.security_class == "event":
        if right.permission == "bind":
            text = "event channels are bound along links: write [uses.<server>] or [frontends.<server>]"
            text += " in the client's manifest"
            raise ManifestError(manifest.path, right.line, text)
        if right.permission in ON_CHANNELS and (holder in shards.manifests):
            target = channel_type(holder)
    return Rule(domain_type(manifest.name), target, right.security_class, right.permission)


def _raise_repeated(manifest: Manifest, right: Right, first: Origin, *, implied: bool) -> None:
    what = f"{right.security_class} {right.permission} on {right.on}"
    if not implied:
        text = f"{what} is stated twice, first in line {first.line}; state it once"
    elif first.line:
        text = f"{what} is implied by {first.path}:{first.line} ({first.why}); leave it out"
    else:
        text = f"{what} is a right of every shard ({first.why}); leave it out"
    raise ManifestError(manifest.path, right.line, text)
