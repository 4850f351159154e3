"""Disks of emulated driver domains: files in the host's folder that outlive the host.

Each BlkBack has two: its data disk, and the exchange disk (docs/devices.md), over which images reach volumes.
Both are sparse.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from xoar.host.config import Config
from xoar.host.devices import BLKBACK
from xoar.host.errors import disk_errors
from xoar.host.state import DISKS, Host

EXCHANGE_MAGIC = b"XOAR-EXCHANGE 1\n"
EXCHANGE_SIZE = 32 << 30
"""Bytes of an exchange disk."""
EXCHANGE_START = 1 << 20
"""Where its data begins."""


class DriverDisks(NamedTuple):
    """The files of one driver domain's disks."""

    driver: str
    data: Path
    exchange: Path


def of(host: Host, driver: str) -> DriverDisks:
    """The files of a driver domain, which need not exist."""
    folder = host.folder / DISKS
    return DriverDisks(driver, folder / f"{driver}.raw", folder / f"{driver}-exchange.raw")


def disks(host: Host, config: Config) -> list[DriverDisks]:
    """The disks of a configuration's BlkBacks, in their order; makes the files that are missing.

    A data disk that is there keeps its size. Raises HostError if they can't be written.
    """
    found = []
    for driver in config.drivers.values():
        if driver.kind == BLKBACK:
            files = of(host, driver.name)
            with disk_errors(files.data):
                files.data.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not files.data.exists():
                    _make(files.data, driver.size_kib << 10, b"")
                if not files.exchange.exists():
                    _make(files.exchange, EXCHANGE_SIZE, EXCHANGE_MAGIC)
            found.append(files)
    return found


def _make(path: Path, size: int, head: bytes) -> None:
    new = path.with_name(f".{path.name}")
    with open(new, "wb") as file:
        file.write(head)
        file.truncate(size)
    new.chmod(0o600)
    new.replace(path)
