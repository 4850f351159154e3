"""XenStore's State as a nano domain: maps clients' rings and sleeps until they, or Logic, signal.

Command line: `client=xenstore:...` are the rings of shards, `client=introduce:...` is Builder's link, over
which guests are introduced, `client=logic:...` is Logic's; `backend=<domid>` names a domain with the quotas
of many guests' devices.
"""

from xoar.messages.channel import Channel
from xoar.messages.renewal import SERVER, Renewal
from xoar.shards.xenstore.replacing import LogicDomain
from xoar.shards.xenstore.store import Store
from xoar.xen import boot, events
from xoar.xen.ring import xenstore_rings
from xoar.xen.served import Served

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xen.boot import Client


def builder_channel(client: "Client") -> "tuple[int, Channel]":
    """Builder's link: its port and the messages on it."""
    end = Served(client.domid, client.gref, client.port)
    requests, replies = xenstore_rings(end.page)
    renewal = Renewal(end.page, SERVER)
    return end.port, Channel(requests, replies, end.notify, client.name, "xenstore", print, renewal)


def _logic(end: Served, bell: events.Bell) -> "tuple[LogicDomain, int]":
    """Logic's domain, and the port on which its rollback is asked for and heard of; 0: nobody does that."""
    kicks = [kick for kick in boot.kicks() if kick.target == "logic"]
    if not kicks:
        return LogicDomain(end.page, bell.ring, events.now), 0
    ((_, requests, patience_ms, port),) = kicks

    def ask() -> None:
        events.notify(port)

    return LogicDomain(end.page, bell.ring, events.now, ask, requests, print, patience_ms * 1000000), port


def main() -> None:
    """Serves for ever."""
    by_link = [(client.link, client) for client in boot.clients()]
    ((_, of_logic),) = [entry for entry in by_link if entry[0] == "logic"]
    end = Served(of_logic.domid, of_logic.gref, of_logic.port)
    bell = events.Bell(end.port)
    logic, kick = _logic(end, bell)
    store = Store(Served, logic.link, frozenset([int(domid) for domid in boot.settings("backend")]))
    channels: "dict[int, Channel]" = {}
    for link, client in by_link:
        if link == "xenstore":
            store.introduce(client.domid, client.gref, client.port)
        elif link == "introduce":
            port, channel = builder_channel(client)
            channels[port] = channel
    gate = store.server
    if not kick:
        logic.start(gate)
    boot.ready()
    print("xenstore: ready")
    ports = list(channels)
    while True:
        if kick in ports:
            logic.rolled_back(gate)
        more = logic.turn(gate)
        for port in channels:
            more = receive(store, channels[port]) or more
        # last: what was done for Logic and Builder has made events for clients
        more = store.turn(ports) or more
        bell.send()
        ports = events.wait(events.now() if more else logic.link.deadline(gate))


def receive(store: Store, channel: Channel) -> bool:
    """Deals with what Builder has sent, unless it leaves our answers unread; True if there is more."""
    channel.flush()
    if channel.congested:
        return False
    for message in channel.receive():
        try:
            store.introduction(channel, message)
        except Exception as error:
            channel.fail(message.id, 5, "a bug: " + repr(error))
            print("xenstore: bug while serving Builder: %s" % repr(error))
    return channel.more
