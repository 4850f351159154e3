"""A nano shard that serves as always until something has happened, and then is the attacker's.

`when(due, attack)` before the shard's own main(): from then on, wherever the shard sleeps, `due()` is asked,
and once it says yes `attack()` runs, once.
"""

from operations import Sweep, present

import nano
from xoar.xen import boot, events

_INTERVAL = 500_000_000
_SETTLING = 15_000_000_000  # a guest is created meanwhile: dozens of requests, each with a rollback of Logic
_FIRST_GUEST = 32

_sleep = events.wait


def when(due, attack):
    todo = [attack]

    def wait(deadline=None):
        if todo and due():
            todo.pop()()
        soon = events.now() + _INTERVAL
        return _sleep(soon if deadline is None else min(deadline, soon))

    events.wait = wait


class GuestRuns:
    """Whether the first guest has been there for some seconds, so that all know of it."""

    def __init__(self):
        self._since = None

    def __call__(self):
        if self._since is None and present(nano, range(_FIRST_GUEST, _FIRST_GUEST + 1)):
            self._since = events.now()
        return self._since is not None and self._since + _SETTLING <= events.now()


def sweep(devices=()):
    """Tries everything on everybody else."""
    own = int(boot.setting("domid"))
    victims = [domid for domid in present(nano) if domid != own]
    Sweep(nano, print, victims, devices).run()
    print("sweep done: " + " ".join([str(domid) for domid in victims]))
