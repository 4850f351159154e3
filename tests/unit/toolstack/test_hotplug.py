"""Devices plugged into running guests, and unplugged from them."""

from __future__ import annotations

from typing import Any

import pytest
from driver_domains import BLK, NET, DriverHost, disk, nic
from hypothesis import given, settings
from hypothesis import strategies as st

from xoar.toolstack.drivers import START_MS
from xoar.toolstack.hotplug import RELEASE_MS
from xoar.toolstack.starts import DRIVERS_MS

ROOT: dict[str, Any] = {"disks": [disk()]}


def host_with_guest(**devices: Any) -> tuple[DriverHost, int]:
    host = DriverHost()
    host.lan()
    return host, host.create(**(devices or ROOT))


def attach(disk: Any) -> dict[str, Any]:
    return {"guest": "web", "disk": disk, "timeout_ms": 1000}


def detach(device: str) -> dict[str, Any]:
    return {"guest": "web", "device": device, "timeout_ms": 1000}


def test_a_disk_and_a_nic_are_plugged_and_unplugged() -> None:
    host, domid = host_with_guest()
    assert host.ask("disk_attach", **attach(disk("xvdb", "data"))).kind == "done"
    for mac in (1, 2):
        assert host.ask("nic_attach", guest="web", nic=nic(mac=mac), timeout_ms=1000).kind == "done"
    guest = host.show()
    assert [row.device for row in guest.disks] == ["xvda", "xvdb"]
    assert [row.handle for row in guest.nics] == [0, 1]
    assert {row.state for row in guest.disks + guest.nics} == {"connected"}
    assert host.ask("nic_detach", guest="web", handle=0, timeout_ms=1000).kind == "done"
    assert host.ask("disk_detach", **detach("xvdb")).kind == "done"
    guest = host.show()
    assert [row.device for row in guest.disks] == ["xvda"] and [row.handle for row in guest.nics] == [1]
    for path in (f"{BLK}/backend/vbd/{domid}/51728", f"{domid}/device/vbd/51728", f"{domid}/device/vif/0"):
        assert host.read(f"/local/domain/{path}/state") is None
    assert host.ask("nic_attach", guest="web", nic=nic(), timeout_ms=1000).kind == "done"
    assert [row.handle for row in host.show().nics] == [1, 2]
    host.ask("nic_detach", guest="web", handle=1, timeout_ms=1000)
    host.ask("nic_detach", guest="web", handle=2, timeout_ms=1000)
    assert not host.client(99).exists(f"/local/domain/{NET}/backend/vif/{domid}")


def test_a_handle_is_used_again_when_it_has_rested() -> None:
    host, _ = host_with_guest()
    handles = []
    for _ in range(20):
        assert host.ask("nic_attach", guest="web", nic=nic(), timeout_ms=1000).kind == "done"
        (row,) = host.show().nics
        handles.append(row.handle)
        assert host.ask("nic_detach", guest="web", handle=row.handle, timeout_ms=1000).kind == "done"
    assert handles == [*range(17), *range(3)]


def test_plugged_devices_come_back_with_a_reboot_and_unplugged_ones_do_not() -> None:
    host, domid = host_with_guest(disks=[disk(), disk("xvdb", "data")])
    host.ask("disk_detach", **detach("xvdb"))
    host.ask("disk_attach", **attach(disk("xvdc", "more")))
    host.fake.stop(domid, "reboot")
    host.run()
    assert [(row.device, row.state) for row in host.show().disks] == [
        ("xvda", "connected"), ("xvdc", "connected"),
    ]  # fmt: skip


def test_a_guest_that_does_not_let_go_is_named_and_nothing_is_half_removed() -> None:
    host, domid = host_with_guest()
    host.stubborn = {domid}
    id = host.send("disk_detach", **detach("xvda"))
    host.run()
    host.now += 1000
    host.run()
    fields = host.answers[1, id].fields
    assert fields.errno == 110
    assert "guest web has not let go of disk xvda (volume root) in time: stop using it" in fields.text
    assert host.show().disks[0].state == "closing"
    back = f"/local/domain/{BLK}/backend/vbd/{domid}/51712"
    for path in (back + "/params", f"/local/domain/{domid}/device/vbd/51712/backend"):
        assert host.read(path) is not None
    assert host.ask("disk_attach", **attach(disk())).fields.errno == 17
    again = host.send("disk_detach", **detach("xvda"))
    host.run()
    host.stubborn = set()
    host.run()
    assert host.answers[1, again].kind == "done"
    assert host.show().disks == [] and host.read(back + "/params") is None


def test_what_is_being_unplugged_leaves_with_the_guests_domain() -> None:
    host, domid = host_with_guest(disks=[disk(), disk("xvdb", "data")])
    host.stubborn = {domid}
    id = host.send("disk_detach", **detach("xvdb"))
    host.run()
    host.fake.stop(domid, "reboot")
    host.run()
    assert host.answers[1, id].kind == "done"
    host.now += RELEASE_MS
    host.run()
    assert [(row.device, row.state) for row in host.show().disks] == [("xvda", "connected")]


def test_an_agents_refusal_is_passed_on_and_the_device_taken_back() -> None:
    host, domid = host_with_guest()
    host.refuse = {"data": "volume data is in use by domain 50"}
    reply = host.ask("disk_attach", **attach(disk("xvdb", "data")))
    assert reply.fields.text == "disk xvdb (volume data) of guest web: volume data is in use by domain 50"
    assert [row.device for row in host.show().disks] == ["xvda"]
    assert host.read(f"/local/domain/{BLK}/backend/vbd/{domid}/51728/state") is None
    host.refuse = {}
    assert host.ask("disk_attach", **attach(disk("xvdb", "data"))).kind == "done"


def test_a_guest_that_does_not_take_a_device_loses_it_again() -> None:
    host, domid = host_with_guest()
    host.connects = False
    host.stubborn = {domid}
    id = host.send("disk_attach", **attach(disk("xvdb", "data")))
    host.run()
    assert host.show().disks[1].state == "connecting"
    host.now += 1000
    host.run()
    assert (1, id) not in host.answers
    host.now += RELEASE_MS
    host.run()
    fields = host.answers[1, id].fields
    assert fields.errno == 110 and "is its driver loaded in the guest?" in fields.text
    assert len(host.show().disks) == 1
    assert host.read(f"/local/domain/{BLK}/backend/vbd/{domid}/51728/state") is None


def test_a_guest_that_ends_while_a_device_is_plugged_leaves_nothing() -> None:
    host, _ = host_with_guest()
    host.connects = False
    id = host.send("disk_attach", **attach(disk("xvdb", "data")))
    host.run()
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.answers[1, id].fields.text == "guest web ended meanwhile"
    assert host.nothing_of_guests_is_left()


def test_a_device_of_a_lost_driver_domain_can_be_unplugged() -> None:
    host, _ = host_with_guest()
    host.fake.channel.send("stopped", 0, domid=BLK, reason="crash")
    host.run()
    assert "disk0 failed" in host.ask("disk_attach", **attach(disk("xvdb", "data"))).fields.text
    assert host.ask("disk_detach", **detach("xvda")).kind == "done"
    assert host.show().disks == [] and host.show().state == "running"


@pytest.mark.parametrize(
    ("kind", "fields", "errno"),
    [
        ("disk_attach", {"guest": "nobody", "disk": disk(), "timeout_ms": 1}, 2),
        ("disk_attach", attach(disk()), 17),
        ("disk_attach", attach(disk("hda")), 22),
        ("nic_attach", {"guest": "web", "nic": nic("wan"), "timeout_ms": 1}, 2),
        ("disk_detach", detach("xvdz"), 2),
        ("nic_detach", {"guest": "web", "handle": 3, "timeout_ms": 1}, 2),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(kind: str, fields: dict[str, Any], errno: int) -> None:
    host, _ = host_with_guest()
    assert host.ask(kind, **fields).fields.errno == errno


def test_a_guest_has_a_bounded_number_of_disks() -> None:
    host, _ = host_with_guest()
    for letter in "bcdefgh":
        assert host.ask("disk_attach", **attach(disk("xvd" + letter, letter))).kind == "done"
    assert "8 disks, the most allowed" in host.ask("disk_attach", **attach(disk("xvdi"))).fields.text


STEPS = st.one_of(
    st.sampled_from(["build", "unpause", "destroy", "build_shard"]).map(lambda kind: ("fail", kind)),
    st.sampled_from(["build", "unpause", "destroy", "build_shard"]).map(lambda kind: ("hold", kind)),
    st.sampled_from(["create", "destroy", "reboot", "attach", "detach", "restart net0", "restart disk0"]).map(
        lambda what: (what, "")
    ),
    st.sampled_from(["crash", "reboot", "poweroff", "vanished"]).map(lambda reason: ("stop", reason)),
    st.sampled_from([NET, BLK]).map(lambda domid: ("lose", domid)),
    st.sampled_from(["stubborn", "refuse", "shy", "mute", "unclaimed", "heal"]).map(lambda what: (what, "")),
    st.integers(0, 130_000).map(lambda ms: ("wait", ms)),
)


def step(host: DriverHost, what: str, value: Any) -> None:
    channel = 10 + host.last_id
    if what in ("fail", "hold"):
        getattr(host.fake, what).add(value)
    elif what == "create":
        fields = host.create_fields(on_crash="restart", disks=[disk()], nics=[nic()])
        host.send("guest_create", channel, **fields)
    elif what == "destroy":
        host.send("guest_destroy", channel, name="web")
    elif what == "reboot":
        host.send("guest_reboot", channel, name="web", timeout_ms=1000)
    elif what == "attach":
        host.send("disk_attach", channel, **attach(disk("xvdb", "data")))
    elif what == "detach":
        host.send("disk_detach", channel, **detach("xvdb"))
    elif what.startswith("restart"):
        host.send("driver_restart", channel, name=what[8:], timeout_ms=5000)
    elif what == "stop":
        for domid in [domid for domid, state in host.fake.domains.items() if state == "running"]:
            host.fake.stop(domid, value)
    elif what == "lose":
        if host.fake.built.get(value) == "running":
            host.fake.built[value] = "shutdown"
            host.fake.channel.send("stopped", 0, domid=value, reason="crash")
    elif what == "stubborn":
        host.stubborn = set(range(32, 100))
    elif what == "refuse":
        host.refuse = {"data": "no"}
    elif what == "shy":
        host.connects = False
    elif what == "mute":
        host.ready = set()
    elif what == "unclaimed":
        host.claims = set()
    elif what == "heal":
        heal(host)
    else:
        host.now += value


def heal(host: DriverHost) -> None:
    host.fake.fail.clear()
    host.fake.answer_held()
    host.stubborn, host.refuse, host.connects = set(), {}, True
    host.ready, host.claims = {NET, BLK}, {"net0", "disk0"}


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_every_request_is_answered_and_nothing_leaks(steps: list[tuple[str, Any]]) -> None:
    host = DriverHost()
    host.lan()
    for what, value in steps:
        step(host, what, value)
        host.run(6)
    heal(host)
    host.run()
    for _ in range(3):
        host.now += DRIVERS_MS + START_MS + RELEASE_MS
        host.run()
    assert sorted(id for _, id in host.answers) == list(range(1, host.last_id + 1))
    for name in ("net0", "disk0"):
        assert host.ask("driver_restart", name=name, timeout_ms=5000).kind == "done"
    if host.guests.find("web"):
        assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.nothing_of_guests_is_left()
    host.create(disks=[disk()], nics=[nic()])
