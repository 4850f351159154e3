"""The Toolstack shard, the host's or a tenant's: wires the Toolstack to Builder, XenStore and Console."""

import struct

import nano
from xoar.messages.channel import Channel
from xoar.messages.renewal import CLIENT, Renewal
from xoar.toolstack.shelf import XenStoreShelf
from xoar.toolstack.store import StoreLink
from xoar.toolstack.toolstack import HostToolstack, TenantToolstack
from xoar.xen import boot, events, ring
from xoar.xen.served import Served
from xoar.xenstore.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NS_PER_MS = 1_000_000


def _clock() -> int:
    return events.now() // _NS_PER_MS


def _use(server: str, role: str) -> Channel:
    link = boot.uses(server)
    outgoing, incoming = ring.xenstore_rings(link.page)
    renewal = Renewal(link.page, CLIENT) if server == "builder" else None
    return Channel(incoming, outgoing, lambda: events.notify(link.port), server, role, print, renewal)


def _client() -> Client:
    link = boot.uses("xenstore")
    writer, reader = ring.xenstore_rings(link.page)
    # it waits before there is anything else to look at: the first turn looks at all links
    return Client(reader, writer, lambda: events.notify(link.port), lambda: events.wait())


def _restorer() -> "Channel | None":
    """What Restorer tells; it reads nothing."""
    for client in boot.clients():
        if client.name == "restorer":
            end = Served(client.domid, client.gref, client.port)
            incoming, outgoing = ring.xenstore_rings(end.page)
            return Channel(incoming, outgoing, end.notify, "restorer", "toolstack")
    return None


def _kicks() -> "dict[str, Callable[[], None]]":
    """What asks Restorer for a rollback, by the shard's name."""
    found = {}
    for kick in boot.kicks():
        found[kick.target] = _signal(kick.port)
    return found


def _signal(port: int) -> "Callable[[], None]":
    return lambda: events.notify(port)


def _uniques() -> "Callable[[], bytes]":
    """Numbers that are new each time: the time of day, and how many there were."""
    count = 0

    def unique() -> bytes:
        nonlocal count
        count += 1
        return struct.pack("<QQQ", nano.wall(), nano.now(), count)

    return unique


def main() -> None:
    """Serves until the domain is destroyed."""
    kind = TenantToolstack if boot.setting("key") else HostToolstack
    domid = int(boot.setting("domid") or 0)
    builder, console = [_use(server, kind.role) for server in ("builder", "console")]
    restorer = _restorer() if kind is HostToolstack else None
    client = _client()
    store = StoreLink(client)
    # a tenant's is built again when it ends
    shelf = XenStoreShelf(client, store, domid) if kind is TenantToolstack else None
    toolstack = kind(
        builder,
        store,
        console,
        boot.settings,
        _clock,
        domid,
        _uniques(),
        print,
        restorer,
        _kicks(),
        shelf,
        lambda: shelf is None or shelf.settled,
    )
    toolstack.begin()
    boot.ready()
    print("toolstack: ready")
    more = True
    while True:
        deadline = toolstack.deadline_ms()
        events.wait(events.now() if more else None if deadline is None else deadline * _NS_PER_MS)
        more = toolstack.turn()
