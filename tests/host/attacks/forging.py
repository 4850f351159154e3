"""What taken-over shards forge: requests that are others', noise, and rings that can't be.

Prints "forged <server> <what> <answer's kind or error number>" for each request.
"""

from xoar.messages.channel import Channel
from xoar.xen import events, ring

_GUEST = 32
# Builder's own requests to servers, PCIBack's, Console's
NOT_ITS = (
    (
        "introduce",
        {
            "domid": _GUEST,
            "link": "operator",
            "name": "toolstack",
            "parent": 5,
            "uuid": bytes(16),
            "gref": 8,
            "port": 1,
        },
    ),
    ("release", {"domid": _GUEST}),
    ("stopped", {"domid": _GUEST, "reason": "crash"}),
    ("claim", {"driver": "net0", "bdf": 256, "bars": [(0xFE000000, 4096)]}),
    ("fault", {"driver": "net0", "text": "no"}),
    ("relay", {"channel": 1, "data": b"x"}),
)


def rubbish(size):
    """Noise, the same each time."""
    seed, data = 1, bytearray(size)
    for index in range(size):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        data[index] = seed >> 16 & 0xFF
    return bytes(data)


def break_ring(page, serves=False):
    """An index that can't be, of the ring that its client, or who `serves` it, writes to."""
    consumer = ring.PAGE_SIZE // 8 + (2 if serves else 0)
    page.words[consumer + 1] = (page.words[consumer] + 5000) & 0xFFFFFFFF


class Link:
    """Requests one after the other; `serves`: to who opened the link."""

    def __init__(self, server, link, me, serves=False):
        self.link = link
        rings = ring.xenstore_rings(link.page)
        self.outgoing, incoming = (rings[1], rings[0]) if serves else rings
        self._serves = serves
        self._server = server
        self._channel = Channel(incoming, self.outgoing, self.notify, server, me)
        self._channel._accepted = self._channel._accepted | {"error"}  # whatever was asked
        self._last = 0x10000

    def notify(self):
        events.notify(self.link.port)

    def look(self):
        """Sees what the other end has written: a page that is mapped shows it at any time."""

    def ask(self, kind, **fields):
        """The answer's kind, or the number of the error."""
        self._last += 1
        self._channel.send(kind, self._last, **fields)
        deadline = events.now() + 30_000_000_000
        while events.now() < deadline:
            self.look()
            self._channel.flush()
            for message in self._channel.receive():
                if message.id == self._last:
                    return message.fields.errno if message.kind == "error" else message.kind
            events.wait(events.now() + 10_000_000)
        return "no answer"

    def forge(self, kind, **fields):
        what = fields.get("domid", fields.get("name", ""))
        print(f"forged {self._server} {kind}-{what} {self.ask(kind, **fields)}")

    def rubbish(self):
        """Frames of noise, then indices of noise: the link is worth nothing afterwards."""
        self.outgoing.write(rubbish(900))
        self.notify()
        events.wait(events.now() + 100_000_000)
        break_ring(self.link.page, self._serves)
        self.notify()
