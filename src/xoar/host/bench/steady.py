"""Whether the machine that runs the emulator is as fast as it can be, asked before and after a measurement.

Virtual machines of clouds are throttled for minutes, to a third of their speed, without a word in
/proc/stat; what falls into such a time says nothing about either host.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from xoar.host.errors import HostError

_ROUNDS = 400_000  # of the loop that is timed: some 10 ms
_TRIES = 5  # the fastest counts: one may be interrupted
_TOLERANCE = 1.25  # times the fastest ever seen
_REST = 2.0  # seconds before the machine is asked again


def _loop() -> float:
    """Seconds that a fixed piece of computing takes."""
    since = time.perf_counter()
    total = 0
    for number in range(_ROUNDS):
        total += number
    return time.perf_counter() - since


class Steady:
    """Remembers how fast the machine was at its best. `probe` gives seconds; `patience` is in seconds."""

    def __init__(
        self,
        probe: Callable[[], float] = _loop,
        sleep: Callable[[float], None] = time.sleep,
        patience: float = 900.0,
    ) -> None:
        self._probe = probe
        self._sleep = sleep
        self._looks = int(patience / _REST)
        self._best = float("inf")

    def at_its_best(self) -> bool:
        """Whether the machine is about as fast now as it has been."""
        now = min(self._probe() for _ in range(_TRIES))
        self._best = min(self._best, now)
        return now <= _TOLERANCE * self._best

    def wait(self) -> None:
        """Returns when the machine is at its best. Raises HostError if it is not for too long."""
        for _ in range(self._looks):
            if self.at_its_best():
                return
            self._sleep(_REST)
        raise HostError(
            "the machine that runs the emulator is slower than it was, and stays so",
            hint="Something else uses it, or its owner throttles it: measure at another time.",
        )

    def measured(self, measure: Callable[[], float]) -> float:
        """What `measure` gives in a time that begins and ends with the machine at its best."""
        for _ in range(self._looks):
            self.wait()
            value = measure()
            if self.at_its_best():
                return value
        raise HostError("the machine that runs the emulator is never fast for long: measure at another time")
