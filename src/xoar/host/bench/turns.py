"""Hosts that stand still while others are measured: their processors and their clock, so that nothing in them
can tell. Both being there, what is compared can be measured in turn, moments apart: a machine whose speed
changes within minutes changes both, and one that is uneven within seconds shows in the ranges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from qemu.qmp import QMPClient, QMPError

from xoar.host.emulator import MONITOR, Launch
from xoar.host.errors import HostError
from xoar.host.state import Host

TIMES = 5
"""How often everything is measured while both hosts are up."""

Figures = dict[str, list[float]]
"""By a row's name, of every run."""


@dataclass(frozen=True)
class Side:
    """A host that has come up, and stands still; and where its figures go."""

    host: Host
    figures: Figures

    def take(self, name: str, measure: Callable[[], float]) -> None:
        """Has the host go on while `measure` works, and keeps what that returns. Raises HostError."""
        asyncio.run(_tell(self.host, "cont"))
        self.figures[name].append(measure())
        pause(self.host)


def pausable(launch: Launch) -> Launch:
    """The same host, with what `pause` needs."""
    return msgspec.structs.replace(launch, machine=msgspec.structs.replace(launch.machine, under_test=True))


def pause(host: Host) -> None:
    """Has a host stand still. A guest that is busy may die of it (docs/xen-notes.md). Raises HostError."""
    asyncio.run(_tell(host, "stop"))


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
