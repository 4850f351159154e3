"""PCIBack and driver domains: their start, their failures, their restart; none holds up another."""

from __future__ import annotations

from typing import Any

import pytest
from driver_domains import BLK, NET, PCIBACK, DriverHost
from toolstack_host import Host

from xoar.toolstack.drivers import START_MS
from xoar.xenstore.errors import Refused


def test_a_host_without_devices_asks_for_nothing() -> None:
    host = Host()
    host.run()
    assert host.fake.requests == ["domains"] and host.ask("driver_list", start=0).fields.drivers == []


def test_driver_domains_start_and_then_pciback_is_gone() -> None:
    host = DriverHost()
    assert host.drivers() == {"net0": ("ready", ""), "disk0": ("ready", "")}
    assert host.fake.built == {NET: "running", BLK: "running"}
    assert not [path for path in host.tree() if path.startswith(f"/local/domain/{PCIBACK}")]
    assert host.toolstack.deadline_ms() is None


def test_a_driver_domain_finds_its_records() -> None:
    host = DriverHost()
    home = f"/local/domain/{NET}"
    values = {
        "name": "net0", "domid": str(NET), "console/ring-ref": "22", "store/port": "1",
        "device/pci/0/backend": f"/local/domain/{PCIBACK}/backend/pci/{NET}/0",
        "device/pci/0/backend-id": str(PCIBACK), "device/pci/0/state": "1", "networks": "", "requests": "",
    }  # fmt: skip
    for path, value in values.items():
        assert host.read(f"{home}/{path}", NET) == value, path
    client = host.client(NET)
    for path in ("service/state", "device/pci/0/state", "backend/vif/9/0/state", "data/x"):
        client.write(f"{home}/{path}", "4")
    for path in ("name", "networks/lan/mode", "requests/1"):
        with pytest.raises(Refused, match="EACCES"):
            client.write(f"{home}/{path}", "x")
    with pytest.raises(Refused, match="EACCES"):
        host.client(BLK).read(f"{home}/device/pci/0/state")


def test_pciback_reads_frontends_and_writes_its_backends() -> None:
    host = DriverHost(start=False)
    host.ready = set()
    host.run()
    client = host.client(PCIBACK)
    assert client.read(f"/local/domain/{NET}/device/pci/0/state") == b"1"
    client.write(f"/local/domain/{PCIBACK}/backend/pci/{NET}/0/state", "3")
    with pytest.raises(Refused, match="EACCES"):
        client.write(f"/local/domain/{NET}/device/pci/0/state", "4")


def test_a_device_that_is_not_claimed_does_not_hold_up_the_rest() -> None:
    host = DriverHost(start=False)
    host.claims = {"disk0"}
    host.run()
    assert host.drivers()["disk0"][0] == "ready"
    assert PCIBACK in host.fake.built, "PCIBack is needed as long as a claim may come"
    host.now += START_MS
    host.run()
    assert host.drivers()["net0"] == ("failed", "PCIBack did not claim its device in 300 s")
    assert host.fake.built == {BLK: "running"}


def test_a_device_that_cannot_be_handed_out_fails_its_driver_domain_with_pcibacks_words() -> None:
    host = DriverHost(start=False)
    host.claims = {"disk0"}
    host.run()
    host.device("net0", "failed", "no function level reset")
    host.run()
    assert host.drivers()["net0"] == ("failed", "no function level reset")
    assert host.fake.built == {BLK: "running"}
    assert any("driver domain net0 (domain 6) failed: no function" in line for line in host.reports)


def test_an_agent_that_says_nothing_fails_after_a_while() -> None:
    host = DriverHost(start=False)
    host.ready = {NET}
    host.run()
    assert host.drivers()["disk0"][0] == "starting"
    host.now += START_MS
    host.run()
    assert host.drivers()["disk0"] == ("failed", "its agent did not say in 300 s that it is ready")
    assert PCIBACK not in host.fake.built


def test_an_agent_that_fails_says_why() -> None:
    host = DriverHost(start=False)
    host.ready = {BLK}
    host.run()
    home = f"/local/domain/{NET}/service"
    host.client(NET).write(home + "/note", "no\x1bcard")
    host.client(NET).write(home + "/state", "failed")
    host.run()
    assert host.drivers()["net0"] == ("failed", "no?card")
    assert PCIBACK not in host.fake.built


def test_an_agent_that_comes_back_or_was_slow_serves_again() -> None:
    host = DriverHost()
    client, home = host.client(NET), f"/local/domain/{NET}/service"
    for said, state in (
        ("failed", "failed"),
        ("starting", "failed"),
        ("ready", "ready"),
        ("starting", "ready"),
    ):
        client.write(home + "/state", said)
        host.run()
        assert host.drivers()["net0"][0] == state
    assert host.drivers()["net0"] == ("ready", "")


def test_a_domain_that_is_gone_cannot_be_ready() -> None:
    host = DriverHost()
    host.fake.channel.send("stopped", 0, domid=NET, reason="crash")
    host.run()
    host.client(NET).write(f"/local/domain/{NET}/service/state", "ready")
    host.run()
    assert host.drivers()["net0"][0] == "failed"


@pytest.mark.parametrize("kind", ["build_shard", "unpause"])
def test_builders_refusals_fail_all_and_a_restart_heals(kind: str) -> None:
    host = DriverHost(start=False)
    host.fake.fail = {kind}
    host.run()
    states = host.drivers()
    assert {state for state, _ in states.values()} == {"failed"}
    assert f"{kind} fails in this test" in states["net0"][1]
    assert not host.fake.built
    host.fake.fail = set()
    assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"
    assert host.drivers()["net0"][0] == "ready" and host.drivers()["disk0"][0] == "failed"


def test_pciback_that_dies_fails_what_is_not_in_service_yet() -> None:
    host = DriverHost(start=False)
    host.ready = {BLK}
    host.run()
    host.fake.channel.send("stopped", 0, domid=PCIBACK, reason="crash")
    host.run()
    states = host.drivers()
    assert states["disk0"][0] == "ready"
    assert states["net0"] == ("failed", "PCIBack ended (crash) before its device was in service")
    assert PCIBACK not in host.fake.built


def test_a_driver_domain_that_crashes_is_reported_and_can_be_restarted() -> None:
    host = DriverHost()
    host.fake.channel.send("stopped", 0, domid=NET, reason="crash")
    host.run()
    assert host.drivers() == {"net0": ("failed", "its domain ended: crash"), "disk0": ("ready", "")}
    before = len(host.fake.requests)
    assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"
    after = host.fake.requests[before:]
    assert after == ["destroy", "build_shard", "unpause", "build_shard", "unpause", "destroy"]
    row = host.ask("driver_list", start=0).fields.drivers[0]
    assert (row.name, row.kind, row.domid, row.device, row.state, row.restarts) == (
        "net0", "netback", NET, 24, "ready", 1,
    )  # fmt: skip


def test_a_restart_waits_for_the_round_that_goes_on() -> None:
    host = DriverHost(start=False)
    host.ready = {NET}
    host.run()
    first = host.send("driver_restart", name="net0", timeout_ms=500_000)
    host.run()
    assert host.drivers()["net0"][0] == "waiting"
    assert host.ask("driver_restart", name="net0", timeout_ms=1).fields.errno == 16
    host.ready = {NET, BLK}
    host.run()
    assert host.answers[1, first].kind == "done"
    assert host.fake.requests.count("build_shard") == 5


def test_a_restart_that_takes_too_long_is_answered_in_time() -> None:
    host = DriverHost()
    host.claims = set()
    id = host.send("driver_restart", name="net0", timeout_ms=1000)
    host.run()
    host.now += 1000
    host.run()
    assert host.answers[1, id].fields.errno == 110
    assert host.ask("driver_restart", name="nobody", timeout_ms=1).fields.errno == 2


def test_a_pulled_device_fails_its_driver_domain_only() -> None:
    host = DriverHost()
    host.device("disk0", "gone", "it does not answer")
    host.device("nobody", "gone")
    host.run()
    assert host.drivers() == {
        "net0": ("ready", ""), "disk0": ("failed", "its device is gone: it does not answer"),
    }  # fmt: skip


def test_a_pciback_that_could_not_be_destroyed_is_reported_and_goes_before_the_next() -> None:
    host = DriverHost(start=False)
    host.fake.fail = {"destroy"}
    host.run()
    assert "PCIBack could not be destroyed: destroy fails in this test" in host.reports
    host.fake.fail = set()
    assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"
    assert PCIBACK not in host.fake.built


def test_what_builder_is_still_building_is_not_asked_for_again() -> None:
    host = DriverHost(start=False)
    host.fake.hold = {"build_shard"}
    host.run()
    for name in ("net0", "disk0"):
        host.device(name, "gone")
    host.run()
    id = host.send("driver_restart", name="net0", timeout_ms=60_000)
    host.run()
    assert host.fake.requests == ["domains", "build_shard"]
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].kind == "done"

    host.fake.hold = {"build_shard"}
    host.send("driver_restart", name="disk0", timeout_ms=1)
    host.run()
    host.fake.answer_held()
    host.fake.hold = {"build_shard"}
    host.run()
    host.fake.channel.send("stopped", 0, domid=PCIBACK, reason="crash")
    host.run()
    assert host.drivers()["disk0"][0] == "failed"
    assert host.ask("driver_restart", name="disk0", timeout_ms=1).fields.errno == 16
    host.fake.answer_held()
    host.run()
    assert host.ask("driver_restart", name="disk0", timeout_ms=1000).kind == "done"


# devices that change hands

SPARE = {"net0": NET, "disk0": BLK, "net1": 8}


def asked(host: DriverHost, kind: str, **fields: Any) -> Any:
    """The answer to a request about a driver domain, when that has done what it can."""
    id = host.send(kind, timeout_ms=1000, **fields)
    host.run(200)
    return host.answers[1, id]


def test_a_driver_domain_without_a_device_holds_up_nobody_and_is_not_built() -> None:
    host = DriverHost(domids=SPARE, unassigned=("net1",))
    assert host.drivers()["net1"] == ("unassigned", "")
    assert host.drivers()["disk0"] == ("ready", "")
    assert host.fake.built == {NET: "running", BLK: "running"}
    assert host.surveys == 1
    for kind in ("driver_restart", "driver_withdraw"):
        answer = asked(host, kind, name="net1")
        assert (answer.kind, "has no device" in answer.fields.text) == ("error", True)
    assert host.drivers()["net1"] == ("unassigned", "")


def test_a_host_on_which_nobody_has_a_device_knows_its_devices_all_the_same() -> None:
    host = DriverHost(domids={"net1": 8}, unassigned=("net1",))
    assert (host.surveys, host.fake.built) == (1, {})


@pytest.mark.parametrize("trouble", ["silent", "not built"])
def test_a_pciback_that_does_not_tell_of_devices_is_sent_away(trouble: str) -> None:
    host = DriverHost(start=False, domids=SPARE, unassigned=("net1",))
    host.tells = False
    if trouble == "not built":
        host.fake.fail = {"build_shard"}
    host.run(200)
    if trouble == "silent":
        assert host.fake.built[PCIBACK] == "running"
        host.now += START_MS + 1
        host.run(200)
        assert host.drivers()["net0"] == ("ready", "")
    else:
        assert any("the host's devices are not known" in line for line in host.reports)
    assert PCIBACK not in host.fake.built


def test_a_device_is_assigned_and_the_driver_domain_starts() -> None:
    host = DriverHost(domids=SPARE, unassigned=("net1",))
    assert asked(host, "driver_assign", name="net1", bdf=0x300).kind == "done"
    assert host.drivers()["net1"] == ("ready", "")
    assert host.fake.built == {NET: "running", BLK: "running", 8: "running"}
    rows = {row.name: row.device for row in host.ask("driver_list", start=0).fields.drivers}
    assert rows["net1"] == 0x300
    devices = host.ask("device_show", start=0).fields.devices
    assert (0x300, "net1") in [(row.bdf, row.driver) for row in devices]


def test_what_builder_refuses_changes_nothing() -> None:
    host = DriverHost(domids=SPARE, unassigned=("net1",))
    answer = asked(host, "driver_assign", name="net1", bdf=host.fake.devices["net0"])
    assert (answer.kind, answer.fields.text) == ("error", "it is somebody's")
    assert host.drivers()["net1"] == ("unassigned", "")
    assert asked(host, "driver_assign", name="net1", bdf=0x300).kind == "done"


def test_a_device_is_withdrawn_reset_and_given_to_another() -> None:
    host = DriverHost(domids=SPARE, unassigned=("net1",))
    card = host.fake.devices["net0"]
    assert asked(host, "driver_withdraw", name="net0").kind == "done"
    assert host.drivers()["net0"] == ("unassigned", "")
    assert host.fake.built == {BLK: "running"}
    assert not [path for path in host.tree() if path.startswith(f"/local/domain/{NET}/")]
    assert host.surveys == 2  # PCIBack was there again, for the reset
    assert asked(host, "driver_assign", name="net1", bdf=card).kind == "done"
    assert host.drivers()["net1"] == ("ready", "")
    assert host.drivers()["net0"] == ("unassigned", "")


def test_a_driver_domain_that_does_not_die_keeps_its_device() -> None:
    host = DriverHost(domids=SPARE, unassigned=("net1",))
    host.fake.fail = {"destroy"}
    answer = asked(host, "driver_withdraw", name="net0")
    assert (answer.kind, "could not be destroyed" in answer.fields.text) == ("error", True)
    assert "net0" in host.fake.devices
    host.fake.fail = set()
    assert asked(host, "driver_withdraw", name="net0").kind == "done"


def test_a_driver_domain_is_changed_by_one_operator_at_a_time() -> None:
    host = DriverHost(domids=SPARE, unassigned=("net1",))
    host.fake.hold = {"assign_pci_device", "destroy"}
    host.send("driver_assign", timeout_ms=1000, name="net1", bdf=0x300)
    host.send("driver_withdraw", timeout_ms=1000, name="net0")
    host.run()
    for kind, name in (("driver_assign", "net1"), ("driver_withdraw", "net0"), ("driver_restart", "net0")):
        fields = {"bdf": 0x400} if kind == "driver_assign" else {}
        answer = asked(host, kind, name=name, **fields)
        assert (answer.kind, "try again" in answer.fields.text) == ("error", True)


@pytest.mark.parametrize("kind", ["driver_assign", "driver_withdraw"])
def test_a_driver_domain_that_there_is_not(kind: str) -> None:
    host = DriverHost()
    fields = {"bdf": 0x300} if kind == "driver_assign" else {}
    assert asked(host, kind, name="net9", **fields).fields.text == "there is no driver domain net9"


def test_optional_rights_and_the_journal_are_builders_to_answer() -> None:
    host = Host()
    right = {"shard": "console", "security_class": "xen", "permission": "debug"}
    assert host.ask("permit_change", **right, on=1).kind == "done"
    assert host.fake.permitted == [("console", "xen", "debug", 1)]
    assert host.ask("permit_show", start=0).fields.permits == [("console", "xen", "debug", 1)]
    assert host.ask("journal_show", start=0).fields.dropped == 3
