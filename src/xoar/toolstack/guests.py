"""The life cycle of guests, driven by events: operators' requests, answers of Builder and XenStore, stops.

Nothing here waits. Each failure half-way takes back what was done: the domain is destroyed and the records
are removed before the operator hears of it. `guest.py` has the table of phases; those of a start are in
`starts`, those of an end in `ends`, and what happens between is decided here.
"""

from xoar.messages.errors import EBUSY, EEXIST, EIO, ENOENT, ENOSPC, ETIMEDOUT
from xoar.toolstack import configuration, records
from xoar.toolstack.devices import Unfit
from xoar.toolstack.ends import RETRIES, Ends
from xoar.toolstack.guest import ABANDONED, ASK, BUILDING, ENDING, RECOVER, SETTLED, Guest, Waiter
from xoar.toolstack.starts import Starts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.toolstack.builder import Builder
    from xoar.toolstack.devices import Devices
    from xoar.toolstack.guest import Request
    from xoar.toolstack.memory import Thing
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.waits import Waits

MAX_GUESTS = 200
MAX_ENDED = 32
QUICK_END_MS = 20_000
MAX_QUICK_ENDS = 3
"""A guest that so often in a row ends by itself sooner than QUICK_END_MS after its start is not restarted."""

_ENDED_BY_ITSELF = {
    "poweroff": "it powered off",
    "reboot": "it rebooted",
    "soft_reset": "it asked for a soft reset",
    "suspend": "it suspended itself, which this host cannot resume",
    "crash": "it crashed",
    "watchdog": "its watchdog fired",
    "vanished": "its domain vanished",
    "none": "it stopped without a reason",
}


class Guests:
    """All guests of this Toolstack.

    `clock()` is in ms and never goes back; `domid` is the Toolstack's own (it owns the records); `report`
    takes lines for Xen's console.
    """

    def __init__(
        self,
        builder: "Builder",
        store: "StoreLink",
        waits: "Waits",
        devices: "Devices",
        clock: "Callable[[], int]",
        domid: int,
        report: "Callable[[str], None]" = print,
    ) -> None:
        self.ended: "list[Guest]" = []
        self._starts = Starts(builder, store, waits, devices)
        self._ends = Ends(builder, store, devices, waits, report)
        self._store = store
        self._devices = devices
        self._clock = clock
        self._report = report
        self._guests: "list[Guest]" = []

    @property
    def all(self) -> "list[Guest]":
        """In the order of their creation."""
        return self._guests

    def find(self, name: str) -> "Guest | None":
        """The guest of that name, if it exists now."""
        for guest in self._guests:
            if guest.name == name:
                return guest
        return None

    def find_ended(self, name: str) -> "Guest | None":
        """The last guest of that name that has ended, if that is remembered."""
        for guest in reversed(self.ended):
            if guest.name == name:
                return guest
        return None

    def by_domid(self, domid: int) -> "Guest | None":
        """The guest that is this domain now."""
        for guest in self._guests:
            if domid and guest.domid == domid:
                return guest
        return None

    # operators' requests

    def create(self, config: "Any", request: "Request") -> None:
        """Builds and starts a guest; answered with `started` or refused when all is taken back."""
        errno, text = self._judge(config)
        if errno:
            request.refuse(errno, text)
            return
        try:
            devices = self._devices.make(config)
        except Unfit as unfit:
            request.refuse(unfit.errno, unfit.text)
            return
        guest = Guest(config, devices, self._clock())
        guest.waiters.append(Waiter("create", request))
        self._guests.append(guest)
        self._start(guest)

    def shutdown(self, name: str, timeout_ms: int, request: "Request") -> None:
        """Asks the guest to power off; answered with `done` when it is gone."""
        guest = self._settled(name, request)
        if guest is None:
            return
        guest.waiters.append(Waiter("shutdown", request, self._clock() + timeout_ms))
        if guest.state == "kept":
            self._teardown(guest, False, "operator's request")
        else:
            self._ask(guest, "stopping", "poweroff")

    def reboot(self, name: str, timeout_ms: int, request: "Request") -> None:
        """Asks the guest to reboot; answered with `started` when it runs again."""
        guest = self._settled(name, request)
        if guest is None:
            return
        if guest.state == "kept":
            guest.waiters.append(Waiter("reboot", request))
            self._teardown(guest, True, "operator's request")
        else:
            guest.waiters.append(Waiter("reboot", request, self._clock() + timeout_ms))
            self._ask(guest, "rebooting", "reboot")

    def destroy(self, name: str, request: "Request") -> None:
        """Ends the guest at once; answered with `done` when it is gone."""
        guest = self._find_or_refuse(name, request)
        if guest is None:
            return
        guest.waiters.append(Waiter("destroy", request))
        if guest.phase in ENDING:
            guest.rebuild = False
            guest.state = "destroying"
        elif guest.phase == SETTLED:
            self._teardown(guest, False, ABANDONED)
        else:
            guest.doomed = True

    # events

    def stopped(self, domid: int, reason: str) -> None:
        """Builder says that a domain shut itself down or vanished."""
        guest = self.by_domid(domid)
        if guest is None or guest.phase in ENDING:
            return
        if guest.phase != SETTLED:
            guest.stopped_reason = reason
        elif guest.state != "kept" or reason == "vanished":
            self._stopped(guest, reason)

    def poll(self) -> None:
        """Refuses what has waited too long."""
        now = self._clock()
        for guest in self._guests:
            for waiter in guest.overdue(now):
                verb = "shut down" if waiter.what == "shutdown" else "reboot"
                text = "guest %s did not %s in time; it still runs" % (guest.name, verb)
                waiter.request.refuse(ETIMEDOUT, text)
            awaited = guest.waits_for("shutdown") or guest.waits_for("reboot")
            if guest.phase == SETTLED and guest.state in ("stopping", "rebooting") and not awaited:
                guest.state = "running"

    def deadline_ms(self) -> "int | None":
        """When `poll` has something to do though nothing has happened."""
        deadlines = [
            waiter.deadline_ms for guest in self._guests for waiter in guest.waiters if waiter.deadline_ms
        ]
        return min(deadlines) if deadlines else None

    # the last life's

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way with any of them, and nobody waits."""
        return all([guest.phase == SETTLED and not guest.waiters for guest in self._guests])

    def remembered(self) -> "list[Thing]":
        """What the next life needs to know, those that have ended first."""
        things: "list[Thing]" = []
        for guest in self.ended + self._guests:
            things += guest.remembered(self._devices.resting(guest.config))
        return things

    def adopt(self, guest: Guest) -> None:
        """One of the last life; `recover` follows, if it has not ended."""
        if guest.state == "ended":
            self.ended.append(guest)
        else:
            guest.phase = RECOVER
            self._guests.append(guest)

    def recover(self, guest: Guest, settled: bool, domain: "Any | None") -> None:
        """What Builder says of the domain of a guest that was adopted: a row of its list, None if it is gone.

        If the last life had something on its way with the guest, the guest is destroyed; if it was to run
        again, it is started again, as often as MAX_QUICK_ENDS says: it may be why the last life ended.
        """
        guest.tries = RETRIES
        if domain is None or domain.state == "dying":
            # Builder has had its devices' nodes removed; what was written there now would stay
            for device in guest.plugged:
                self._devices.leave(device)
        if not settled:
            guest.quick_ends += int(guest.rebuild)
            rebuild = guest.rebuild and guest.quick_ends < MAX_QUICK_ENDS and not guest.doomed
            note = guest.note if guest.state == "destroying" else ""
            self._teardown(guest, rebuild, note or "the Toolstack began anew while it was %s" % guest.state)
            return
        guest.phase = SETTLED
        if guest.doomed:
            self._teardown(guest, False, ABANDONED)
        elif domain is None or domain.state == "dying":
            self._stopped(guest, "vanished")
        elif domain.reason != "none":
            self.stopped(guest.domid, domain.reason)
        else:
            guest.tries = 0
            self._catch_up(guest)

    def persist(self) -> None:
        """Builder may not do what it was asked: ends of domains are asked for again."""
        for guest in self._guests:
            guest.tries = RETRIES

    # starting

    def _start(self, guest: Guest) -> None:
        self._starts.start(guest, lambda errno, text: self._started(guest, errno, text))

    def _started(self, guest: Guest, errno: int, text: str) -> None:
        if text:
            guest.errno = errno
            self._teardown(guest, False, text)
            return
        guest.phase = SETTLED
        guest.state = "running"
        guest.reason = "none"
        guest.started_ms = self._clock()
        guest.settle(("create", "reboot"), "started", domid=guest.domid)
        # asked for before a later request for a reboot
        guest.disappoint(("shutdown",), EIO, "guest %s was started again: %s" % (guest.name, guest.note))
        self._catch_up(guest)

    # stopping

    def _ask(self, guest: Guest, state: str, how: str) -> None:
        guest.state = state
        guest.phase = ASK
        batch = records.ask_to_stop(self._store, guest.domid, how)
        self._store.run(batch, lambda refused: self._asked(guest, refused))

    def _asked(self, guest: Guest, refused: str) -> None:
        guest.phase = SETTLED
        if guest.doomed:
            self._teardown(guest, False, ABANDONED)
            return
        if refused:
            guest.state = "running"
            guest.disappoint(("shutdown", "reboot"), EIO, refused)
        self._catch_up(guest)

    def _catch_up(self, guest: Guest) -> None:
        if guest.stopped_reason:
            reason, guest.stopped_reason = guest.stopped_reason, ""
            self._stopped(guest, reason)

    def _stopped(self, guest: Guest, reason: str) -> None:
        wanted = guest.state
        guest.reason = reason
        note = _ENDED_BY_ITSELF[reason]
        self._report("guest %s (domain %d): %s" % (guest.name, guest.domid, note))
        if reason == "vanished":
            # Builder has had its devices' nodes removed; what was written there now would stay
            for device in guest.plugged:
                self._devices.leave(device)
        if reason in ("poweroff", "vanished") or wanted == "stopping":
            self._teardown(guest, False, note)
        elif wanted == "rebooting" and reason in ("reboot", "soft_reset"):
            self._teardown(guest, True, note)
        elif reason in ("reboot", "soft_reset"):
            self._follow(guest, guest.config.on_reboot, note)
        elif reason == "suspend":
            self._keep(guest, note)
        else:
            self._follow(guest, guest.config.on_crash, note)

    def _follow(self, guest: Guest, action: str, note: str) -> None:
        if action == "keep":
            self._keep(guest, note)
            return
        if action == "restart":
            quick = self._clock() - guest.started_ms < QUICK_END_MS
            guest.quick_ends = guest.quick_ends + 1 if quick else 0
            if guest.quick_ends >= MAX_QUICK_ENDS:
                guest.quick_ends = 0
                self._keep(guest, "%s, %d times right after its start" % (note, MAX_QUICK_ENDS))
                return
        self._teardown(guest, action == "restart", note)

    def _keep(self, guest: Guest, note: str) -> None:
        guest.state = "kept"
        guest.note = note
        guest.disappoint(("shutdown", "reboot"), EIO, "guest %s is kept as it is: %s" % (guest.name, note))

    # taking back

    def _teardown(self, guest: Guest, rebuild: bool, note: str) -> None:
        guest.rebuild = rebuild
        guest.state = "rebooting" if rebuild else "destroying"
        guest.note = note
        guest.doomed = False
        guest.stopped_reason = ""
        guest.no_hurry()
        if guest.domid == 0:
            self._gone(guest)
        else:
            self._ends.end(guest, lambda errno, text: self._ended(guest, errno, text))

    def _ended(self, guest: Guest, errno: int, text: str) -> None:
        if not text:
            self._gone(guest)
            return
        guest.phase = SETTLED
        guest.state = "kept"
        guest.note = "it could not be destroyed: %s" % text
        self._report("guest %s (domain %d): %s" % (guest.name, guest.domid, guest.note))
        text = "guest %s: %s" % (guest.name, guest.note)
        guest.disappoint(("create", "shutdown", "reboot", "destroy"), errno, text)

    def _gone(self, guest: Guest) -> None:
        if guest.rebuild:
            guest.restarts += 1
            self._start(guest)
            return
        for entry in guest.devices:
            self._devices.forget(entry)
        if guest.errno:
            self._report("guest %s could not be built: %s" % (guest.name, guest.note))
        guest.phase = SETTLED
        guest.state = "ended"
        self._guests.remove(guest)
        self.ended.append(guest)
        if len(self.ended) > MAX_ENDED:
            self.ended.pop(0)
        guest.settle(("shutdown", "destroy"), "done")
        text = "guest %s is gone: %s" % (guest.name, guest.note)
        guest.disappoint(("create", "reboot"), guest.errno or EIO, text)

    # judging

    def _judge(self, config: "Any") -> "tuple[int, str]":
        """(error number, what is wrong) of a configuration; (0, "") if nothing is."""
        if self.find(config.name) is not None:
            return EEXIST, "there is a guest %s already" % config.name
        if len(self._guests) >= MAX_GUESTS:
            return ENOSPC, "there are %d guests, the most allowed" % MAX_GUESTS
        for guest in self._guests:
            if guest.config.uuid == config.uuid:
                return EEXIST, "guest %s has the same uuid" % guest.name
        return configuration.judge(config)

    def _find_or_refuse(self, name: str, request: "Request") -> "Guest | None":
        guest = self.find(name)
        if guest is None:
            request.refuse(ENOENT, self.absence(name))
        return guest

    def _settled(self, name: str, request: "Request") -> "Guest | None":
        guest = self._find_or_refuse(name, request)
        if guest is not None and guest.phase != SETTLED:
            state = "being built" if guest.phase in BUILDING else guest.state
            request.refuse(EBUSY, "guest %s is %s; try again in a moment" % (name, state))
            return None
        return guest

    def absence(self, name: str) -> str:
        """Why there is no guest of that name."""
        ended = self.find_ended(name)
        if ended is None:
            return "there is no guest %s" % name
        return "guest %s has ended: %s" % (name, ended.note)
