"""Logic's domain as State sees it: a page that it writes what it likes to, and who rolls it back. No I/O.

State works without Logic: requests wait until there is one again, or are refused when that takes too long.
It rolls nobody back itself, since it has no right over anybody: it asks, and goes on when it is told that
Logic is as it was at first.
"""

from xoar.messages.channel import Channel
from xoar.xen.ring import RingError, xenstore_rings
from xoar.xenstore.logiclink import LogicLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xen.ring import SharedPage
    from xoar.xenstore.gate import Gate

PATIENCE = 5_000_000_000
"""Nanoseconds that Logic has for one request, if nothing else is said; it takes some milliseconds."""

_MAX_REPORTS = 64


class LogicDomain:
    """`page` is that of Logic's link, `notify()` signals Logic, `now()` is Xen's clock.

    `ask()` asks for a rollback; when it is done `rolled_back` is to be called, also for the first time, after
    Logic's snapshot: nothing may be in its page then. None: there is nobody to ask, and `start` begins.
    `after` and `patience` (ns): see LogicLink.
    `report` takes lines for Xen's console, 64 at most.
    """

    def __init__(
        self,
        page: "SharedPage",
        notify: "Callable[[], None]",
        now: "Callable[[], int]",
        ask: "Callable[[], None] | None" = None,
        after: int = 0,
        report: "Callable[[str], None]" = print,
        patience: int = PATIENCE,
    ) -> None:
        self.link = LogicLink(self._restart, after, patience, now)
        self._patience = patience
        self._to_state, self._to_logic = xenstore_rings(page)
        self._notify = notify
        self._ask = ask
        self._report = report
        self._reports = _MAX_REPORTS

    def start(self, gate: "Gate") -> None:
        """Logic is there, or will be: from now on it is handed requests."""
        channel = Channel(self._to_state, self._to_logic, self._notify, "logic", "xenstore", self._say)
        self.link.started(gate, channel)

    def rolled_back(self, gate: "Gate") -> None:
        """Logic is as it was when it had served nobody, asked for or not."""
        self._to_state.reset()
        self._to_logic.reset()
        self.start(gate)

    def turn(self, gate: "Gate") -> bool:
        """Deals with what Logic has sent, or not sent in time; True if more can be done at once."""
        more = self.link.receive(gate)
        if self.link.overdue(gate):
            doubted = self.link.doubted
            if not doubted:
                reads = "has not read" if self._unread() else "has read"
                seconds = self._patience // 1_000_000_000
                self._say("xenstore: no answer from Logic for %d s; it %s the request" % (seconds, reads))
            if doubted or self._ask is not None:
                self.link.roll_back(gate)
        elif self.link.abandoned(gate):
            self._say("xenstore: nobody rolls Logic back: requests are refused until that is done")
        return more

    def _unread(self) -> bool:
        try:
            return self._to_logic.readable() > 0
        except RingError:
            return False

    def _restart(self) -> None:
        if self._ask is not None:
            self._ask()
        else:
            self._say("xenstore: Logic has failed and nobody can replace it")

    def _say(self, text: str) -> None:
        if self._reports:
            self._reports -= 1
            self._report(text)
