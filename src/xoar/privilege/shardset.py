"""All manifests together: what can only be judged across them, and the order in which shards start.

A contradiction (an unknown name, a cycle, a link to a shard that will have ended) is a ManifestError that
names the line of the manifest that should change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xoar.privilege import manifest as manifests
from xoar.privilege.errors import ManifestError
from xoar.privilege.manifest import SHARDS_FOLDER, SPECIAL_TARGETS, Frontend, Manifest, Use

# Grant references of a client's links (docs/architecture.md): two are reserved by Xen, six are for others
RESERVED_LINKS = ("console", "xenstore")
MAX_REQUEST_LINKS = 6


@dataclass(frozen=True)
class ShardSet:
    """Manifests that agree with each other, by name. Made by `check` or `load_all`."""

    manifests: dict[str, Manifest]
    root: Manifest  # the shard that Xen itself starts as domain 0
    # all others that start at boot; those of one level don't need each other
    levels: tuple[tuple[Manifest, ...], ...]

    @property
    def late(self) -> tuple[Manifest, ...]:
        """Shards that are built on request, and that come and go."""
        return tuple(m for m in self.manifests.values() if m.lives == "setup")

    @property
    def tenants(self) -> tuple[Manifest, ...]:
        """Shards of which each tenant has one of its own."""
        return tuple(m for m in self.manifests.values() if m.lives == "tenant")

    @property
    def drivers(self) -> tuple[Manifest, ...]:
        return tuple(m for m in self.manifests.values() if m.kind == "driver")

    @property
    def guests(self) -> tuple[Manifest, ...]:
        return tuple(m for m in self.manifests.values() if m.kind == "guest")

    @property
    def restarted(self) -> tuple[Manifest, ...]:
        """Shards that are rolled back, in the order of their starting."""
        return tuple(m for level in self.levels for m in level if m.restart.rolls_back)

    @property
    def restorer(self) -> Manifest | None:
        """The shard that rolls others back."""
        return next((m for m in self.manifests.values() if "restarts" in m.receives), None)

    def in_boot_order(self) -> tuple[Manifest, ...]:
        """The root, then the shards as they start, then driver domains, guests and tenants' shards."""
        at_boot = (m for level in self.levels for m in level)
        return (self.root, *at_boot, *self.late, *self.drivers, *self.guests, *self.tenants)

    def clients(self, server: Manifest, *protocols: str) -> tuple[Manifest, ...]:
        """Whose devices of these protocols have their back ends in `server`."""
        return tuple(m for m in self.manifests.values() if server.name in frontend_servers(m, *protocols))


def frontend_servers(client: Manifest, *protocols: str) -> tuple[str, ...]:
    """The domains that have the back ends of the client's devices of these protocols."""
    return tuple(frontend.server for frontend in client.frontends if frontend.protocol in protocols)


def load_all(folder: Path = SHARDS_FOLDER) -> ShardSet:
    """Reads folder/*/manifest.toml and checks them. Raises ManifestError."""
    found = []
    for path in sorted(folder.glob("*/manifest.toml")):
        manifest = manifests.load(path)
        if manifest.name != path.parent.name:
            raise ManifestError(path, 1, f'name = "{manifest.name}", but its folder is {path.parent.name}')
        found.append(manifest)
    return check(found)


def check(found: Iterable[Manifest]) -> ShardSet:
    """Judges manifests against each other. Raises ManifestError."""
    by_name: dict[str, Manifest] = {}
    for manifest in found:
        if other := by_name.get(manifest.name):
            raise ManifestError(manifest.path, 1, f"{other.path} already describes {manifest.name}")
        by_name[manifest.name] = manifest
    for manifest in by_name.values():
        _check_parent(manifest, by_name)
        for use in manifest.uses:
            _check_use(manifest, use, by_name)
        for frontend in manifest.frontends:
            _check_frontend(manifest, frontend, by_name)
        _check_link_names(manifest)
        _check_targets(manifest, by_name)
        _check_restart(manifest, by_name)
    _check_serial_ports(by_name)
    _check_received(by_name)
    root = _root(by_name)
    return ShardSet(by_name, root, _levels(by_name, root))


def _root(by_name: dict[str, Manifest]) -> Manifest:
    roots = [m for m in by_name.values() if m.parent is None]
    if not roots:
        path = next((m.path for m in by_name.values()), SHARDS_FOLDER)
        raise ManifestError(path, 1, "every shard has a parent: the one that Xen starts must have none")
    if len(roots) > 1:
        text = f"parent is missing; only one shard has none, and that is {roots[0].name}"
        raise ManifestError(roots[1].path, 1, text)
    root = roots[0]
    if root.lives != "boot" or root.uses:
        text = f'{root.name} is started by Xen: it must have lives = "boot" and open no links'
        raise ManifestError(root.path, 1, text)
    return root


def _check_parent(manifest: Manifest, by_name: dict[str, Manifest]) -> None:
    chain = [manifest.name]
    ancestor = manifest
    while ancestor.parent is not None:
        line = ancestor.parent_line
        parent = by_name.get(ancestor.parent)
        if parent is None or parent.kind != "shard":
            raise ManifestError(ancestor.path, line, f'parent = "{ancestor.parent}": {_no_shard(by_name)}')
        if (ancestor.kind != "shard" or ancestor.on_request) and parent.lives != "forever":
            text = f"{ancestor.name} is built while the host runs; {parent.name} does not live for ever"
            raise ManifestError(ancestor.path, line, text)

        if parent.name in chain:
            circle = " -> ".join([*chain, parent.name])
            raise ManifestError(ancestor.path, line, f"parents form a circle: {circle}")
        chain.append(parent.name)
        ancestor = parent


def _no_shard(by_name: dict[str, Manifest]) -> str:
    names = sorted(m.name for m in by_name.values() if m.kind == "shard")
    return f"there is no such shard; there are: {', '.join(names)}"


def _check_use(manifest: Manifest, use: Use, by_name: dict[str, Manifest]) -> None:
    server = by_name.get(use.server)
    if server is None or server.kind != "shard":
        raise ManifestError(manifest.path, use.line, f"[uses.{use.server}]: {_no_shard(by_name)}")
    if server is manifest:
        raise ManifestError(manifest.path, use.line, f"{manifest.name} can't open a link to itself")
    if server.lives != "forever" and manifest.lives != "boot":
        text = f'{manifest.name} needs {server.name}, which does not live for ever (lives = "{server.lives}")'
        raise ManifestError(manifest.path, use.line, text)
    if use.role is not None and use.link != "xenstore":
        raise ManifestError(manifest.path, use.line, f'role = "{use.role}" means something to XenStore only')


def _check_frontend(manifest: Manifest, frontend: Frontend, by_name: dict[str, Manifest]) -> None:
    where = f"[frontends.{frontend.server}]"
    server = by_name.get(frontend.server)
    if frontend.protocol == "pci":
        kind, has_backends = "driver", server is not None and server.lives == "setup"
        what = "a shard that is built on request"
    else:
        kind, has_backends = "guest", server is not None and server.kind == "driver"
        what = "a driver domain"
    if manifest.kind != kind:
        text = f'{where}: front ends of protocol "{frontend.protocol}" are for kind = "{kind}"'
        raise ManifestError(manifest.path, frontend.line, text)
    if not has_backends:
        text = f'{where}: the back end of protocol "{frontend.protocol}" is {what}; this is none'
        raise ManifestError(manifest.path, frontend.line, text)


def _check_link_names(manifest: Manifest) -> None:
    for use in manifest.uses:
        if use.link in RESERVED_LINKS and use.link != use.server:
            text = f'link = "{use.link}" is kept for the link to {use.link}; choose another name'
            raise ManifestError(manifest.path, use.line, text)
    requests = [use for use in manifest.uses if use.link not in RESERVED_LINKS]
    if len(requests) > MAX_REQUEST_LINKS:
        text = f"{manifest.name} opens {len(requests)} request links; there can be {MAX_REQUEST_LINKS}"
        raise ManifestError(manifest.path, requests[MAX_REQUEST_LINKS].line, text)


def _check_targets(manifest: Manifest, by_name: dict[str, Manifest]) -> None:
    for right in manifest.rights:
        if right.on == manifest.name:
            raise ManifestError(manifest.path, right.on_line, f'on = "{right.on}": write on = "self"')
        if right.on not in by_name and right.on not in SPECIAL_TARGETS:
            known = ", ".join([*SPECIAL_TARGETS, *sorted(by_name)])
            text = f'on = "{right.on}": there is nothing of that name; there are: {known}'
            raise ManifestError(manifest.path, right.on_line, text)


def _check_restart(manifest: Manifest, by_name: dict[str, Manifest]) -> None:
    restart = manifest.restart
    if restart.policy == "anew" and manifest.lives != "tenant":
        text = 'policy = "anew" is for shards that are built while the host runs (lives = "tenant")'
        raise ManifestError(manifest.path, restart.line, text)
    if not restart.rolls_back:
        return
    clients = [m.name for m in by_name.values() for use in m.uses if use.server == manifest.name]
    reason = ""
    if manifest.lives != "forever" or manifest.on_request:
        reason = f'it is not there from boot to the end (lives = "{manifest.lives}")'
    elif "restarts" in manifest.receives:
        reason = "it is the one that rolls others back"
    elif clients and restart.policy != "idle":
        reason = f'it maps pages of {clients[0]}, and lets go of them only with policy = "idle"'
    elif not any("restarts" in m.receives for m in by_name.values()):
        reason = 'no shard rolls others back (receives = ["restarts"])'
    if reason:
        raise ManifestError(manifest.path, restart.line, f"{manifest.name} can't be rolled back: {reason}")
    for name in restart.by:
        who = by_name.get(name)
        if who is None or who.kind != "shard" or who.lives != "forever" or who is manifest:
            text = f'by holds "{name}"; who asks for rollbacks is another shard with lives = "forever"'
            raise ManifestError(manifest.path, restart.by_line, text)
        if "restarts" in who.receives:
            text = f"by holds {name}, which rolls {manifest.name} back itself"
            raise ManifestError(manifest.path, restart.by_line, text)


def _check_serial_ports(by_name: dict[str, Manifest]) -> None:
    owners: list[tuple[str, range]] = []
    for manifest in by_name.values():
        if serial := manifest.serial:
            for owner, ports in owners:
                if serial.first < ports.stop and ports.start <= serial.last:
                    text = f"these I/O ports belong to {owner} already"
                    raise ManifestError(manifest.path, serial.line, text)
            owners.append((manifest.name, range(serial.first, serial.last + 1)))


def _check_received(by_name: dict[str, Manifest]) -> None:
    owners: dict[str, str] = {}
    for manifest in by_name.values():
        for word in manifest.receives:
            if word in owners:
                text = f'receives: only one shard can have "{word}", and that is {owners[word]}'
                raise ManifestError(manifest.path, manifest.receives_line, text)
            owners[word] = manifest.name


def _levels(by_name: dict[str, Manifest], root: Manifest) -> tuple[tuple[Manifest, ...], ...]:
    """Shards by when they can start; within a level the ones that most others need come first."""
    waiting = {
        m.name: m for m in by_name.values() if m.kind == "shard" and not m.on_request and m is not root
    }
    clients = [use.server for m in by_name.values() for use in m.uses]
    levels = []
    while waiting:
        ready = [m for m in waiting.values() if not any(u.server in waiting for u in m.uses)]
        if not ready:
            _raise_cycle(waiting)
        ready.sort(key=lambda m: (-clients.count(m.name), m.name))
        levels.append(tuple(ready))
        for manifest in ready:
            del waiting[manifest.name]
    return tuple(levels)


def _raise_cycle(waiting: dict[str, Manifest]) -> None:
    """Every shard in `waiting` uses another one of it; follows the uses until a name comes again."""
    chain: list[str] = []
    name = min(waiting)
    while name not in chain:
        chain.append(name)
        use = next(u for u in waiting[name].uses if u.server in waiting)
        name = use.server
    circle = " -> ".join([*chain[chain.index(name) :], name])
    last = waiting[chain[-1]]
    raise ManifestError(last.path, use.line, f"uses form a circle: {circle}")
