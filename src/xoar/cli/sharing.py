"""`xoar sharing`: who shares which shard with whom, and what a compromise of each reaches."""

from __future__ import annotations

from collections.abc import Iterable

from xoar.cli import output
from xoar.host import guests, sharing
from xoar.host.client import Client
from xoar.host.sharing import Guest, Sharing


def look(client: Client) -> Sharing:
    """How things are shared on a host now. Raises HostError."""
    return sharing.model(guests.shown(client), client.drivers(), client.networks(), client.volumes())


def facts(shared: Sharing) -> dict[str, object]:
    """The model for JSON; a group that is null is that of guests without one."""
    return {
        "shards": [
            {
                "name": shard.name,
                "kind": shard.kind,
                "groups": [group or None for group in shared.groups(shard)],
                "guests": list(shard.uses),
                "holds": list(shard.holds),
                "reach": shard.reach,
            }
            for shard in shared.shards
        ],
        "guests": [
            {
                "name": guest.name,
                "id": guest.domid or None,
                "group": guest.group or None,
                "shards": [
                    {
                        "name": shard.name,
                        "kind": shard.kind,
                        "uses": list(shard.uses[guest.name]),
                        "shared_with": shard.others(guest.name),
                        "reach": shard.reach,
                    }
                    for shard in shared.serving(guest.name)
                ],
            }
            for guest in shared.guests
        ],
    }


def show(shared: Sharing) -> None:
    """Two tables: the shards, and the guests with their driver domains."""
    columns = ("shard", "kind", "groups", "guests", "holds", "a compromise reaches")
    rows = [
        (
            shard.name,
            shard.kind,
            _words([group or "(none)" for group in shared.groups(shard)]),
            "all" if shard.kind in sharing.ONCE else _words(shard.uses),
            _words(shard.holds),
            shard.reach,
        )
        for shard in shared.shards
    ]
    output.print_table(columns, rows)
    print()
    output.print_table(
        ("guest", "group", "driver domain", "uses", "shared with"),
        [row for guest in shared.guests for row in _driver_rows(shared, guest)],
    )
    print(f"\nAll guests share {', '.join(sharing.ONCE)}: a compromise of one of these reaches all guests.")


def _driver_rows(shared: Sharing, guest: Guest) -> list[tuple[str, str, str, str, str]]:
    who = (guest.name, guest.group or "-")
    rows = [
        (*who, shard.name, _words(shard.uses[guest.name]), _words(shard.others(guest.name)))
        for shard in shared.serving(guest.name)
        if shard.is_driver
    ]
    return rows or [(*who, "-", "-", "-")]


def _words(texts: Iterable[str]) -> str:
    return " ".join(texts) or "-"
