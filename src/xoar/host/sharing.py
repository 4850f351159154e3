"""Who shares which shard with whom, and what a compromise of each reaches.

Nothing is asked or printed here: reports of the Toolstack go in, a model comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xoar.host.devices import BLKBACK, NETBACK

REACH = {
    NETBACK: "the traffic of its guests and networks; no memory",
    BLKBACK: "the contents of all its volumes; no memory",
    "xenstore": "the records of all guests; no memory",
    "logic": "what each guest asks of XenStore, while it asks; no memory",
    "console": "the consoles of all guests, and what operators ask the Toolstack for; no memory",
    "builder": "everything",
    "toolstack": "life, death and configuration of all guests; no memory",
    "restorer": "everything, as it may change Builder; but it takes no input that could change it",
    "pciback": "while it lives: the configuration space of all devices; no memory",
}
"""What whoever took over a shard of that kind gets at, beside the shard itself. "No memory" is none but what
a guest grants it, such as the pages of its rings."""

ONCE = ("xenstore", "console", "builder", "logic", "toolstack", "restorer")
"""The shards that a host has once, for all guests."""
_PCIBACK = "pciback"


@dataclass(frozen=True)
class Guest:
    """A guest; `group` is "" for none, `domid` 0 while it is being built."""

    name: str
    domid: int
    group: str


@dataclass(frozen=True)
class Shard:
    """A shard. `uses` has its guests, each with the networks or volumes that it uses there; `holds` are all
    networks or volumes that there are."""

    name: str
    kind: str
    uses: Mapping[str, tuple[str, ...]]
    holds: tuple[str, ...] = ()

    @property
    def is_driver(self) -> bool:
        """Whether a host may have several of its kind, of which each serves one group."""
        return self.kind in (NETBACK, BLKBACK)

    @property
    def reach(self) -> str:
        """What a compromise of it reaches."""
        return REACH[self.kind]

    def others(self, guest: str) -> list[str]:
        """Whom a guest shares it with."""
        return [name for name in self.uses if name != guest]


@dataclass(frozen=True)
class Sharing:
    """A host's guests in the order of their creation, and its shards: driver domains first."""

    guests: tuple[Guest, ...]
    shards: tuple[Shard, ...]

    def serving(self, guest: str) -> list[Shard]:
        """The shards that serve a guest."""
        return [shard for shard in self.shards if guest in shard.uses]

    def groups(self, shard: Shard) -> list[str]:
        """The groups that a shard serves now."""
        return sorted({guest.group for guest in self.guests if guest.name in shard.uses})


def model(
    guests: Iterable[Any], drivers: Iterable[Any], networks: Iterable[Any], volumes: Iterable[Any]
) -> Sharing:
    """The model of the messages `guest`, and of records `driver`, `network` and `volume` of the schema."""
    shown = list(guests)
    uses = {guest.name: _uses(guest) for guest in shown}
    held = [(entry.driver, entry.name) for entry in (*networks, *volumes)]
    shards = [
        Shard(
            driver.name,
            driver.kind,
            {
                name: tuple(thing for where, thing in used if where == driver.name)
                for name, used in uses.items()
                if any(where == driver.name for where, _ in used)
            },
            tuple(thing for where, thing in held if where == driver.name),
        )
        for driver in drivers
    ]
    if shards:
        # its devices come to a guest through driver domains
        shards.append(Shard(_PCIBACK, _PCIBACK, {name: () for name, used in uses.items() if used}))
    shards += [Shard(name, name, dict.fromkeys(uses, ())) for name in ONCE]
    return Sharing(tuple(Guest(guest.name, guest.domid, guest.group) for guest in shown), tuple(shards))


def _uses(guest: Any) -> list[tuple[str, str]]:
    """What a guest has devices of: (driver domain, network or volume)."""
    found = [(nic.driver, nic.network) for nic in guest.nics]
    found += [(disk.driver, disk.volume) for disk in guest.disks]
    return list(dict.fromkeys(found))
