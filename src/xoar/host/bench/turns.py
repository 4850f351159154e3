"""Hosts that stand still while others are measured: their processors and their clock, so that nothing in them
can tell. Both being there, what is compared can be measured in turn, moments apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from qemu.qmp import QMPClient, QMPError

from xoar.host.emulator import MONITOR, Launch
from xoar.host.errors import HostError
from xoar.host.state import Host


def pausable(launch: Launch) -> Launch:
    """The same host, with what `pause` needs."""
    return msgspec.structs.replace(launch, machine=msgspec.structs.replace(launch.machine, under_test=True))


def pause(host: Host) -> None:
    """Has a host stand still. Raises HostError."""
    asyncio.run(_tell(host, "stop"))


@contextmanager
def resumed(host: Host) -> Iterator[None]:
    """Has a paused host go on for the time of the block. Raises HostError."""
    asyncio.run(_tell(host, "cont"))
    yield
    pause(host)


async def _tell(host: Host, command: str) -> None:
    monitor = QMPClient("xoar bench")
    try:
        await monitor.connect(host.connect(to=MONITOR))
        await monitor.execute(command)
        await monitor.disconnect()
    except QMPError as error:
        raise HostError(f"the emulator of host {host.name} refuses to {command}: {error}") from error
