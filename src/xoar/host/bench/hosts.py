"""Hosts that live as long as a measurement, and the one clock that all is measured with.

Both kinds of host are started by the same keeper with the same emulator, and all times are taken on the
machine that runs the emulator: time inside an emulated machine drifts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from xoar.host import keeper
from xoar.host.emulator import Launch
from xoar.host.errors import HostError
from xoar.host.state import CRASHED, Host, start_time

PAUSE = 2  # seconds of rest before each create
LONG = 900.0  # seconds after which something has failed, even on a machine at a fifth of its speed

_LOOK = 0.002  # seconds between two looks at a log
_CHECK = 0.5  # seconds between two looks at whether the host lives


def now() -> float:
    """Seconds on the clock that also processes' start times are in (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def running(name: str, what: Launch) -> Iterator[tuple[Host, float]]:
    """A host, and when its emulator's process started (`now`, to 10 ms). It ends with the block.

    Raises HostError; when the host crashed meanwhile, with the reason and the end of its log.
    """
    host = Host(name)
    if host.alive():
        raise HostError(
            f"host {name} is running: another benchmark, or one that was killed",
            hint=f"Wait for it, or end it with: xoar down --host {name}",
        )
    record = keeper.launch(host, what)
    try:
        yield host, (start_time(record.emulator) or 0) / os.sysconf("SC_CLK_TCK")
    except HostError as error:
        error.detail = error.detail or host.log_end()
        error.log = None  # it goes with the host
        raise
    finally:
        host.stop()


class Log:
    """Xen's console of a host, read as it comes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._read = 0
        self._text = b""

    def until(self, text: str, timeout: float = LONG) -> float:
        """When `text` came, after what was found before.

        Raises HostError if the host fails first, and after `timeout` seconds.
        """
        wanted = text.encode()
        deadline = now() + timeout
        check = now() + _CHECK
        while True:
            self._text += self._more()
            seen = now()
            _, found, after = self._text.partition(wanted)
            if found:
                self._text = after
                return seen
            if seen > check:
                check = seen + _CHECK
                self._require_alive()
            if seen > deadline:
                raise HostError(f"host {self._host.name}: no {text!r} within {timeout:.0f} s")
            time.sleep(_LOOK)

    def _more(self) -> bytes:
        with open(self._host.xen_log, "rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        return data

    def _require_alive(self) -> None:
        if self._host.alive() is None:
            record = self._host.record()
            reason = record.reason if record and record.state == CRASHED else "its keeper has ended"
            raise HostError(f"host {self._host.name} failed: {reason}")
