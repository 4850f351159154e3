"""Guests with disks and network interfaces: their nodes, their start, their end, their reboot."""

from __future__ import annotations

from typing import Any

import pytest
from driver_domains import BLK, NET, PCIBACK, DriverHost, disk, nic

from xoar.toolstack.drivers import START_MS
from xoar.toolstack.hotplug import RELEASE_MS
from xoar.toolstack.starts import DRIVERS_MS, PLUG_MS
from xoar.xenstore.errors import Refused

BOTH: dict[str, Any] = {"disks": [disk(), disk("xvdb", "data", mode="r")], "nics": [nic(rate_kib=1000)]}


def ready_host() -> DriverHost:
    host = DriverHost()
    host.lan()
    return host


def test_a_guest_runs_once_its_devices_are_prepared_and_shows_them() -> None:
    host = ready_host()
    domid = host.create(**BOTH)
    guest = host.show()
    assert [(row.device, row.volume, row.mode, row.state) for row in guest.disks] == [
        ("xvda", "root", "w", "connected"), ("xvdb", "data", "r", "connected"),
    ]  # fmt: skip
    (row,) = guest.nics
    assert (row.handle, row.driver, row.network, row.state, row.note) == (0, "net0", "lan", "connected", "")
    client = host.client(NET)
    for value, seen in (("10.1.2.3", "10.1.2.3"), ("\x1b[2J", "")):
        client.write(f"/local/domain/{NET}/service/addresses/{domid}/0", value)
        host.run()
        assert host.show().nics[0].seen_address == seen


def test_the_nodes_are_libxls() -> None:
    host = ready_host()
    domid = host.create(**BOTH)
    values = {
        f"/local/domain/{domid}/device/vbd/51728": {
            "backend": f"/local/domain/{BLK}/backend/vbd/{domid}/51728", "backend-id": str(BLK), "state": "1",
            "virtual-device": "51728", "device-type": "disk",
        },
        f"/local/domain/{BLK}/backend/vbd/{domid}/51728": {
            "frontend": f"/local/domain/{domid}/device/vbd/51728", "frontend-id": str(domid), "online": "1",
            "dev": "xvdb", "mode": "r", "params": "data",
        },
        f"/local/domain/{domid}/device/vif/0": {
            "backend": f"/local/domain/{NET}/backend/vif/{domid}/0", "backend-id": str(NET), "state": "1",
            "handle": "0", "mac": "00:16:3e:00:00:01",
        },
        f"/local/domain/{NET}/backend/vif/{domid}/0": {
            "frontend": f"/local/domain/{domid}/device/vif/0", "frontend-id": str(domid), "online": "1",
            "handle": "0", "mac": "00:16:3e:00:00:01", "script": "none", "network": "lan",
            "address": "",
            "rate": "51200,50000",
        },
    }  # fmt: skip
    for base, nodes in values.items():
        for name, value in nodes.items():
            assert host.read(f"{base}/{name}") == value, f"{base}/{name}"


def test_each_side_writes_its_own_nodes_and_reads_the_others() -> None:
    host = ready_host()
    domid, other = host.create(disks=[disk()]), host.create("other")
    front = f"/local/domain/{domid}/device/vbd/51712"
    back = f"/local/domain/{BLK}/backend/vbd/{domid}/51712"
    guest = host.as_domain(domid)
    guest.write(front + "/ring-ref", "8")
    assert host.read(front + "/ring-ref", BLK) == "8" and guest.read(back + "/state") == b"4"
    for client, path in ((guest, back), (host.client(BLK), front)):
        with pytest.raises(Refused, match="EACCES"):
            client.write(path + "/state", "6")
    for path in (front, back):
        with pytest.raises(Refused, match="EACCES"):
            host.as_domain(other).read(path + "/state")


def test_a_destroyed_guest_leaves_nothing_on_either_side() -> None:
    host = ready_host()
    domid = host.create(**BOTH)
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.nothing_of_guests_is_left()
    assert not [path for path in host.tree() if path.endswith(f"/{domid}")]


def test_backends_are_told_to_close_before_the_domain_ends() -> None:
    host = ready_host()
    domid = host.create(disks=[disk()])
    host.fake.hold = {"destroy"}
    id = host.send("guest_destroy", name="web")
    host.run()
    back = f"/local/domain/{BLK}/backend/vbd/{domid}/51712"
    assert (host.read(back + "/online"), host.read(back + "/state")) == ("0", "6")
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].kind == "done" and host.nothing_of_guests_is_left()


def test_devices_come_back_with_a_reboot() -> None:
    host = ready_host()
    domid = host.create(**BOTH)
    host.fake.stop(domid, "reboot")
    host.run()
    guest = host.show()
    assert guest.state == "running" and guest.domid != domid
    assert {row.state for row in guest.disks + guest.nics} == {"connected"}
    assert not host.client(99).exists(f"/local/domain/{BLK}/backend/vbd/{domid}")


def test_a_guest_waits_for_its_driver_domains_and_others_do_not() -> None:
    host = DriverHost(start=False)
    host.ready = {BLK}
    host.run()
    host.lan()
    id = host.send("guest_create", **host.create_fields(**BOTH))
    host.create("plain")
    assert (1, id) not in host.answers and host.state() == "building"
    assert [state for state in host.fake.domains.values()] == ["running"], "web has no domain yet"
    host.ready = {NET, BLK}
    host.run()
    assert host.answers[1, id].kind == "started"


def test_a_guest_whose_driver_domain_fails_is_refused_with_the_reason() -> None:
    host = DriverHost(start=False)
    host.ready = {BLK}
    host.run()
    host.lan()
    id = host.send("guest_create", **host.create_fields(nics=[nic()]))
    host.run()
    host.now += START_MS
    host.run()
    text = host.answers[1, id].fields.text
    assert text.startswith("guest web is gone: network interface 0 (network lan): driver domain net0 failed")
    assert host.nothing_of_guests_is_left()


def test_a_guest_does_not_wait_for_ever() -> None:
    host = DriverHost(start=False)
    host.fake.hold = {"build_shard"}
    host.run()
    id = host.send("guest_create", **host.create_fields(disks=[disk()]))
    host.run()
    host.now += DRIVERS_MS
    host.run()
    fields = host.answers[1, id].fields
    assert fields.errno == 110 and "driver domain disk0 is not ready yet (waiting)" in fields.text


def test_a_guest_that_waits_for_driver_domains_can_be_destroyed() -> None:
    host = DriverHost(start=False)
    host.ready = set()
    host.run()
    creating = host.send("guest_create", **host.create_fields(disks=[disk()]))
    host.run()
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert "destroyed by the operator" in host.answers[1, creating].fields.text
    assert "build" not in host.fake.requests and PCIBACK in host.fake.built


def test_an_agents_refusal_fails_the_guest_and_takes_everything_back() -> None:
    host = ready_host()
    host.refuse = {"data": "volume data is in use by domain 40"}
    reply = host.ask("guest_create", **host.create_fields(**BOTH))
    assert reply.kind == "error"
    assert "disk xvdb (volume data): volume data is in use by domain 40" in reply.fields.text
    host.now += RELEASE_MS
    host.run()
    assert host.nothing_of_guests_is_left()
    host.refuse = {}
    host.create(**BOTH)


def test_an_agent_that_does_not_prepare_a_device_fails_the_guest() -> None:
    host = ready_host()
    host.ready = {NET}
    id = host.send("guest_create", **host.create_fields(disks=[disk()]))
    host.run()
    host.now += PLUG_MS
    host.run()
    host.now += RELEASE_MS
    host.run()
    assert "driver domain disk0 did not prepare it in 60 s" in host.answers[1, id].fields.text
    assert host.nothing_of_guests_is_left()


def test_a_driver_domain_that_ends_is_seen_on_its_guests_only() -> None:
    host = ready_host()
    host.create(**BOTH)
    host.create("other", disks=[disk(volume="other")])
    host.fake.channel.send("stopped", 0, domid=NET, reason="crash")
    host.run()
    guest = host.show()
    assert guest.state == "running" and guest.nics[0].state == "failed"
    assert "its driver domain net0 has ended" in guest.nics[0].note
    assert {row.state for row in guest.disks + host.show("other").disks} == {"connected"}
    assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"
    host.fake.stop(guest.domid, "reboot")
    host.run()
    assert host.show().nics[0].state == "connected"


def test_a_guest_that_reboots_waits_for_a_driver_domain_to_come_back() -> None:
    host = ready_host()
    domid = host.create(**BOTH)
    host.fake.channel.send("stopped", 0, domid=NET, reason="crash")
    host.fake.stop(domid, "reboot")
    host.run()
    assert host.state() == "rebooting"
    host.ask("driver_restart", name="net0", timeout_ms=1000)
    assert host.state() == "running"


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        ({"disks": [disk("sda")]}, "disk sda: xvda to xvdp are possible"),
        ({"disks": [disk("xvdq")]}, "disk xvdq: xvda to xvdp are possible"),
        ({"disks": [disk(driver="x")]}, "disk xvda: there is no blkback x"),
        ({"disks": [disk(driver="net0")]}, "disk xvda: there is no blkback net0"),
        ({"disks": [disk(), disk()]}, "guest web has a disk xvda already"),
        ({"nics": [nic("wan")]}, "there is no network wan"),
        ({"nics": [nic(mac=9)]}, "network lan: guest other has the address 00:16:3e:00:00:09"),
        ({"nics": [nic(), nic()]}, "network lan: guest web has the address 00:16:3e:00:00:01"),
        ({"nics": [nic(address="10.0.0.9")]}, "network lan: guest other has the address 10.0.0.9"),
        ({"nics": [nic(address="10.0.0")]}, "'10.0.0' is no IPv4 address"),
        ({"nics": [nic("inner", address="10.0.0.7")]}, "network inner has no address 10.0.0.7 for guests"),
        ({"nics": [("lan", bytes(6), "", 0)]}, "00:00:00:00:00:00 is no address"),
        ({"nics": [("lan", b"\x01" * 6, "", 0)]}, "01:01:01:01:01:01 is no address"),
        ({"nics": [("lan", b"\xfe" + b"\xff" * 5, "", 0)]}, "fe:ff:ff:ff:ff:ff is no address"),
    ],
)
def test_a_device_that_cannot_be_is_refused_before_anything_is_done(
    devices: dict[str, Any], text: str
) -> None:
    host = ready_host()
    inner = host.network("inner", mode="nat", subnet="10.9.0.0/24")
    assert host.ask("network_create", **inner).kind == "done"
    host.create("other", nics=[nic(mac=9, address="10.0.0.9")])
    before = list(host.fake.requests)
    reply = host.ask("guest_create", **host.create_fields(**devices))
    assert reply.kind == "error" and text in reply.fields.text
    assert host.fake.requests == before
    assert host.ask("guest_create", **host.create_fields(**BOTH)).kind == "started", "nothing is left in use"


def test_what_a_driver_domain_invents_is_ignored() -> None:
    host = ready_host()
    domid = host.create(disks=[disk()])
    host.ready = set()
    client, home = host.client(BLK), f"/local/domain/{BLK}"
    for path in (
        f"backend/vbd/{domid}/1", "backend/vbd/x/y/state", f"backend/vif/{domid}/51712/state",
        "backend/vbd/999999/51712/state", "service/addresses/1", f"service/addresses/{domid}/0/x",
        "service/state/x", "service/replies/x", "service/networks", "service/pool/x", "service/z",
    ):  # fmt: skip
        client.write(f"{home}/{path}", "6")
    client.write(f"{home}/backend/vbd/{domid}/51712/state", "-4")
    host.run()
    assert host.show().disks[0].state == "connecting"
    client.rm(f"{home}/backend")
    id = host.send("guest_destroy", name="web")
    host.run()
    host.now += RELEASE_MS
    host.run()
    assert host.answers[1, id].kind == "done"
