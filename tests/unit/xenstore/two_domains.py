"""State and Logic with a ring between them, in this process; Logic fails where a test wants it to."""

from xoar.messages.channel import Channel
from xoar.xen.ring import SharedPage, xenstore_rings
from xoar.xenstore.domains import Domains
from xoar.xenstore.gate import Gate
from xoar.xenstore.logiclink import LogicLink
from xoar.xenstore.quotas import quotas
from xoar.xenstore.statelink import StateLink


class Failure(BaseException):
    """Logic fails here, in a way that it can't notice."""


def shared_page() -> SharedPage:
    memory = memoryview(bytearray(4096))
    return SharedPage(memory, memory.cast("I"))


class LogicDomain:
    """Logic's domain, and what rolls it back.

    `fail_in` is the number of steps of Logic until it fails next; None: it does not. A step is whatever Logic
    does that State could notice: it reads from the ring, writes to it, or sleeps.
    """

    def __init__(self, after: int = 0) -> None:
        self.link = LogicLink(self.roll_back, after)
        self.fail_in: int | None = None
        self.starts = 0
        self.steps = 0

    def attach(self, gate: Gate) -> None:
        """Starts Logic."""
        self._gate = gate
        self._start()

    def roll_back(self) -> None:
        """Has Logic rolled back at the next opportunity."""
        self._stale = True

    def settle(self) -> None:
        """Lets both run until nothing is left to do."""
        while self._gate.outstanding or self._stale:
            try:
                if self._stale:
                    self._start()
                else:
                    self._logic.serve()
                    self.link.receive(self._gate)
            except Failure:
                # no answer comes any more, so State asks
                self.link.roll_back(self._gate)

    def step(self) -> None:
        """Counts a step, and fails if this is the one."""
        self.steps += 1
        if self.fail_in is not None:
            self.fail_in -= 1
            if self.fail_in < 0:
                self.fail_in = None
                raise Failure

    def _start(self) -> None:
        self._stale = False
        self.starts += 1
        to_state, to_logic = xenstore_rings(shared_page())
        self._logic = StateLink(
            Channel(to_logic, to_state, self._step, "xenstore", "logic", lambda line: None), self._wait
        )
        mine = Channel(to_state, to_logic, lambda: None, "logic", "xenstore", lambda line: None)
        self.link.started(self._gate, mine)

    def _wait(self) -> None:
        self._step()
        self.link.receive(self._gate)
        self._step()

    def _step(self) -> None:
        self.step()


class TwoDomains(Gate):
    """State, whose Logic is `remote`."""

    def __init__(self, after: int = 0, **limits: int) -> None:
        self.remote = LogicDomain(after)
        super().__init__(Domains({0}), quotas(**limits), self.remote.link)
        self.remote.attach(self)
