"""XenStore as a nano domain: maps clients' rings and sleeps until they signal.

Command line: `client=xenstore:...` are the rings of shards, `client=introduce:...` is Builder's link, over
which guests are introduced; `backend=<domid>` names a domain with the quotas of many guests' devices.
"""

from xoar.messages.channel import Channel
from xoar.shards.xenstore.store import Store
from xoar.xen import boot, events, grants
from xoar.xen.ring import xenstore_rings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xen.boot import Client


class Transport:
    """A ring of another domain, mapped, and its event channel, bound. Raises OSError."""

    def __init__(self, domid: int, gref: int, port: int) -> None:
        self._mapping = grants.map(domid, gref)
        self.page = self._mapping.page
        try:
            self.port = events.bind(domid, port)
        except OSError:
            self._mapping.unmap()
            raise

    def notify(self) -> None:
        """Signals the client."""
        events.notify(self.port)

    def close(self) -> None:
        """Unmaps the ring and closes the channel; a domain that is gone already is no trouble."""
        for step in (self._close_port, self._mapping.unmap):
            try:
                step()
            except OSError as error:
                print("xenstore: %s" % error)

    def _close_port(self) -> None:
        events.close(self.port)


def builder_channel(client: "Client") -> "tuple[int, Channel]":
    """Builder's link: its port and the messages on it."""
    transport = Transport(client.domid, client.gref, client.port)
    requests, replies = xenstore_rings(transport.page)
    return transport.port, Channel(requests, replies, transport.notify, client.name, "xenstore")


def main() -> None:
    """Serves for ever."""
    store = Store(Transport, frozenset([int(domid) for domid in boot.settings("backend")]))
    channels: "dict[int, Channel]" = {}
    for client in boot.clients():
        if client.link == "xenstore":
            store.introduce(client.domid, client.gref, client.port)
        elif client.link == "introduce":
            port, channel = builder_channel(client)
            channels[port] = channel
    boot.ready()
    print("xenstore: ready")
    ports = list(channels)
    while True:
        more = store.turn(ports)
        for port in channels:
            more = receive(store, channels[port]) or more
        ports = events.wait(events.now() if more else None)


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
