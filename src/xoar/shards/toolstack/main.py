"""The Toolstack shard: wires the Toolstack to Builder, XenStore and Console."""

from xoar.messages.channel import Channel
from xoar.toolstack.store import StoreLink
from xoar.toolstack.toolstack import Toolstack
from xoar.xen import boot, events, grants, ring
from xoar.xenstore.client import Client

_NS_PER_MS = 1_000_000


def _clock() -> int:
    return events.now() // _NS_PER_MS


def _builder() -> Channel:
    link = boot.uses("builder")
    outgoing, incoming = ring.xenstore_rings(link.page)
    return Channel(incoming, outgoing, lambda: events.notify(link.port), "builder", "toolstack")


def _store() -> StoreLink:
    link = boot.uses("xenstore")
    writer, reader = ring.xenstore_rings(link.page)
    # nothing here uses the client's helpers that wait
    return StoreLink(Client(reader, writer, lambda: events.notify(link.port), lambda: None))


def _serve(client: boot.Client) -> Channel:
    port = events.bind(client.domid, client.port)
    incoming, outgoing = ring.xenstore_rings(grants.map(client.domid, client.gref).page)
    return Channel(incoming, outgoing, lambda: events.notify(port), client.name, "toolstack")


def main() -> None:
    """Serves until the domain is destroyed."""
    relays = [_serve(client) for client in boot.clients() if client.link == "toolstack"]
    domid = int(boot.setting("domid") or 0)
    toolstack = Toolstack(_builder(), _store(), relays, boot.settings, _clock, domid)
    boot.ready()
    print("toolstack: ready")
    more = True
    while True:
        deadline = toolstack.deadline_ms()
        events.wait(events.now() if more else None if deadline is None else deadline * _NS_PER_MS)
        more = toolstack.turn()
