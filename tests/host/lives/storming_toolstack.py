"""The shard toolstack, which asks for a rollback of Logic every few milliseconds, many times each."""

from xoar.shards.toolstack import main as shard
from xoar.xen import boot, events

_OFTEN = 20_000_000
_EACH = 50

_sleep = events.wait


def main():
    (kick,) = [kick for kick in boot.kicks() if kick.target == "logic"]
    first = [True]

    def wait(deadline=None):
        for _ in range(_EACH):
            events.notify(kick.port)
        if first:
            first.pop()
            print("toolstack: storms")
        soon = events.now() + _OFTEN
        return _sleep(soon if deadline is None else min(deadline, soon))

    events.wait = wait
    shard.main()
