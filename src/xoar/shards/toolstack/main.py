"""The Toolstack shard, the host's or a tenant's: wires the Toolstack to Builder, XenStore and Console."""

import struct

import nano
from xoar.messages.channel import Channel
from xoar.messages.renewal import CLIENT, Renewal
from xoar.toolstack.mirror import Mirror
from xoar.toolstack.shelf import XenStoreShelf
from xoar.toolstack.store import StoreLink
from xoar.toolstack.toolstack import HostToolstack, TenantToolstack
from xoar.xen import boot, events, ring
from xoar.xen.box import Box
from xoar.xen.lives import Life, Over, Term
from xoar.xen.served import Served
from xoar.xenstore.client import Client, reconnect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


def _clock() -> int:
    return events.now() // _NS_PER_MS


def _use(server: str, role: str) -> Channel:
    link = boot.uses(server)
    outgoing, incoming = ring.xenstore_rings(link.page)
    renewal = Renewal(link.page, CLIENT)
    return Channel(incoming, outgoing, lambda: events.notify(link.port), server, role, print, renewal)


def _client() -> Client:
    link = boot.uses("xenstore")
    writer, reader = ring.xenstore_rings(link.page)
    # it waits before there is anything else to look at: the first turn looks at all links
    return Client(reader, writer, lambda: events.notify(link.port), lambda: events.wait())


def _restorer() -> "Served | None":
    """The link from Restorer, which reads nothing."""
    for client in boot.clients():
        if client.name == "restorer":
            return Served(client.domid, client.gref, client.port)
    return None


def _told(end: Served) -> Channel:
    incoming, outgoing = ring.xenstore_rings(end.page)
    return Channel(incoming, outgoing, end.notify, "restorer", "toolstack")


def _kicks() -> "dict[str, Callable[[], None]]":
    """What asks Restorer for a rollback, by the shard's name."""
    found = {}
    for kick in [kick for kick in boot.kicks() if kick.target != boot.setting("name")]:
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
    """Serves until the domain is destroyed, or is to be built anew."""
    try:
        _serve()
    except Over:
        print("toolstack: ends, to be built anew")


def _serve() -> None:
    kind = TenantToolstack if boot.setting("key") else HostToolstack
    domid = int(boot.setting("domid") or 0)
    builder, console = [_use(server, kind.role) for server in ("builder", "console")]
    restorer = _restorer() if kind is HostToolstack else None
    client = _client()
    store = StoreLink(client, Mirror(_clock))
    box = Box(boot.box()) if boot.setting("restorer") else None
    # a tenant's is built again when it ends
    kept = XenStoreShelf(client, store, domid) if kind is TenantToolstack else None
    toolstack = kind(
        builder,
        store,
        console,
        boot.settings,
        _clock,
        domid,
        _uniques(),
        print,
        _told(restorer) if restorer is not None else None,
        _kicks(),
        kept or box,
        lambda: kept is None or kept.settled,
    )
    first = boot.snapshot() <= 1
    term = boot.term()
    life = Life(box) if term is None else Term(*term)
    at_rest = life.begin()
    if not first and not at_rest:
        link = boot.uses("xenstore")
        reconnect(link.page, lambda: events.notify(link.port), _soon)
        builder.renew()
        console.renew()
        if restorer is not None:
            # it writes whole messages only, of which the last life may have read a part
            _empty(restorer)
    toolstack.begin(at_rest and not first)
    while not toolstack.begun:
        if not toolstack.turn():
            _soon()
    boot.ready()  # the first life may be too short for it
    if first:
        print("toolstack: ready")
    more = True
    while True:
        deadline = toolstack.deadline_ms()
        until = events.now() if more else None if deadline is None else deadline * _NS_PER_MS
        if life.sleep(until, not more and toolstack.idle, toolstack.used) is None:
            toolstack.used = False
        more = toolstack.turn()


def _empty(end: Served) -> None:
    incoming, _ = ring.xenstore_rings(end.page)
    try:
        while incoming.read(1024):
            pass
    except ring.RingError:
        pass  # whoever reads it next finds the same


def _soon() -> None:
    events.wait(events.now() + _NS_PER_S)
