"""The Restorer shard: rolls others back. All that it reads of others is which event channel fired, and how
far Toolstack has read the records that it writes.

Command line: `target=<name>:<domid>:<frames>:<its port>:<seconds>:<untracked>:<kept>:<sealed>` is a
shard that is rolled back (the last three are runs of frames, `<first>+<count>,...`),
`kick=<who>:<domid>:<its port>:<target>:<requests>` somebody who may ask for it. xoar.microreboot
has the meaning.
"""

from xoar.microreboot.machine import Machine
from xoar.microreboot.restorer import Kick, Restorer, Target
from xoar.microreboot.teller import Teller
from xoar.xen import boot, events, ring
from xoar.xen.guard import Guard


def targets() -> "list[Target]":
    """The shards that are rolled back, with the channels to them bound."""
    found = []
    for value in boot.settings("target"):
        name, domid, frames, port, seconds, untracked, kept, sealed = value.split(":")
        local = events.bind(int(domid), int(port))
        found.append(
            Target(
                name,
                int(domid),
                int(frames),
                local,
                int(seconds),
                _runs(untracked),
                _runs(kept),
                _runs(sealed),
            )
        )
    return found


def _runs(text: str) -> "list[range]":
    runs = [run.split("+") for run in text.split(",") if run]
    return [range(int(first), int(first) + int(count)) for first, count in runs]


def kicks() -> "dict[int, Kick]":
    """Who may ask for which shard, by port."""
    found = {}
    for value in boot.settings("kick"):
        who, domid, port, target, requests = value.split(":")
        found[events.bind(int(domid), int(port))] = Kick(who, target, requests != "0")
    return found


def main() -> None:
    """Serves for ever."""
    link = boot.uses("toolstack")
    teller = Teller(ring.xenstore_rings(link.page)[0], lambda: events.notify(link.port), events.now)
    shards, asked_by = targets(), kicks()
    # who binds a channel finds it signalled (Xen: in case it was, before): nobody has asked for anything yet
    events.wait(events.now())
    restorer = Restorer(Machine(), shards, asked_by, boot.LIFE_FRAME, teller.tell)
    guard = Guard("restorer")
    boot.ready()
    print("restorer: ready, %d shards" % len(shards))
    for shard in shards:
        events.notify(shard.port)  # it may have asked before anybody listened
    while True:
        known = [deadline for deadline in (restorer.deadline(), teller.deadline()) if deadline is not None]
        guard.call(restorer.turn, events.wait(min(known) if known else None))
        guard.call(teller.flush)
