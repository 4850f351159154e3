"""A host whose power goes while guests write: what was flushed is there, and the volumes are whole."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_guests import MEMORY, image, shell
from harness import HostUnderTest, running

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "1GiB"

[drivers.disk0]
kind = "blkback"
size = "512MiB"

[volumes.data]
size = "64MiB"

{image}
[guests.writer]
image = "device"
memory = "{memory}"
disks = ["data"]
"""
# the number of each block is in it; a number is said once it is flushed
WRITE = (
    "i=0; while :; do i=$((i+1)); printf %08d $i |"
    " dd of=/dev/xvda bs=4k seek=$i conv=fsync,notrunc 2>/dev/null; echo flushed $i; done"
)
CHECK = (
    "i=0; while [ $i -lt {last} ]; do i=$((i+1));"
    ' [ "$(dd if=/dev/xvda bs=4k skip=$i count=1 2>/dev/null | head -c 8)" = $(printf %08d $i) ] ||'
    " echo lost $i; done; echo checked"
)


@pytest.fixture
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("power-loss", CONFIG.format(image=image(), memory=MEMORY), logs) as host:
        host.cli("up", timeout=800)
        host.wait_for("writer", rb"login: ")
        yield host
        host.host.stop(erase=True)


def test_what_was_flushed_outlives_a_loss_of_power(host: HostUnderTest) -> None:
    shell(host, "writer", "dd if=/dev/zero of=/dev/xvda bs=1M count=4 conv=fsync 2>/dev/null")
    host.cli("volume", "clone", "data", "before")
    seen = host.ask("writer", WRITE, rb"flushed 60\r?\n")
    record = host.host.alive()
    assert record is not None
    os.kill(record.emulator, signal.SIGKILL)
    host.cli("up", timeout=800)
    host.wait_for("writer", rb"login: ")
    volumes = {volume["name"]: volume for volume in host.json("volume", "list")["volumes"]}
    assert {name: volume["state"] for name, volume in volumes.items()} == {"data": "ok", "before": "ok"}
    last = max(int(number) for number in re.findall(rb"flushed (\d+)\r?\n", seen))
    assert shell(host, "writer", CHECK.format(last=last), 120) == "checked"
    host.cli("volume", "delete", "before")
    host.cli("volume", "create", "after", "--size", "16MiB")
