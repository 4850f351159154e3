"""One guest: what it was asked to be, where in its life it is, and who waits for what.

`state` is what operators see (records.GUEST_STATE). `phase` is the step that is on its way and whose end an
event will tell; only Guests, Starts and Ends change either:

    phase      waits for                          then
    drivers    its devices' driver domains        build (left out if it has no devices)
    build      Builder's `built`                  link
    link       Builder's `done` for each device   records (left out if it has no devices)
    records    XenStore's replies                 plug
    plug       driver domains to prepare devices  unpause (left out if it has no devices)
    unpause    Builder's `done`                   settled: running
    ask        XenStore's reply (control/...)     settled: stopping or rebooting
    close      XenStore's replies                 destroy (left out if nothing is plugged)
    destroy    Builder's `done`                   remove
    remove     XenStore's replies                 gone, or drivers again

    recover    what Builder says of its domain    settled, or an end (recovery.py)

A guest that is settled (phase "") changes by an operator's request, by `stopped` from Builder or a timeout.
"""

from xoar.messages.records import GUEST_CONFIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from xoar.toolstack.device import Device
    from xoar.toolstack.memory import Thing

    class Request(Protocol):
        """Somebody who waits for an answer; exactly one of the two is called, once."""

        def answer(self, kind: str, **fields: Any) -> None:
            """It was done."""

        def refuse(self, errno: int, text: str) -> None:
            """It was not, and why."""


SETTLED = ""
DRIVERS = "drivers"
BUILD = "build"
LINK = "link"
RECORDS = "records"
PLUG = "plug"
UNPAUSE = "unpause"
ASK = "ask"
CLOSE = "close"
DESTROY = "destroy"
REMOVE = "remove"
RECOVER = "recover"

BUILDING = (DRIVERS, BUILD, LINK, RECORDS, PLUG, UNPAUSE)
ENDING = (CLOSE, DESTROY, REMOVE)

NEVER = 0

CONFIG_FIELDS = len(GUEST_CONFIG.fields)
"""Of guest_create, without its devices."""

ABANDONED = "destroyed by the operator"
"""The note of a guest whose start was given up for that."""


class Waiter:
    """An operator's request in progress: `what` is create, shutdown, reboot or destroy."""

    def __init__(self, what: str, request: "Request", deadline_ms: int = NEVER) -> None:
        self.what = what
        self.request = request
        self.deadline_ms = deadline_ms


class Guest:
    """`config` are the fields of guest_create; `devices` is what it has now, plugged later or not."""

    def __init__(self, config: "Any", devices: "list[Device]", now_ms: int) -> None:
        self.config = config
        self.devices = devices
        self.name: str = config.name
        self.state = "building"
        self.phase = SETTLED
        self.domid = 0
        self.previous_domid = 0
        self.reason = "none"
        self.note = ""
        self.errno = 0
        self.started_ms = now_ms
        self.restarts = 0
        self.quick_ends = 0
        self.waiters: "list[Waiter]" = []
        # how often Builder is asked once more to destroy its domain
        self.tries = 0
        # decided while a phase was on its way
        self.doomed = False
        self.rebuild = False
        self.stopped_reason = ""

    @property
    def settled(self) -> bool:
        """Whether its next life need not know of more than `state`: a request to it may have been lost."""
        return self.phase in (SETTLED, ASK)

    def remembered(self, resting: bytes) -> "list[Thing]":
        """What there is to remember; `resting` are handles of interfaces that it had."""
        fields = (
            self.domid,
            self.previous_domid,
            self.state,
            int(self.settled),
            int(self.rebuild),
            self.reason,
            self.note[:256],
            self.started_ms,
            self.restarts,
            self.quick_ends,
            resting,
        )
        things: "list[Thing]" = [(self, "kept_guest", tuple(self.config)[:CONFIG_FIELDS] + fields)]
        if self.state != "ended":
            things += [device.remembered(self.config.uuid) for device in self.devices]
        return things

    @property
    def plugged(self) -> "list[Device]":
        """Its devices that have nodes in XenStore."""
        return [device for device in self.devices if device.domid]

    def settle(self, whats: "tuple[str, ...]", kind: str, **fields: "Any") -> None:
        """Answers the waiters for one of `whats`."""
        for waiter in self._take(whats):
            waiter.request.answer(kind, **fields)

    def disappoint(self, whats: "tuple[str, ...]", errno: int, text: str) -> None:
        """Refuses the waiters for one of `whats`."""
        for waiter in self._take(whats):
            waiter.request.refuse(errno, text)

    def overdue(self, now_ms: int) -> "list[Waiter]":
        """Takes the waiters whose time is over."""
        over = [waiter for waiter in self.waiters if waiter.deadline_ms and waiter.deadline_ms <= now_ms]
        self.waiters = [waiter for waiter in self.waiters if waiter not in over]
        return over

    def no_hurry(self) -> None:
        """What the waiters asked for is on its way now and no longer depends on the guest."""
        for waiter in self.waiters:
            waiter.deadline_ms = NEVER

    def waits_for(self, what: str) -> bool:
        """Whether somebody waits for `what`."""
        return any([waiter.what == what for waiter in self.waiters])

    def _take(self, whats: "tuple[str, ...]") -> "list[Waiter]":
        taken = [waiter for waiter in self.waiters if waiter.what in whats]
        self.waiters = [waiter for waiter in self.waiters if waiter.what not in whats]
        return taken
