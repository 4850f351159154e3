"""Devices that are given to driver domains, taken back and given to others while the host runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import HostUnderTest, running

from xoar.cli.failures import ERROR, NOT_FOUND
from xoar.host.client import Client, RequestRefused

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "2GiB"

[drivers.net0]
kind = "netback"

[drivers.net1]
kind = "netback"
model = "virtio-net"
device = "none"
"""
FIRST, SECOND, ABSENT, PORT = "0000:01:00.0", "0000:02:00.0", "0000:09:00.0", "0000:00:02.0"


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("assigned", CONFIG, logs) as host:
        yield host


def drivers(host: HostUnderTest) -> dict[str, tuple[str, str | None]]:
    return {row["name"]: (row["state"], row["device"]) for row in host.json("driver", "list")}


def owners(host: HostUnderTest) -> dict[str, str | None]:
    return {row["device"]: row["driver"] for row in host.json("driver", "devices")}


def wait(host: HostUnderTest, name: str, state: tuple[str, str | None], timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while drivers(host)[name] != state:
        assert time.monotonic() < deadline, drivers(host)
        time.sleep(1)


def settled(host: HostUnderTest, timeout: float = 60) -> None:
    """PCIBack has gone."""
    deadline = time.monotonic() + timeout
    while "pciback" in [row["name"] for row in host.json("ps")]:
        assert time.monotonic() < deadline
        time.sleep(1)


def is_up(host: HostUnderTest, network: str, timeout: float = 30) -> None:
    """Waits until the driver domain's Linux has made the network on its card."""
    deadline = time.monotonic() + timeout
    while (states := {row["name"]: row["state"] for row in host.json("network", "list")})[network] != "up":
        assert time.monotonic() < deadline, states
        time.sleep(1)


def test_a_card_changes_hands_while_the_host_runs(host: HostUnderTest) -> None:
    wait(host, "net0", ("ready", FIRST))
    settled(host)
    assert drivers(host)["net1"] == ("unassigned", None)
    found = owners(host)
    assert (found[FIRST], found[SECOND]) == ("net0", None)
    assert PORT not in found and ABSENT not in found
    for network, driver in (("lan", "net0"), ("other", "net1")):
        host.cli("network", "create", network, "--driver", driver)

    # a card that is in use, one that is not there, a bridge
    for device, said in ((FIRST, "is net0's"), (ABSENT, "no device at"), (PORT, "no device at")):
        assert said in host.cli(
            "driver", "assign", "net1", device, status=ERROR if device == FIRST else NOT_FOUND
        )
    assert "withdraw that first" in host.cli("driver", "assign", "net0", SECOND, status=ERROR)

    host.cli("driver", "assign", "net1", SECOND)
    assert drivers(host)["net1"] == ("ready", SECOND)
    is_up(host, "other")
    settled(host)

    start = host.log_position()
    host.cli("driver", "withdraw", "net1")
    assert drivers(host) == {"net0": ("ready", FIRST), "net1": ("unassigned", None)}
    host.wait_log(r"pciback: ready", start)
    settled(host)
    assert "is not reset" not in host.log_since(start)
    assert owners(host)[SECOND] is None

    # the same card for the other one
    host.cli("driver", "withdraw", "net0")
    host.cli("driver", "assign", "net0", SECOND)
    assert drivers(host) == {"net0": ("ready", SECOND), "net1": ("unassigned", None)}
    is_up(host, "lan")
    assert owners(host)[FIRST] is None
    host.cli("driver", "assign", "net1", FIRST)
    assert drivers(host) == {"net0": ("ready", SECOND), "net1": ("ready", FIRST)}
    host.cli("driver", "restart", "net1")
    assert drivers(host)["net1"] == ("ready", FIRST)

    entries = [(entry["who"], entry["what"], entry["outcome"]) for entry in host.json("journal")["entries"]]
    assert ("toolstack", f"assign {FIRST} to net1", f"refused: {FIRST} is net0's") in entries
    assert entries[-1] == ("toolstack", f"assign {FIRST} to net1", "done")
    assert [what for _, what, outcome in entries if outcome == "done"] == [
        f"assign {SECOND} to net1",
        f"withdraw {SECOND} from net1",
        f"withdraw {FIRST} from net0",
        f"assign {SECOND} to net0",
        f"assign {FIRST} to net1",
    ]
    assert "avc:  denied" not in host.said_since(0)


def test_what_is_no_driver_domain_gets_no_device(host: HostUnderTest) -> None:
    with Client.connect(host.host.name) as client, pytest.raises(RequestRefused, match="no driver domain"):
        client.request("driver_assign", name="pciback", bdf=0x100, timeout_ms=1000)
