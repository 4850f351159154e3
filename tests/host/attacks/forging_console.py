"""The Console, until it is the attacker's: then it relays rubbish, and sends what only others may."""

from forging import NOT_ITS, Link, rubbish
from takeover import GuestRuns, when

from xoar.messages.codec import encode
from xoar.shards.console import main as shard
from xoar.xen import boot, events
from xoar.xen.endless import Endless

links = []
reach = shard._reach


class Copied(Link):
    """A link whose page is copied."""

    def __init__(self, server, end, me):
        super().__init__(server, boot.Link(end.page, end.port), me, True)
        self._end = end

    def notify(self):
        self._end.publish()

    def look(self):
        self._end.publish()
        self._end.fetch()


def noted(domid, gref, port, peer):
    """Reaches a link that a shard opened to Console."""
    link = reach(domid, gref, port, peer)
    if peer == "toolstack":
        links.append(link._copy)
    return link


def attack():
    toolstack = Copied("toolstack", links[0], "console")
    for kind, fields in NOT_ITS[:-1]:
        toolstack.forge(kind, **fields)
    toolstack.forge("destroy", domid=32)  # Builder's request, not an operator's
    for channel in range(100):  # more streams than there may be, of noise, and of frames cut off
        toolstack._channel.send("relay", 0, channel=1000 + channel, data=rubbish(4096))
        toolstack._channel.send("relay", 0, channel=2000 + channel, data=encode("ps", 1, start=0)[:7])
        toolstack._channel.send("hangup", 0, channel=3000 + channel)
        events.wait(events.now() + 10_000_000)
        toolstack.look()
        toolstack._channel.receive()
        toolstack._channel.flush()
    toolstack.rubbish()
    print("forging done")
    while True:
        events.wait(None)


def main():
    shard._reach = noted
    shard.Life = Endless  # it would not be there long enough to attack anybody
    when(GuestRuns(), attack)
    shard.main()
