"""The boot plan: domids, order, and links of all shards, derived from the manifests.

What Bootstrapper does with it stands in docs/architecture.md: it creates all domains, wires all links, loads
and starts them. xoar.host.bundle writes it in Bootstrapper's words.
"""

from dataclasses import dataclass

from xoar.privilege.manifest import Manifest
from xoar.privilege.shardset import RESERVED_LINKS, ShardSet


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
    """A shard with its domid and the links that it opens."""

    domid: int
    manifest: Manifest
    links: tuple[Link, ...]


@dataclass(frozen=True)
class BootPlan:
    """Shards in the order of their domids, which is the order of starting."""

    shards: tuple[PlannedShard, ...]
    waves: tuple[tuple[str, ...], ...]  # names; the shards of one wave start in parallel
    guest_links: tuple[Link, ...]  # what every guest has

    def links_to(self, server: str) -> tuple[Link, ...]:
        """The links that shards open to `server`, in order of the clients' domids."""
        return tuple(link for shard in self.shards for link in shard.links if link.server == server)


def plan(shards: ShardSet) -> BootPlan:
    """Gives the shards domids from 1 up, in the order of their dependencies."""
    order = [manifest for level in shards.levels for manifest in level]
    return BootPlan(
        tuple(PlannedShard(domid, manifest, links(manifest)) for domid, manifest in enumerate(order, 1)),
        tuple(tuple(manifest.name for manifest in level) for level in shards.levels),
        tuple(link for guest in shards.guests for link in links(guest)),
    )


def links(manifest: Manifest) -> tuple[Link, ...]:
    """The links that a domain opens. References: console 0, xenstore 1, others from 2 in the file's order."""
    found = []
    gref = len(RESERVED_LINKS)
    for use in manifest.uses:
        if use.link in RESERVED_LINKS:
            number = RESERVED_LINKS.index(use.link)
        else:
            number, gref = gref, gref + 1
        found.append(Link(manifest.name, use.server, use.link, number, use.role))
    return tuple(found)


def memory_kib(manifest: Manifest, library_kib: int) -> int:
    """KiB that a shard is given: what its manifest states, and whole MiB for the library that it receives."""
    assert manifest.memory_kib is not None, "guests are given what their configuration states"
    received = -(-library_kib // 1024) * 1024 if "library" in manifest.receives else 0
    return manifest.memory_kib + received
