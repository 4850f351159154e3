"""The Toolstack shard: wires guests and operators' requests to Builder, XenStore and Console."""

from xoar.messages.channel import Channel
from xoar.toolstack.api import Operators
from xoar.toolstack.builder import Builder
from xoar.toolstack.guests import Guests
from xoar.toolstack.reports import Reports
from xoar.toolstack.store import StoreLink
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
    link, store = _builder(), _store()
    builder = Builder(link)
    guests = Guests(builder, store, _clock, int(boot.setting("domid") or 0))
    reports = Reports(builder, guests, _clock)
    relays = [_serve(client) for client in boot.clients() if client.link == "toolstack"]
    operators = [(relay, Operators(relay, guests, reports)) for relay in relays]
    boot.ready()
    print("toolstack: ready")
    more = True
    while True:
        deadline = guests.deadline_ms()
        events.wait(events.now() if more else None if deadline is None else deadline * _NS_PER_MS)
        for message in link.receive():
            if message.kind == "stopped":
                guests.stopped(message.fields.domid, message.fields.reason)
            else:
                builder.answer(message)
        more = link.more
        if link.broken:
            builder.fail_all("the link to Builder is broken: %s" % link.broken)
        more = store.poll() or more
        guests.poll()
        for relay, streams in operators:
            if not relay.congested:
                for message in relay.receive():
                    streams.receive(message)
                more = more or relay.more
            streams.flush()
        builder.flush()
