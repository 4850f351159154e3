"""XenStore's Logic, which serves as always, but is hostile to who asks for a path that begins with "attack/".

Each attack prints "forged <what> <State's answer>", then answers the request with a lie.
"""

import gc

from forging import NOT_ITS, break_ring, rubbish

from xoar.messages.channel import Channel
from xoar.xen import boot, events
from xoar.xen.ring import xenstore_rings
from xoar.xenstore import logic
from xoar.xenstore.statelink import StateLink

_ENDLESS = 100
_TOO_LONG = 6_000_000_000

serve_honestly = logic.answer


class Link(StateLink):
    """Knows the number of the request that it has."""

    number = 0

    def _next(self):
        message = super()._next()
        if message.kind == "store_request":
            self.number = message.id
        return message

    def forge(self, what, kind, number, *values):
        self._send(kind, number, values)
        message = self._next()
        answer = message.kind
        if answer == "store_refusal":
            answer = message.fields.name
        elif answer == "error":
            answer = message.fields.errno
        print(f"forged {what} {answer}")


def others(link, asked):
    """Requests that it does not have, nodes of another guest, more than one operation, others' messages."""
    victim = b"/local/domain/%d/data/x" % (asked.domid - 1)
    numbers = (("next", link.number + 1), ("last", link.number - 1), ("none", 0), ("far", 0xFFFFFFFF))
    for what, number in numbers:
        link.forge("write-" + what, "store_put", number, victim, b"stolen")
    link.forge("release-next", "store_release", link.number + 1, asked.domid - 1)
    for kind, fields in NOT_ITS:
        link._channel.send(kind, link.number, **fields)
        print(f"forged {kind} {link._next().fields.errno}")
    link.forge("write", "store_put", link.number, victim, b"stolen")
    # that was its one operation, though it was refused
    link.forge("second", "store_put", link.number, b"/local/domain/%d/data/x" % asked.domid, b"second")


def manager(link, asked):
    """What only a manager may do, as the one operation of a request."""
    link.forge("manage", "store_release", link.number, asked.domid - 1)


def endless(link, asked):
    """Operations without end, all but the first of them for nothing."""
    for count in range(_ENDLESS):
        link._send("store_put", link.number, (b"/local/domain/%d/data/%d" % (asked.domid, count), b""))
        link._next()
    print("forged endless done")


def twice(link, asked):
    """Answers more than once, and what is not there to be answered."""
    print("forged twice sent")  # rolled back after the first answer, it says nothing any more
    for number in (link.number, link.number, link.number + 1, link.number + 2):
        link._channel.send("store_answer", number, payload=b"lie")


def late(link, asked):
    """No answer for longer than State has patience."""
    due = events.now() + _TOO_LONG
    while events.now() < due:
        events.wait(due)


def memory(link, asked):
    """What Logic has in its heap once garbage is gone."""
    gc.collect()
    print(f"logic holds {gc.mem_alloc()} bytes, {gc.mem_free()} are free")


def noise(link, asked):
    """Bytes that are no frames, and a ring that can't be: State has it rolled back."""
    page = boot.uses("xenstore")
    link._channel._outgoing.write(rubbish(900))
    events.notify(page.port)
    events.wait(events.now() + 100_000_000)
    break_ring(page.page)
    events.notify(page.port)


ATTACKS = {
    "others": others,
    "manager": manager,
    "endless": endless,
    "twice": twice,
    "late": late,
    "memory": memory,
    "noise": noise,
}


def main():
    end = boot.uses("xenstore")
    to_state, to_logic = xenstore_rings(end.page)
    channel = Channel(to_logic, to_state, lambda: events.notify(end.port), "xenstore", "logic")
    channel._accepted = channel._accepted | {"error"}
    link = Link(channel, lambda: events.wait())

    def answer(asked, operate):
        if asked.payload.startswith(b"attack/"):
            ATTACKS[asked.payload[7:-1].decode()](link, asked)
            return logic.Answer("", b"lie")
        return serve_honestly(asked, operate)

    logic.answer = answer
    boot.snapshot()
    boot.ready()
    while True:
        link.serve()
