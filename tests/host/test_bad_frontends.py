"""Frontends that break the rules or vanish: it is their own trouble, and nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_guests import MEMORY, Worker, image, shell
from harness import HostUnderTest, nano_guest, running

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "2GiB"

[drivers.net0]
kind = "netback"

[drivers.disk0]
kind = "blkback"
size = "256MiB"

[networks.lan]
driver = "net0"

[volumes.good]
size = "48MiB"

[volumes.bad]
size = "16MiB"

[images.frontend]
kernel = "{frontend}"

{image}
[guests.bystander]
image = "device"
memory = "{memory}"
command_line = "ip=dhcp"
disks = ["good"]
nics = ["lan"]
"""


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    elf = nano_guest("frontend", "frontend")
    text = CONFIG.format(frontend=elf, image=image(), memory=MEMORY)
    with running("bad-frontends", text, logs) as host:
        host.cli("up", timeout=400)
        host.wait_for("bystander", rb"login: ")
        yield host


@pytest.fixture(scope="module")
def bystander(host: HostUnderTest) -> Worker:
    # its places on the disk are there before the disks are full
    shell(host, "bystander", "dd if=/dev/zero of=/dev/xvda bs=1M count=33 conv=fsync 2>/dev/null", 120)
    return Worker(host, "bystander", "/dev/xvda", "10.0.2.2")


def attack(host: HostUnderTest, command: str, answer: bytes) -> None:
    host.create("g", "frontend", "16MiB", "--disk", "bad", "--nic", "lan")
    host.wait_for("g", rb"frontend ready")
    host.ask("g", command, answer)


def all_ready(host: HostUnderTest) -> bool:
    return {(row["state"], row["restarts"]) for row in host.json("driver", "list")} == {("ready", 0)}


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("vbd rubbish", rb"rubbish written"),
        ("vif rubbish", rb"rubbish written"),
        ("vbd absent", rb"16 answered"),
        ("vif absent", rb"16 answered"),
    ],
)
def test_a_frontend_harms_itself_alone(
    host: HostUnderTest, bystander: Worker, command: str, answer: bytes
) -> None:
    attack(host, command, answer)
    bystander.progress()
    host.destroy("g")
    bystander.progress(1)
    assert all_ready(host)


def test_a_guest_that_vanishes_in_the_middle_of_writes_gives_its_volume_back(
    host: HostUnderTest, bystander: Worker
) -> None:
    attack(host, "vbd writing", rb"writing")
    time.sleep(1)
    host.destroy("g")
    bystander.progress(1)
    create(host, "next", "bad")
    assert shell(host, "next", "dd if=/dev/xvda of=/dev/null bs=1M && echo readable").endswith("readable")
    host.destroy("next")
    assert all_ready(host)


def create(host: HostUnderTest, name: str, volume: str) -> None:
    host.create(name, "device", MEMORY, "--disk", volume)
    host.wait_for(name, rb"login: ")


def test_a_full_pool_is_an_error_for_who_wants_more_of_it(host: HostUnderTest, bystander: Worker) -> None:
    host.cli("volume", "create", "big", "--size", "512MiB")
    create(host, "greedy", "big")
    wrote = "dd if=/dev/zero of=/dev/xvda bs=1M conv=fsync 2>/dev/null || echo failed"
    assert shell(host, "greedy", wrote, 300) == "failed"
    bystander.progress()
    assert "full" in host.cli("volume", "create", "another", "--size", "16MiB", status=1)
    read = "dd if=/dev/xvda of=/dev/null bs=1M count=8 2>/dev/null && echo readable"
    assert shell(host, "greedy", read) == "readable"
    host.destroy("greedy")
    host.cli("volume", "delete", "big")
    host.cli("volume", "create", "another", "--size", "16MiB")
    create(host, "modest", "another")
    written = "dd if=/dev/zero of=/dev/xvda bs=1M count=16 conv=fsync 2>/dev/null && echo written"
    assert shell(host, "modest", written) == "written"
    host.destroy("modest")
    bystander.progress(1)
    assert all_ready(host)
