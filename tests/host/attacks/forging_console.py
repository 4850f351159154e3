"""The Console, until it is the attacker's: then it relays rubbish, and sends what only others may."""

from forging import NOT_ITS, Link, rubbish
from takeover import GuestRuns, when

from xoar.messages.codec import encode
from xoar.shards.console import main as shard
from xoar.xen import boot, events

links = []


class Noted(shard._Link):
    """A link that a shard opened to Console."""

    def __init__(self, domid, gref, port, peer):
        super().__init__(domid, gref, port, peer)
        if peer == "toolstack":
            links.append(boot.Link(self.page, self.port))


def attack():
    toolstack = Link("toolstack", links[0], "console", True)
    for kind, fields in NOT_ITS[:-1]:
        toolstack.forge(kind, **fields)
    toolstack.forge("destroy", domid=32)  # Builder's request, not an operator's
    for channel in range(100):  # more streams than there may be, of noise, and of frames cut off
        toolstack._channel.send("relay", 0, channel=1000 + channel, data=rubbish(4096))
        toolstack._channel.send("relay", 0, channel=2000 + channel, data=encode("ps", 1, start=0)[:7])
        toolstack._channel.send("hangup", 0, channel=3000 + channel)
        events.wait(events.now() + 10_000_000)
        toolstack._channel.receive()
        toolstack._channel.flush()
    toolstack.rubbish()
    print("forging done")
    while True:
        events.wait(None)


def main():
    shard._Link = Noted
    when(GuestRuns(), attack)
    shard.main()
