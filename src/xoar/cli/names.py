"""From the names that operators type to domains; an unknown one is answered with the nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xoar.host.client import RequestRefused
from xoar.host.config import nearest
from xoar.host.errors import HostError, NotFound
from xoar.messages.errors import MessageError
from xoar.messages.records import NAME

if TYPE_CHECKING:
    from xoar.host.client import Client


def shard_domids() -> dict[str, int]:
    """The shards and their fixed domids, as the manifests have them (Bootstrapper is domain 0)."""
    from xoar.privilege import bootplan, shardset

    shards = shardset.load_all()
    domids = {shard.manifest.name: shard.domid for shard in bootplan.plan(shards).shards}
    return {shards.root.name: 0, **domids}


@contextmanager
def known_guest(client: Client, name: str) -> Iterator[None]:
    """Adds the nearest name to what the Toolstack says of a guest that does not exist."""
    try:
        NAME.encode(name)
        yield
    except MessageError as error:
        raise unknown("guest", name, _guests(client)) from error
    except RequestRefused as error:
        known = _guests(client) if error.absent else []
        if not error.absent or name in known:
            raise
        raise NotFound(f"{error.message}.{nearest(name, known)}") from error


@contextmanager
def known(list_all: Callable[[], Iterable[Any]], name: str) -> Iterator[None]:
    """Adds the nearest name to what the Toolstack says of anything else that does not exist."""
    try:
        yield
    except RequestRefused as error:
        names = [entry.name for entry in list_all()] if error.absent else []
        if not error.absent or name in names:
            raise
        raise NotFound(f"{error.message}.{nearest(name, names)}") from error


def unknown(what: str, name: str, known: Iterable[str]) -> NotFound:
    """The error for a name that nothing has."""
    names = list(known)
    listing = f"There is: {', '.join(names)}" if names else "There is none."
    return NotFound(f'there is no {what} "{name}".{nearest(name, names)}', hint=listing)


def console_domid(client: Client, name: str) -> int:
    """The domain of a guest that runs. Raises NotFound, HostError for one that does not run."""
    if name in shard_domids():
        raise HostError(f"{name} is a shard: it has a log but takes no input", hint=f"See: xoar logs {name}")
    with known_guest(client, name):
        shown = client.request("guest_show", name=name).fields
    if shown.domid == 0:
        why = f": {shown.note}" if shown.note else ""
        raise HostError(f"guest {name} does not run ({shown.state}){why}", hint=f"See: xoar logs {name}")
    domid: int = shown.domid
    return domid


def log_domid(client: Client, name: str) -> int:
    """The domain that a log is about: a driver domain, a guest's, its last one if it has ended.

    Raises NotFound.
    """
    drivers = {driver.name: driver for driver in client.drivers()}
    if name in drivers:
        return int(drivers[name].domid)
    with known_guest(client, name):
        shown = client.request("guest_show", name=name).fields
    domid: int = shown.domid or shown.previous_domid
    if domid == 0:
        raise NotFound(f"guest {name} has no log: {shown.note or shown.state}")
    return domid


def _guests(client: Client) -> list[str]:
    return [guest.name for guest in client.guests()]
