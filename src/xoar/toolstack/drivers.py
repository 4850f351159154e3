"""The life of driver domains and of PCIBack, driven by events of Builder and of XenStore.

PCIBack lives for a round: it is built, claims devices, driver domains start, and when each of them is ready
or has failed it is destroyed. Driver domains that are to start while a round goes on wait for the next one,
since PCIBack looks for devices only when it starts. One that fails does not hold up the others.

Others take part by entering functions in the lists here, besides those of Agents: `preparing` gets the batch
that writes a driver domain's records before it runs.
"""

from xoar.messages.errors import EBUSY, EIO, ENOENT, ETIMEDOUT
from xoar.toolstack import records
from xoar.toolstack.agents import Agents
from xoar.toolstack.driver import BUILDING, FAILED, READY, STARTING, WAITING
from xoar.toolstack.store import Batch
from xoar.xenstore import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.driver import Driver
    from xoar.toolstack.guest import Request
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.waits import Waits

START_MS = 120_000
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
        self._pciback_asked = False
        self._pciback_up = False

    def start(self) -> None:
        """Begins to start all; called once."""
        for driver in self.all:
            driver.since_ms = self._clock()
            self._listen(driver)
        self._next_round()

    # operators' requests

    def restart(self, name: str, timeout_ms: int, request: "Request") -> None:
        """Ends a driver domain and starts it anew; answered when it is ready."""
        driver = self.find(name)
        if driver is None:
            request.refuse(ENOENT, "there is no driver domain %s" % name)
            return
        if not driver.decided or driver.asked:
            request.refuse(EBUSY, "driver domain %s is being started; try again in a moment" % name)
            return

        def decided(in_time: bool) -> None:
            if not in_time:
                request.refuse(ETIMEDOUT, driver.trouble)
            elif driver.state == READY:
                request.answer("done")
            else:
                request.refuse(EIO, driver.trouble)

        if driver in self._round:
            self._round.remove(driver)
        driver.restarts += 1
        driver.state, driver.note, driver.since_ms = WAITING, "", self._clock()
        self._waits.until(lambda: driver.decided, timeout_ms, decided)
        self._lose(driver)
        if driver.up:
            self._builder.ask("destroy", lambda reply: self._destroyed(driver, reply), domid=driver.domid)
        else:
            self._next_round()

    # events

    def device(self, name: str, state: str, text: str) -> None:
        """Builder says what became of a device: claimed, failed or gone."""
        driver = self.find(name)
        if driver is None:
            return
        early = driver.state == WAITING and driver not in self._round
        if driver.state == FAILED or early:
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
            for driver in self._round:
                if not driver.decided:
                    self._fail(driver, "PCIBack ended (%s) before its device was in service" % reason)
        for driver in self.all:
            if driver.domid == domid and driver.up and driver.state != WAITING:
                self._lose(driver)
                self._fail(driver, "its domain ended: %s" % reason)

    # PCIBack

    def _next_round(self) -> None:
        waiting = [driver for driver in self.all if driver.state == WAITING and not driver.up]
        if waiting and not self._busy:
            self._busy, self._round = True, waiting
            self._waits.until(self._round_is_over, None, lambda _: self._dismiss())
            if self._pciback_up:
                # one that could not be destroyed after its round
                self._builder.ask("destroy", self._pciback_cleared, domid=self._pciback)
            else:
                self._build_pciback()

    def _round_is_over(self) -> bool:
        return not self._pciback_asked and all([driver.decided for driver in self._round])

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
        for driver in self._round:
            self._expect(driver, WAITING, "PCIBack did not claim its device in %d s")

    def _fail_round(self, note: str) -> None:
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
