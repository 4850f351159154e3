"""Hosts that take turns: one goes on, the other stands still, its processors and its clock, so that nothing
in it can tell. So what is compared is measured moments apart, and what takes minutes is done in turns of
seconds: a machine whose speed changes meanwhile changes both, and one that is uneven within seconds shows in
the ranges.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from qemu.qmp import QMPClient, QMPError

from xoar.host.bench import hosts
from xoar.host.emulator import MONITOR, Launch
from xoar.host.errors import HostError
from xoar.host.state import Host

TIMES = 5
"""How often everything is measured while both hosts are up."""

_TURN = 2.0  # seconds of a turn in what takes minutes

Figures = dict[str, list[float]]
"""By a row's name, of every run."""


def pausable(launch: Launch) -> Launch:
    """The same host, with what `Player` needs."""
    return msgspec.structs.replace(launch, machine=msgspec.structs.replace(launch.machine, under_test=True))


class Player:
    """A host that takes turns, whose emulator started at `started` (`hosts.now`). It goes on at first."""

    def __init__(self, host: Host, started: float) -> None:
        self.host = host
        self.up = threading.Event()
        self._started = started
        self._rests: list[tuple[float, float]] = []
        self._since: float | None = None

    @contextmanager
    def brought_up(self) -> Iterator[None]:
        """A block in which it takes turns with others (`alternating`), and after which it takes none."""
        try:
            yield
        finally:
            self.up.set()

    def rest(self) -> None:
        """Has it stand still. Raises HostError."""
        if self._since is None:
            asyncio.run(_tell(self.host, "stop"))
            self._since = hosts.now()

    def go_on(self) -> None:
        """Ends its rest. Raises HostError."""
        if self._since is not None:
            self._rests.append((self._since, hosts.now()))
            self._since = None
            asyncio.run(_tell(self.host, "cont"))

    def elapsed(self, at: float) -> float:
        """For how many seconds it had been going on at a time (`hosts.now`)."""
        rests = list(self._rests)
        since = self._since
        if since is not None:
            rests.append((since, at))
        return at - self._started - sum(max(min(end, at) - begin, 0.0) for begin, end in rests)


@dataclass(frozen=True)
class Side:
    """A host that has come up, and rests; and where its figures go."""

    player: Player
    figures: Figures

    def take(self, name: str, measure: Callable[[], float]) -> None:
        """Has the host go on while `measure` works, and keeps what that returns. Raises HostError."""
        self.player.go_on()
        self.figures[name].append(measure())
        self.player.rest()


@contextmanager
def alternating(players: Sequence[Player]) -> Iterator[None]:
    """Has hosts that rest take turns of `_TURN` seconds, each until it is up; all rest after the block.

    Raises HostError at the end of the block if a host could not be told.
    """
    over = threading.Event()
    failed: list[HostError] = []

    def take_turns() -> None:
        try:
            while not over.is_set():
                for player in players:
                    if not player.up.is_set():
                        player.go_on()
                        player.up.wait(_TURN)
                        player.rest()
                if all(player.up.is_set() for player in players):
                    over.wait()
        except HostError as error:
            failed.append(error)

    thread = threading.Thread(target=take_turns, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


async def _tell(host: Host, command: str) -> None:
    monitor = QMPClient("xoar bench")
    try:
        await monitor.connect(host.connect(to=MONITOR))
        try:
            await monitor.execute(command)
        finally:
            await monitor.disconnect()
    except QMPError as error:
        raise HostError(f"the emulator of host {host.name} refuses to {command}: {error}") from error
