"""A Toolstack that keeps XenStore's ring full while guests come and go, and checks each answer."""

from xoar.messages.channel import Channel
from xoar.xen import boot, events, ring
from xoar.xenstore import wire
from xoar.xenstore.client import Client

MESSAGES = 1500  # written and read back: each makes two rollbacks of Logic, and the ring ends at every place
BATCH = 60


class Guests:
    """Builds a guest, which stays, and others that it destroys again, over and over, without waiting."""

    def __init__(self):
        link = boot.uses("builder")
        outgoing, incoming = ring.xenstore_rings(link.page)
        self.built = 0
        self.first = 0
        self._channel = Channel(incoming, outgoing, lambda: events.notify(link.port), "builder", "toolstack")
        self._channel.send("images", 1, start=0)
        self._kernel = None

    def turn(self):
        self._channel.flush()
        for message in self._channel.receive():
            if message.kind == "library":
                self._kernel = next(i for i in message.fields.images if i.kind == "kernel").digest
                self._build()
            elif message.kind == "built" and not self.first:
                self.first = message.fields.domid
                self._build()
            elif message.kind == "built":
                self._channel.send("destroy", 3, domid=message.fields.domid)
            elif message.kind == "done":
                self.built += 1
                self._build()

    def _build(self):
        self._channel.send(
            "build",
            2,
            uuid=bytes([1 + self.built % 255, 1 if self.first else 0]) * 8,
            kernel=self._kernel,
            ramdisk=bytes(32),
            command_line="",
            memory_kib=32768,
            vcpus=1,
            group="",
        )


def main():
    link = boot.uses("xenstore")
    to_server, to_client = ring.xenstore_rings(link.page)
    store = Client(to_client, to_server, lambda: events.notify(link.port), lambda: None)
    guests = Guests()
    boot.ready()
    while not guests.first:
        guests.turn()
        events.wait(events.now() + 2000000)
    # a node of this Toolstack
    path = b"/local/domain/%d/load\0" % guests.first
    seed = 1
    for start in range(0, MESSAGES, BATCH):
        values = {}
        for i in range(BATCH):
            # lengths that put the ring's end at every place of a message
            seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
            value = bytes([97 + i % 26]) * (seed >> 16 & 0x7F)
            store.request(wire.WRITE, path + value)
            values[store.request(wire.READ, path)] = value
        while values:
            if not store.poll():
                events.wait(events.now() + 2000000)
            guests.turn()
            for request in list(values):
                reply = store.take_reply(request)
                if reply is not None and reply != values.pop(request):
                    raise RuntimeError(f"a wrong answer after {start} messages")
        for request in list(store._replies):
            store.take_reply(request)
    print(f"load carried, {guests.built} guests built")
    while True:
        events.wait(None)
