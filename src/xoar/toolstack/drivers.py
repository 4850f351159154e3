"""The life of driver domains and of PCIBack, driven by events of Builder and of XenStore.

PCIBack lives for a round: it is built, claims devices, driver domains start, and when each of them is ready
or has failed it is destroyed. Driver domains that are to start while a round goes on wait for the next one,
since PCIBack looks for devices only when it starts. One that fails does not hold up the others. There is
also a round without any when the host has driver domains without a device, and when one was withdrawn: to
learn which devices there are, and to reset the one.

Others take part by entering functions in the lists here, besides those of Agents: `preparing` gets the batch
that writes a driver domain's records before it runs.
"""

from xoar.messages.errors import EBUSY, EIO, ENOENT, ETIMEDOUT
from xoar.messages.records import NO_DEVICE, function_name
from xoar.toolstack import records
from xoar.toolstack.agents import Agents
from xoar.toolstack.driver import BUILDING, FAILED, READY, STARTING, UNASSIGNED, WAITING
from xoar.toolstack.store import Batch
from xoar.xenstore import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.driver import Driver
    from xoar.toolstack.guest import Request
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.waits import Waits

START_MS = 300_000
"""How long PCIBack's claim, and then the driver domain's start, may take."""

_PCIBACK = "pciback"


class Drivers(Agents):
    """All driver domains of the host. `owner` is the Toolstack's domid; for `clock` see Waits.

    `declared`: they, and PCIBack's domid.
    """

    def __init__(
        self,
        builder: "Builder",
        store: "StoreLink",
        waits: "Waits",
        clock: "Callable[[], int]",
        owner: int,
        declared: "tuple[list[Driver], int]",
        report: "Callable[[str], None]",
    ) -> None:
        super().__init__(store, clock)
        self.all, self._pciback = declared
        self.preparing: "list[Callable[[Batch, Driver], None]]" = []
        self._builder = builder
        self._waits = waits
        self._owner = owner
        self._report = report
        # a round goes on; whom for; whether Builder builds PCIBack, and whether it is there
        self._busy = False
        self._round: "list[Driver]" = []
        self._recalled: "list[Driver]" = []
        self._pciback_asked = False
        self._pciback_up = False
        # whether the next round is needed for the list of devices, and whether this one waits for it
        self._survey_wanted = False
        self._surveying = False

    # the last life's

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way with any of them, or with PCIBack."""
        return not self._busy and all([driver.settled for driver in self.all])

    def recall_driver(self, fields: "Any") -> "Driver | None":
        """The driver domain of a record of the last life, as it was then; None if there is none."""
        driver = self.find(fields.name)
        if driver is None or driver in self._recalled or (fields.state == UNASSIGNED) != (not fields.device):
            return None
        driver.device, driver.note, driver.restarts = fields.device, fields.note, fields.restarts
        driver.since_ms = min(fields.since_ms, self._clock())
        driver.state, driver.up, driver.recorded = fields.state, bool(fields.up), bool(fields.recorded)
        if not fields.settled or not driver.decided:
            # a new start does what is missing; one that was being withdrawn is left to the operator
            driver.up = driver.recorded = False
            driver.state = driver.state if driver.decided else WAITING
        self._recalled.append(driver)
        return driver

    def begin(self, domains: "dict[int, Any]") -> None:
        """Starts those that are to be started; called once. `domains` are Builder's rows by domid."""
        # 0: there is none, and domain 0 is somebody else
        self._pciback_up = self._pciback != 0 and self._pciback in domains
        # PCIBack was there for a round that nobody has ended
        self._survey_wanted = self._pciback_up
        for driver in self.all:
            self._listen(driver)
            if driver not in self._recalled:
                driver.since_ms = self._clock()
                self._survey_wanted = self._survey_wanted or driver.state == UNASSIGNED
        self.compare(domains)

    def compare(self, domains: "dict[int, Any]") -> None:
        """Goes by what Builder says: which are gone, and which are there though nothing is known of them."""
        for driver in self.all:
            row = domains.get(driver.domid)
            if driver.up:
                ended = "vanished" if row is None or row.state == "dying" else row.reason
                if ended != "none" and driver.state != FAILED:
                    self.stopped(driver.domid, ended)
            elif row is not None and not driver.asked:
                self._clear(driver)
        self._next_round()

    def _clear(self, driver: "Driver") -> None:
        """Destroys a driver domain of which the last life did not say that it is whole."""

        def cleared(message: "Message") -> None:
            driver.asked = False
            if _is_gone(message):
                self._remove(driver.domid, self._next_round)
            else:
                driver.up = True
                self._fail(driver, "it could not be destroyed: %s" % message.fields.text)

        driver.asked = True
        self._builder.ask("destroy", cleared, domid=driver.domid)

    def recall(self, name: str, kind: str, domid: int) -> "Driver | None":
        driver = self.find(name)
        return driver if driver is not None and (driver.kind, driver.domid) == (kind, domid) else None

    # operators' requests

    def restart(self, name: str, timeout_ms: int, request: "Request") -> None:
        """Ends a driver domain and starts it anew; answered when it is ready."""
        driver = self._idle(name, request)
        if driver is None:
            return
        if driver.device == NO_DEVICE:
            request.refuse(EBUSY, driver.trouble)
            return
        if driver in self._round:
            self._round.remove(driver)
        driver.restarts += 1
        self._await(driver, timeout_ms, request)
        self._lose(driver)
        if driver.up:
            self._builder.ask("destroy", lambda reply: self._destroyed(driver, reply), domid=driver.domid)
        else:
            self._next_round()

    def assign(self, name: str, bdf: int, timeout_ms: int, request: "Request") -> None:
        """Gives a driver domain a device and starts it; answered when it is ready."""
        driver = self._idle(name, request)
        if driver is None:
            return

        def assigned(message: "Message") -> None:
            driver.asked = False
            if message.kind == "error":
                request.refuse(message.fields.errno, message.fields.text)
                return
            driver.device = bdf
            self._await(driver, timeout_ms, request)
            self._next_round()

        driver.asked = True
        self._builder.ask("assign_pci_device", assigned, driver=name, bdf=bdf)

    def withdraw(self, name: str, timeout_ms: int, request: "Request") -> None:
        """Ends a driver domain and takes its device back; answered when both is done.

        The device is reset in a round of its own, which nobody waits for.
        """
        driver = self._idle(name, request)
        if driver is None:
            return

        def left(in_time: bool) -> None:
            if not in_time:
                request.refuse(ETIMEDOUT, "driver domain %s has not ended yet" % name)

        def withdrawn(message: "Message") -> None:
            driver.asked = False
            if message.kind == "error":
                if driver.state == FAILED:
                    driver.note = message.fields.text
                request.refuse(message.fields.errno, message.fields.text)
                return
            driver.state, driver.note, driver.device = UNASSIGNED, "", NO_DEVICE
            request.answer("done")
            self._survey_wanted = True
            self._next_round()

        def removed() -> None:
            self._builder.ask("withdraw_pci_device", withdrawn, driver=name)

        def destroyed(message: "Message") -> None:
            if not _is_gone(message):
                driver.asked = False
                driver.note = "it could not be destroyed: %s" % message.fields.text
                request.refuse(EBUSY, "driver domain %s: %s" % (name, driver.note))
                return
            driver.up = False
            self._remove(driver.domid, removed)

        driver.asked = True
        if driver in self._round:
            self._round.remove(driver)
        self._waits.until(lambda: not driver.asked, timeout_ms, left)
        if driver.state != UNASSIGNED:
            note = "%s is being withdrawn" % function_name(driver.device)
            driver.state, driver.note, driver.since_ms = FAILED, note, self._clock()
        if driver.up:
            self._lose(driver)
            self._builder.ask("destroy", destroyed, domid=driver.domid)
        else:
            removed()

    def _idle(self, name: str, request: "Request") -> "Driver | None":
        """The driver domain of that name, if nothing is on its way with it; else refuses the request."""
        driver = self.find(name)
        if driver is None:
            request.refuse(ENOENT, "there is no driver domain %s" % name)
        elif not driver.decided or driver.asked:
            text = "driver domain %s is being started or ended; try again in a moment"
            request.refuse(EBUSY, text % name)
            return None
        return driver

    def _await(self, driver: "Driver", timeout_ms: int, request: "Request") -> None:
        """Has a driver domain start in the next round, and the request answered when that is decided."""

        def decided(in_time: bool) -> None:
            if not in_time:
                request.refuse(ETIMEDOUT, driver.trouble)
            elif driver.state == READY:
                request.answer("done")
            else:
                request.refuse(EIO, driver.trouble)

        driver.state, driver.note, driver.since_ms = WAITING, "", self._clock()
        self._waits.until(lambda: driver.decided, timeout_ms, decided)

    # events

    def surveyed(self) -> None:
        """Builder says that PCIBack has told of all devices."""
        self._surveying = False

    def device(self, name: str, state: str, text: str) -> None:
        """Builder says what became of a device: claimed, failed or gone."""
        driver = self.find(name)
        if driver is None:
            return
        early = driver.state == WAITING and driver not in self._round
        if driver.state in (FAILED, UNASSIGNED) or early:
            return
        if state == "claimed" and driver.state == WAITING:
            self._build(driver)
        elif state == "failed":
            self._fail(driver, text)
        elif state == "gone":
            self._fail(driver, "its device is gone: %s" % text)

    def stopped(self, domid: int, reason: str) -> None:
        """Builder says that a domain shut itself down or vanished."""
        if domid == self._pciback:
            self._surveying = False
            for driver in self._round:
                if not driver.decided:
                    self._fail(driver, "PCIBack ended (%s) before its device was in service" % reason)
        for driver in self.all:
            if driver.domid == domid and driver.up and driver.state != WAITING:
                self._lose(driver)
                self._fail(driver, "its domain ended: %s" % reason)

    # PCIBack

    def _next_round(self) -> None:
        waiting = [
            driver for driver in self.all if driver.state == WAITING and not driver.up and not driver.asked
        ]
        if (waiting or self._survey_wanted) and not self._busy:
            self._busy, self._round = True, waiting
            self._surveying, self._survey_wanted = self._survey_wanted, False
            self._waits.until(self._round_is_over, None, lambda _: self._dismiss())
            if self._pciback_up:
                # one that could not be destroyed after its round
                self._builder.ask("destroy", self._pciback_cleared, domid=self._pciback)
            else:
                self._build_pciback()

    def _round_is_over(self) -> bool:
        return (
            not self._pciback_asked
            and not self._surveying
            and all([driver.decided for driver in self._round])
        )

    def _pciback_cleared(self, message: "Message") -> None:
        if _is_gone(message):
            self._build_pciback()
        else:
            self._fail_round("an earlier PCIBack could not be destroyed: %s" % message.fields.text)

    def _build_pciback(self) -> None:
        self._pciback_asked, self._pciback_up = True, False
        self._builder.ask("build_shard", self._pciback_built, name=_PCIBACK)

    def _pciback_built(self, message: "Message") -> None:
        self._pciback_asked = False
        if message.kind != "built":
            self._fail_round("PCIBack could not be built: %s" % message.fields.text)
            return
        self._pciback_up = True
        batch = Batch(self._store)
        records.pciback(batch, self._owner, self._pciback)
        self._store.run(batch, self._pciback_recorded)

    def _pciback_recorded(self, refused: str) -> None:
        if refused:
            self._fail_round("PCIBack was not started: %s" % refused)
        else:
            self._builder.ask("unpause", self._pciback_unpaused, domid=self._pciback)

    def _pciback_unpaused(self, message: "Message") -> None:
        if message.kind != "done":
            self._fail_round("PCIBack was not started: %s" % message.fields.text)
        self._waits.until(lambda: not self._surveying, START_MS, lambda in_time: self.surveyed())
        for driver in self._round:
            self._expect(driver, WAITING, "PCIBack did not claim its device in %d s")

    def _fail_round(self, note: str) -> None:
        if self._surveying:
            self._report("the host's devices are not known: %s" % note)
            self._surveying = False
        for driver in self._round:
            if not driver.decided:
                self._fail(driver, note)

    def _dismiss(self) -> None:
        self._round = []
        if self._pciback_up:
            self._builder.ask("destroy", self._dismissed, domid=self._pciback)
        else:
            self._end_round()

    def _dismissed(self, message: "Message") -> None:
        if _is_gone(message):
            self._pciback_up = False
        else:
            self._report("PCIBack could not be destroyed: %s" % message.fields.text)
        self._remove(self._pciback, self._end_round)

    def _end_round(self) -> None:
        self._busy = False
        self._next_round()

    # driver domains

    def _build(self, driver: "Driver") -> None:
        driver.state = BUILDING
        driver.asked = True
        self._builder.ask("build_shard", lambda reply: self._built(driver, reply), name=driver.name)

    def _built(self, driver: "Driver", message: "Message") -> None:
        driver.asked = False
        if message.kind != "built":
            self._fail(driver, "it could not be built: %s" % message.fields.text)
            return
        driver.up = True
        driver.said_state = driver.said_note = ""
        batch = Batch(self._store)
        records.driver_domain(batch, self._owner, driver, self._pciback, message.fields)
        for prepare in self.preparing:
            prepare(batch, driver)
        driver.recorded = True
        self._store.run(batch, lambda refused: self._recorded(driver, refused))

    def _recorded(self, driver: "Driver", refused: str) -> None:
        if refused:
            self._fail(driver, refused)
        if driver.state == BUILDING:
            self._builder.ask("unpause", lambda reply: self._unpaused(driver, reply), domid=driver.domid)

    def _unpaused(self, driver: "Driver", message: "Message") -> None:
        if message.kind != "done":
            self._fail(driver, "it was not started: %s" % message.fields.text)
        if driver.state == BUILDING:
            driver.state = STARTING
            driver.since_ms = self._clock()
            self._expect(driver, STARTING, "its agent did not say in %d s that it is ready")
            self._consider(driver)

    def _expect(self, driver: "Driver", state: str, text: str) -> None:
        """Fails the driver domain if it is in that state for longer than START_MS."""

        def left(in_time: bool) -> None:
            if not in_time:
                self._fail(driver, text % (START_MS // 1000))

        self._waits.until(lambda: driver.state != state, START_MS, left)

    def _fail(self, driver: "Driver", note: str) -> None:
        driver.state, driver.note = FAILED, note
        self._report("driver domain %s (domain %d) failed: %s" % (driver.name, driver.domid, note))

    def _lose(self, driver: "Driver") -> None:
        driver.recorded = False
        self._tell_of_loss(driver)

    def _destroyed(self, driver: "Driver", message: "Message") -> None:
        if not _is_gone(message):
            self._fail(driver, "it could not be destroyed: %s" % message.fields.text)
            return
        driver.up = False
        self._remove(driver.domid, self._next_round)

    def _remove(self, domid: int, removed: "Callable[[], None]") -> None:
        batch = Batch(self._store)
        batch.add(wire.RM, records.domain_path(domid))
        self._store.run(batch, lambda refused: removed())

    # what agents say

    def _consider(self, driver: "Driver") -> None:
        # also one that failed before: an agent that was started again, or was only slow
        if driver.said_state == READY and driver.recorded and driver.state in (STARTING, FAILED):
            driver.state, driver.note = READY, ""
        elif driver.said_state == FAILED and driver.state in (STARTING, READY):
            self._fail(driver, driver.said_note or "its agent does not say why")


def _is_gone(answer: "Message") -> bool:
    """Whether a domain that was to be destroyed does not exist any more."""
    return answer.kind == "done" or bool(answer.fields.errno == ENOENT)
