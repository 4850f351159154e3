"""A tenant's guests have disks and networks of driver domains that are delegated to it, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from device_guests import MEMORY, Worker, image
from harness import HostUnderTest, running
from test_four_driver_domains import ROUTER, networks_up
from test_tenants import Tenant, used

from xoar.cli.failures import ERROR, NOT_FOUND
from xoar.host.assembly import Replacement

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "3GiB"

[drivers.net0]
kind = "netback"

[drivers.disk0]
kind = "blkback"
size = "1GiB"

[networks.lan]
driver = "net0"

[networks.private]
driver = "net0"
vlan = 42

[volumes.base]
driver = "disk0"
size = "16MiB"
[tenants.acme]
memory = "256MiB"
guests = 3
devices = 3
delegated = [
    {{ driver = "net0", networks = ["lan"] }},
    {{ driver = "disk0", volumes = "128MiB", images = ["base"] }},
]

[tenants.bolt]
memory = "256MiB"

{image}
"""


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("delegated", CONFIG.format(image=image()), logs) as host:
        host.cli("up", timeout=800)
        networks_up(host)
        delegated(host)
        yield host


def delegated(host: HostUnderTest, tenant: str = "acme") -> None:
    """A tenant hears of what is delegated to it some time after the host's operator has an answer."""
    host.wait_json(
        lambda rows: [row["state"] for row in rows] == ["ready"] * 2, "driver", "list", tenant=tenant
    )


@pytest.fixture
def acme(host: HostUnderTest) -> Iterator[Tenant]:
    yield from emptied(Tenant(host, "acme"))


@pytest.fixture
def bolt(host: HostUnderTest) -> Iterator[Tenant]:
    yield from emptied(Tenant(host, "bolt"))


def emptied(tenant: Tenant) -> Iterator[Tenant]:
    yield from used(tenant)
    for row in volumes(tenant):
        tenant.cli("volume", "delete", row)


def create(tenant: Tenant, name: str, *more: str, status: int = 0) -> str:
    words = ("--image", "device", "--memory", MEMORY, "--command-line", "ip=dhcp")
    return tenant.cli("guest", "create", name, *words, *more, status=status)


def volumes(tenant: Tenant) -> list[str]:
    return [row["name"] for row in tenant.host.json("volume", "list", tenant=tenant.name)["volumes"]]


def devices(tenant: Tenant, name: str) -> list[tuple[str, str]]:
    """State and note of each disk and each interface of a guest."""
    shown = tenant.host.json("guest", "show", name, tenant=tenant.name)
    return [(row["state"], row["note"]) for row in shown["disks"] + shown["nics"]]


def worker(tenant: Tenant, name: str) -> Worker:
    """`work` in a tenant's guest, on its disk and its network."""
    return Worker(tenant.host, name, "/dev/xvda", ROUTER, tenant=tenant.name)


def test_a_tenants_guest_works_on_a_disk_and_a_network_of_its_own(host: HostUnderTest, acme: Tenant) -> None:
    assert [row["name"] for row in host.json("network", "list", tenant="acme")] == ["lan"]
    acme.cli("volume", "create", "data", "--size", "64MiB")
    create(acme, "web", "--disk", "data", "--nic", "lan")
    work = worker(acme, "web")
    work.progress()
    assert devices(acme, "web") == [("connected", "")] * 2
    (row,) = [row for row in host.json("tenant", "list") if row["name"] == "acme"]
    assert (row["devices"], row["max_devices"]) == (2, 3)

    # plugged and unplugged while it runs, up to the quota
    acme.cli("nic", "attach", "web", "lan")
    assert "3 devices" in acme.cli("nic", "attach", "web", "lan", status=ERROR)
    handle = str(host.json("guest", "show", "web", tenant="acme")["nics"][-1]["handle"])
    acme.cli("nic", "detach", "web", handle)
    work.progress()
    work.stop()


def test_what_is_not_delegated_is_out_of_reach(host: HostUnderTest, acme: Tenant, bolt: Tenant) -> None:
    assert "no network private" in create(acme, "a", "--nic", "private", status=NOT_FOUND)
    host.cli("volume", "create", "hidden", "--size", "16MiB")
    assert "no volume hidden" in create(acme, "a", "--disk", "hidden,driver=disk0", status=ERROR)
    assert host.json("driver", "list", tenant="bolt") == []
    assert "no network lan" in create(bolt, "b", "--nic", "lan", status=NOT_FOUND)
    assert acme.guests() == bolt.guests() == []


def test_volumes_have_a_quota_and_names_of_their_own(host: HostUnderTest, acme: Tenant) -> None:
    acme.cli("volume", "create", "base", "--size", "64MiB")
    acme.cli("volume", "clone", "base", "copy")
    assert "quota" in acme.cli("volume", "create", "more", "--size", "16MiB", status=ERROR)
    assert "no volume hidden" in acme.cli("volume", "clone", "hidden", "mine", status=NOT_FOUND)
    assert volumes(acme) == ["base", "copy"]
    assert "copy" not in [row["name"] for row in host.json("volume", "list")["volumes"]]
    acme.cli("volume", "delete", "copy")
    acme.cli("volume", "delete", "base")
    acme.cli("volume", "clone", "base", "from-host")
    (row,) = host.json("volume", "list", tenant="acme")["volumes"]
    assert (row["name"], row["size_kib"]) == ("from-host", 16 << 10)


def test_delegated_and_withdrawn_while_the_host_runs(host: HostUnderTest, bolt: Tenant) -> None:
    host.cli("tenant", "delegate", "bolt", "net0", "--network", "lan")
    host.cli("tenant", "delegate", "bolt", "disk0", "--volumes", "64MiB")
    rows = {(row["tenant"], row["driver"]) for row in host.json("tenant", "delegations")}
    assert rows == {(tenant, driver) for tenant in ("acme", "bolt") for driver in ("net0", "disk0")}
    delegated(host, "bolt")
    bolt.cli("volume", "create", "data", "--size", "32MiB")
    create(bolt, "web", "--disk", "data", "--nic", "lan")
    work = worker(bolt, "web")
    work.progress()
    work.stop()

    host.cli("tenant", "withdraw", "bolt", "net0")
    assert "no network lan" in bolt.cli("nic", "attach", "web", "lan", status=NOT_FOUND)
    host.wait_json(lambda shown: shown["nics"][0]["state"] == "failed", "guest", "show", "web", tenant="bolt")
    host.cli("tenant", "delegate", "bolt", "net0", "--network", "lan")
    host.wait_json(
        lambda shown: shown["nics"][0]["state"] == "connected", "guest", "show", "web", tenant="bolt"
    )
    work = worker(bolt, "web")
    work.progress()
    work.stop()
    bolt.cli("guest", "destroy", "web")
    bolt.cli("volume", "delete", "data")
    for driver in ("net0", "disk0"):
        host.cli("tenant", "withdraw", "bolt", driver)


def test_a_driver_domain_and_a_toolstack_that_come_back_serve_the_tenant_again(
    host: HostUnderTest, acme: Tenant
) -> None:
    acme.cli("volume", "create", "data", "--size", "32MiB")
    for driver in ("net0", "disk0"):
        host.cli("driver", "restart", driver, timeout=300)
    networks_up(host)
    delegated(host)
    create(acme, "web", "--disk", "data", "--nic", "lan")
    worker(acme, "web").progress()


def test_a_toolstack_that_is_built_again_has_its_guests_devices(state: None, logs: Path) -> None:
    replaced = {"tenant": Replacement("ending_tenant", Path(__file__).parents[1] / "rights")}
    with running("delegated-again", CONFIG.format(image=image()), logs, replaced) as host:
        host.cli("up", timeout=800)
        networks_up(host)
        delegated(host)
        acme = Tenant(host, "acme")
        acme.cli("volume", "create", "data", "--size", "64MiB")
        create(acme, "web", "--disk", "data", "--nic", "lan")
        work = worker(acme, "web")
        work.progress()
        start = host.log_position()
        assert "closed the connection" in acme.cli("guest", "reboot", "web", status=ERROR)
        host.wait_json(
            lambda rows: [row["restarts"] for row in rows if row["name"] == "acme"] == [1], "tenant", "list"
        )
        delegated(host)
        work.progress()
        assert devices(acme, "web") == [("connected", "")] * 2
        assert volumes(acme) == ["data"]
        acme.cli("nic", "attach", "web", "lan")
        assert "data" in acme.cli("volume", "delete", "data", status=ERROR)
        work.progress()
        work.stop()
        acme.cli("guest", "destroy", "web")
        acme.cli("volume", "delete", "data")
        (row,) = [row for row in host.json("tenant", "list") if row["name"] == "acme"]
        assert (row["guests"], row["devices"]) == (0, 0)
        assert "is dropped" not in host.log_since(start)
