"""The host's Toolstack begins anew: driver domains, networks, tenants and delegations are what they were."""

from __future__ import annotations

from typing import Any

import pytest
from driver_domains import BLK, NET, PCIBACK, DriverHost, disk, nic
from hypothesis import given, settings
from hypothesis import strategies as st
from test_delegations import DelegatingHost
from test_memory import check
from test_tenant_toolstacks import ACME
from toolstack_host import Host, ListShelf

from xoar.messages.codec import encode
from xoar.messages.records import ROLLBACK


def everything(host: Host) -> list[Any]:
    """What operators see of all that is remembered."""
    kinds = ("driver_list", "network_list", "tenant_list", "delegation_list", "guest_list", "volume_list")
    return [host.ask(kind, start=0).fields for kind in kinds]


def full() -> DelegatingHost:
    host = DelegatingHost()
    host.delegate()
    host.delegate("disk0")
    host.client(NET).write(f"/local/domain/{NET}/service/networks/lan", "up")
    host.client(BLK).write(
        f"/local/domain/{BLK}/service/volumes/root", "size_kib=8 used_kib=4 origin=- users=- state=ok"
    )
    host.client(BLK).write(f"/local/domain/{BLK}/service/pool", "size_kib=80 used_kib=4")
    host.create(disks=[disk()], nics=[nic(address="10.0.0.2")])
    host.run()
    return host


def test_all_is_what_it_was() -> None:
    host = full()
    before = everything(host)
    assert before[1].networks[0].state == "up" and before[5].pools and before[5].volumes
    tree = host.tree()
    requests = len(host.fake.requests)
    for _ in range(2):
        host.begin_anew()
        host.run()
        host.run()
        assert everything(host) == before
        assert host.toolstack.idle
    assert host.fake.requests[requests:] == ["domains", "quotas"] * 2
    assert host.tree() == tree
    assert host.show().nics[0].state == "connected"
    assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"
    assert host.show().nics[0].state == "failed"
    assert host.read(f"/local/domain/{NET}/networks/lan/mode") == "bridge"
    assert host.ask("guest_destroy", name="web").kind == "done"


@pytest.mark.parametrize("domid", [NET, ACME])
def test_what_ended_meanwhile_is_noticed(domid: int) -> None:
    host = full()
    host.now += 60_000
    if domid == NET:
        host.fake.reasons[NET] = "crash"
    else:
        del host.fake.built[ACME]
        host.server.release(ACME)
    host.clients.clear()
    host.begin_anew()
    host.run()
    if domid == NET:
        assert host.drivers()["net0"] == ("failed", "its domain ended: crash")
        assert host.show().nics[0].state == "failed"
    else:
        (row,) = host.ask("tenant_list", start=0).fields.tenants
        assert (row.state, row.restarts) == ("ready", 1) and host.fake.built[ACME] == "running"
        assert (
            host.read(f"/local/domain/{ACME}/delegated")
            == f"net0:netback:{NET}:ready disk0:blkback:{BLK}:ready"
        )


def test_what_failed_is_not_tried_again() -> None:
    host = DriverHost(start=False)
    host.claims = {"disk0"}
    host.run()
    host.device("net0", "failed", "no such card")
    host.run()
    assert host.drivers()["net0"] == ("failed", "no such card")
    for _ in range(2):
        host.begin_anew()
        host.run()
    assert host.drivers() == {"net0": ("failed", "no such card"), "disk0": ("ready", "")}
    assert host.fake.requests.count("build_shard") == 2


def test_a_device_that_was_assigned_stays() -> None:
    host = DriverHost(unassigned=("net0",))
    assert host.ask("driver_assign", name="net0", bdf=24, timeout_ms=1000).kind == "done"
    host.begin_anew()
    host.run()
    rows = host.ask("driver_list", start=0).fields.drivers
    assert [(row.device, row.state) for row in rows] == [(24, "ready"), (32, "ready")]
    assert host.surveys == 2
    assert host.ask("driver_withdraw", name="net0", timeout_ms=1000).kind == "done"


@pytest.mark.parametrize("turns", range(0, 40, 2))
def test_a_host_whose_start_is_cut_short_starts_anyway(turns: int) -> None:
    host = DelegatingHost.__new__(DelegatingHost)
    DriverHost.__init__(host, start=False, words={"tenant": [f"acme:{ACME}"], "tenant_seconds": ["3600"]})
    host.fake.late["tenant-acme"] = ACME
    host.run(turns)
    host.clients.clear()
    host.begin_anew()
    for _ in range(3):
        host.run()
        host.clients.clear()
    assert {state for state, _ in host.drivers().values()} == {"ready"}, host.reports
    (row,) = host.ask("tenant_list", start=0).fields.tenants
    assert row.state == "ready"
    assert sorted(host.fake.built) == [NET, BLK, ACME] and PCIBACK not in host.fake.built
    assert host.toolstack.idle


def test_rollbacks_are_remembered() -> None:
    host = Host()
    for life in range(1, 401):
        row = ("logic", life, "toolstack", "none", 3, life, 1, 1, 1, 1, 1, 1)
        host.toolstack.rollbacks._restorer = Told(row)  # type: ignore[assignment]
        host.toolstack.rollbacks.turn()
    host.toolstack.rollbacks._restorer = None
    host.wake()
    host.run()
    for _ in range(2):
        host.begin_anew()
        host.run()
        assert host.toolstack.rollbacks.of("logic")[1] == 399
        page = host.ask("rollback_list", start=0).fields
        first = page.records[0].life
        assert first <= 400 - 255 and page.next == first - 1 + 32 and page.more


class Told:
    """A link from Restorer with one message in it."""

    more = False
    idle = True

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.row = row

    def receive(self) -> list[Any]:
        return [type("M", (), {"fields": ROLLBACK.value(*self.row)})]


def test_rollbacks_that_make_no_sense_are_none() -> None:
    host = Host(shelf=ListShelf(encode("kept_rollbacks", 1, rows=b"\xff" * 100)))
    assert host.ask("rollback_list", start=0).fields.records == []


DRIVER = {"settled": 1, "note": "", "restarts": 0, "since_ms": 0, "up": 1, "recorded": 1, "state": "ready"}
TENANT = {"state": "ready", "note": "", "restarts": 0, "quick_ends": 0, "since_ms": 0}
LAN = {"mode": "bridge", "vlan": 0, "subnet": "", "forwards": [], "state": ""}
WAN = {"networks": [("wan",)], "volumes_kib": 0, "images": []}
HOSTILE = {
    "driver": encode("kept_driver", 50, name="disk9", device=8, **DRIVER),
    "driver without its device": encode("kept_driver", 50, name="net0", device=0, **DRIVER),
    "tenant": encode("kept_tenant", 50, name="bolt", **TENANT),
    "network": encode("kept_network", 50, name="wan", driver="disk0", **LAN),
    "delegation": encode("kept_delegation", 50, driver="net0", tenant="acme", **WAN),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_this_host_has_not_is_dropped(what: str) -> None:
    host = DelegatingHost()
    if what == "driver without its device":
        host.shelf.records = [record for record in host.shelf.records if b"net0" not in record]
    before = [everything(host)[index] for index in (2, 3, 4)]
    host.shelf.records.append(HOSTILE[what])
    host.begin_anew()
    for _ in range(3):
        host.run()
    assert [line for line in host.reports if "is dropped: kept_" in line]
    assert [everything(host)[index] for index in (2, 3, 4)] == before
    assert host.toolstack.idle


STEPS = ("restart", "network", "delete", "delegate", "create", "attach", "detach", "destroy")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 14), st.booleans()), min_size=1, max_size=8))
def test_whenever_it_ends_all_comes_to_rest(steps: list[tuple[str, int, bool]]) -> None:
    host = DelegatingHost()
    for what, turns, ends in steps:
        if what == "restart":
            host.send("driver_restart", name="net0", timeout_ms=1000)
        elif what == "network":
            host.send("network_create", **host.network("wan", vlan=7))
        elif what == "delete":
            host.send("network_delete", name="wan")
        elif what == "delegate":
            host.send("delegate", driver="net0", tenant="acme", networks=[("lan",)], volumes_kib=0, images=[])
        elif what == "create":
            host.send("guest_create", **host.create_fields(disks=[disk()], nics=[nic()]))
        elif what == "attach":
            host.send("disk_attach", guest="web", disk=disk("xvdb", "data"), timeout_ms=1000)
        elif what == "detach":
            host.send("disk_detach", guest="web", device="xvda", timeout_ms=1000)
        else:
            host.send("guest_destroy", name="web")
        host.run(turns)
        if ends:
            host.clients.clear()
            host.begin_anew()
            host.run(turns)
    for _ in range(3):
        host.run()
        host.now += 1000
        host.clients.clear()
    host.now += 200_000
    host.run()
    check(host)
    guests = {row.domid for row in host.ask("guest_list", start=0).fields.guests}
    assert {link[0] for link in host.fake.links} <= guests
    for name in [row.name for row in host.ask("guest_list", start=0).fields.guests]:
        fields = host.show(name)
        linked = [row for row in fields.disks + fields.nics if "has ended" not in row.note]
        assert len(linked) == len(host.fake.links)
        assert host.ask("guest_destroy", name=name).kind == "done"
    check(host)
    assert not host.fake.links
    assert not [path for path in host.tree() if "/backend/v" in path and path.count("/") > 5]
    assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"


def test_a_host_without_devices_does_not_take_domain_0_for_pciback() -> None:
    host = Host()
    host.run()
    host.fake.shards[0] = "bootstrapper"
    host.begin_anew()
    host.run()
    assert host.fake.requests == ["domains"] * 2 and host.toolstack.idle


def test_a_new_life_serves_nobody_before_it_has_read_what_there_is() -> None:
    host = full()
    before = everything(host)
    for _ in range(3):
        host.begin_anew()
        assert not host.toolstack.begun
        # asked at once
        assert host.ask("volume_list", start=0).fields == before[5] and host.toolstack.begun
        assert host.ask("network_list", start=0).fields == before[1]
