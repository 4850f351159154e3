"""Four driver domains of four models, and guests spread over them: the others do not notice when one ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from device_guests import MEMORY, Worker, image, newest_nic, shell
from harness import SHARDS, HostUnderTest, running

from xoar.cli.failures import ERROR

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "3GiB"

[drivers.net0]
kind = "netback"
model = "e1000e"

[drivers.net1]
kind = "netback"
model = "virtio-net"

[drivers.disk0]
kind = "blkback"
model = "ahci"
size = "1GiB"

[drivers.disk1]
kind = "blkback"
model = "nvme"
size = "1GiB"

[networks.lan]
driver = "net0"

[networks.tagged]
driver = "net0"
vlan = 42

[networks.inner]
driver = "net1"
mode = "nat"
subnet = "10.9.0.0/24"

[volumes.a]
driver = "disk0"
size = "64MiB"

[volumes.b]
driver = "disk1"
size = "64MiB"

[volumes.plugged]
driver = "disk0"
size = "64MiB"

{image}
[guests.one]
image = "device"
memory = "{memory}"
command_line = "ip=dhcp"
autostart = false
group = "red"
disks = ["a"]
nics = ["lan"]

[guests.two]
image = "device"
memory = "{memory}"
command_line = "ip=dhcp"
autostart = false
group = "blue"
disks = ["b"]
nics = ["inner"]
"""
# the emulated networks' own router, behind either card
ROUTER = "10.0.2.2"


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("four", CONFIG.format(image=image(), memory=MEMORY), logs) as host:
        host.cli("up", timeout=800)
        networks_up(host)
        for name in ("one", "two"):
            start(host, name)
        yield host


def networks_up(host: HostUnderTest) -> None:
    """Waits until the networks work, which takes long where many domains start in few processors."""
    deadline = time.monotonic() + 120
    while (states := {row["state"] for row in host.json("network", "list")}) != {"up"}:
        assert time.monotonic() < deadline, states
        time.sleep(1)


def start(host: HostUnderTest, name: str) -> None:
    """Creates one of the guests of xoar.toml and waits for it."""
    host.cli("guest", "create", name)
    host.wait_for(name, rb"login: ")


def drivers(host: HostUnderTest) -> dict[str, str]:
    """Their states by their names."""
    return {row["name"]: row["state"] for row in host.json("driver", "list")}


def test_all_kinds_of_devices_are_in_service(host: HostUnderTest) -> None:
    assert drivers(host) == dict.fromkeys(("net0", "net1", "disk0", "disk1"), "ready")


def test_guests_are_spread_over_them_as_declared(host: HostUnderTest) -> None:
    for name, driver, network in (("one", "disk0", "net0"), ("two", "disk1", "net1")):
        shown = host.json("guest", "show", name)
        assert [disk["driver"] for disk in shown["disks"]] == [driver]
        assert [nic["driver"] for nic in shown["nics"]] == [network]
    for name, subnet in (("one", "10.0.2."), ("two", "10.9.0.")):
        assert f"inet addr:{subnet}" in shell(host, name, "busybox ifconfig eth0")
        assert shell(host, name, "cat /sys/block/xvda/size") == str(64 << 11)


def served(host: HostUnderTest) -> dict[str, tuple[list[str | None], list[str]]]:
    """The groups and the guests of each driver domain, as `xoar sharing` has them."""
    shards = host.json("sharing")["shards"]
    drivers = [shard for shard in shards if shard["kind"] in ("netback", "blkback")]
    return {shard["name"]: (shard["groups"], shard["guests"]) for shard in drivers}


def test_a_guest_shares_driver_domains_with_its_group_only(host: HostUnderTest) -> None:
    before = {
        "net0": (["red"], ["one"]), "net1": (["blue"], ["two"]),
        "disk0": (["red"], ["one"]), "disk1": (["blue"], ["two"]),
    }  # fmt: skip
    assert served(host) == before
    create = ("guest", "create", "other", "--image", "device", "--memory", MEMORY, "--group", "blue")
    refusal = host.cli(*create, "--nic", "lan", status=ERROR)
    said = "net0 serves guest one of group red; guests of group blue can use a network on net1"
    assert said in refusal
    assert served(host) == before
    host.cli(*create, "--nic", "inner")
    host.wait_for("other", rb"login: ")
    assert served(host) == {**before, "net1": (["blue"], ["two", "other"])}
    (guest,) = [row for row in host.json("sharing")["guests"] if row["name"] == "other"]
    assert {row["name"]: row["shared_with"] for row in guest["shards"]} == {
        "net1": ["two"],
        "pciback": ["one", "two"],
        **{name: ["one", "two"] for name in SHARDS},
    }
    refusal = host.cli("disk", "attach", "other", "plugged", status=ERROR)
    assert "disk0 serves guest one of group red" in refusal
    host.destroy("other")
    assert served(host) == before


@pytest.fixture(scope="module")
def workers(host: HostUnderTest) -> dict[str, Worker]:
    return {name: Worker(host, name, "/dev/xvda", ROUTER) for name in ("one", "two")}


def test_all_disks_and_networks_work_at_the_same_time(workers: dict[str, Worker]) -> None:
    for worker in workers.values():
        worker.progress(5)


@contextmanager
def third_guest(host: HostUnderTest) -> Iterator[str]:
    """The name of a further guest of the first one's group, without devices."""
    name = "three"
    host.create(name, "device", MEMORY, "--group", "red")
    try:
        host.wait_for(name, rb"login: ")
        yield name
    finally:
        host.destroy(name)


@contextmanager
def plugged_nic(host: HostUnderTest, name: str, network: str, address: str, *more: str) -> Iterator[None]:
    """An interface that works for as long as the block runs."""
    host.cli("nic", "attach", name, network, "--address", address, *more)
    shell(host, name, f"busybox ifconfig eth0 {address}")
    yield
    shell(host, name, "busybox ifconfig eth0 down")
    host.cli("nic", "detach", name, newest_nic(host, name))


def test_devices_come_and_go_while_others_work(host: HostUnderTest, workers: dict[str, Worker]) -> None:
    with third_guest(host) as name:
        for _ in range(3):
            host.cli("disk", "attach", name, "plugged", "--device", "xvdb")
            with plugged_nic(host, name, "lan", "10.0.2.77"):
                plugged = Worker(host, name, "/dev/xvdb", ROUTER)
                plugged.progress()
                plugged.stop()
            host.cli("disk", "detach", name, "xvdb")
            for worker in workers.values():
                worker.progress(1)


def test_frames_of_a_network_with_a_vlan_are_tagged_on_the_wire(host: HostUnderTest, tmp_path: Path) -> None:
    wire = tmp_path / "wire.pcap"
    dump = {"qom-type": "filter-dump", "id": "wire", "netdev": "net0", "file": str(wire)}
    mac = "00:16:3e:00:00:42"
    with third_guest(host) as name, plugged_nic(host, name, "tagged", "10.42.0.3", "--mac", mac):
        host.monitor("object-add", **dump)
        nobody = shell(host, name, "busybox ping -c 2 -W 1 10.42.0.1 >/dev/null || echo nobody")
        host.monitor("object-del", id="wire")
    source, asks = bytes.fromhex(mac.replace(":", "")), bytes.fromhex("0806")
    frames = wire.read_bytes()
    assert nobody == "nobody"
    assert source + bytes.fromhex("8100002a") + asks in frames
    assert source + asks not in frames


def test_what_a_guest_sends_is_limited_to_its_rate(host: HostUnderTest) -> None:
    rates = {}
    with third_guest(host) as name:
        for limit in ((), ("--rate", "32KiB")):  # far below what a slow machine does under load
            with plugged_nic(host, name, "lan", "10.0.2.77", *limit):
                rates[limit] = sent_rate(host, name)
    free, limited = rates.values()
    # the bucket is full at first: xen-netback lets one period's worth pass, and TCP's headers count too
    assert 16 << 10 < limited < 48 << 10 < free


def sent_rate(host: HostUnderTest, name: str) -> float:
    """Bytes a second of 1 MiB from the guest's TCP to the operator's loopback, the first 256 KiB left out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        port = server.getsockname()[1]
        shell(host, name, f"(dd if=/dev/zero bs=64k count=16 2>/dev/null | busybox nc {ROUTER} {port} &)")
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            received, times = 0, []
            while data := connection.recv(65536):
                received += len(data)
                times.append((received, time.monotonic()))
    assert received == 1 << 20
    skipped, since = next(entry for entry in times if entry[0] >= 256 << 10)
    return (received - skipped) / (times[-1][1] - since)


@pytest.mark.parametrize("driver", ["disk1", "net1"])
def test_the_end_of_one_is_not_noticed_by_guests_of_the_others(
    host: HostUnderTest, workers: dict[str, Worker], driver: str
) -> None:
    host.cli("driver", "restart", driver)
    workers["one"].progress()
    assert drivers(host) == dict.fromkeys(("net0", "net1", "disk0", "disk1"), "ready")


def test_guests_of_one_that_was_built_anew_are_served_again(
    host: HostUnderTest, workers: dict[str, Worker]
) -> None:
    host.destroy("two")
    networks_up(host)
    start(host, "two")
    Worker(host, "two", "/dev/xvda", ROUTER).progress()
    workers["one"].progress()


def test_a_pulled_disk_is_the_trouble_of_its_guests_alone(
    host: HostUnderTest, workers: dict[str, Worker]
) -> None:
    host.pull("disk1-controller", 3)
    failed = "dd if=/dev/urandom of=/dev/xvda bs=4k count=1 conv=fsync 2>/dev/null || echo failed"
    deadline = time.monotonic() + 120
    while shell(host, "two", failed, 120) != "failed":
        assert time.monotonic() < deadline, "a guest writes to a disk that was pulled out"
    workers["one"].progress()
    deadline = time.monotonic() + 60
    while (states := drivers(host))["disk1"] != "failed":
        assert time.monotonic() < deadline, states
        time.sleep(1)
    assert {name: state for name, state in states.items() if name != "disk1"} == dict.fromkeys(
        ("net0", "net1", "disk0"), "ready"
    )
    (told,) = [row["note"] for row in host.json("driver", "list") if row["name"] == "disk1"]
    assert "disk" in told
