"""What the host's Toolstack delegates to a tenant's, and what that makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from driver_domains import BLK, NET, DriverHost, disk, nic
from test_tenant_toolstacks import ACME, Operator, TenantsHost
from toolstack_host import TOOLSTACK

from xoar.messages.codec import Message, encode
from xoar.messages.errors import EBUSY, EINVAL, ENOENT
from xoar.xenstore.client import Client

HOME = f"/local/domain/{NET}/tenants/{ACME}"
OWN = f"/local/domain/{ACME}"


class DelegatingHost(DriverHost):
    """The host's Toolstack with a NetBack, a BlkBack and a tenant."""

    def __init__(self) -> None:
        super().__init__(start=False, words={"tenant": [f"acme:{ACME}"], "tenant_seconds": ["3600"]})
        self.fake.late["tenant-acme"] = ACME
        self.run()
        self.lan()

    def delegate(self, driver: str = "net0", **changes: Any) -> Any:
        wanted = {"networks": [("lan",)], "volumes_kib": 0, "images": []}
        if driver == "disk0":
            wanted = {"networks": [], "volumes_kib": 4096, "images": [("image.debian",)]}
        return self.ask("delegate", driver=driver, tenant="acme", **{**wanted, **changes})

    def tenants_nodes(self) -> list[str]:
        return [path for path in self.tree() if "/tenants/" in path]


@pytest.fixture
def host() -> DelegatingHost:
    return DelegatingHost()


def test_both_sides_are_told_what_is_delegated(host: DelegatingHost) -> None:
    assert host.delegate().kind == host.delegate("disk0").kind == "done"
    assert host.fake.requests.count("allow_delegation") == 2
    assert host.read(HOME + "/name", NET) == "acme"
    assert host.read(HOME + "/networks/lan", NET) == ""
    blk = HOME.replace(f"/{NET}/", f"/{BLK}/")
    assert host.read(blk + "/volumes_kib", BLK) == "4096"
    assert host.read(blk + "/images/image@debian", BLK) == ""
    assert host.read(OWN + "/delegated", ACME) == f"net0:netback:{NET}:ready disk0:blkback:{BLK}:ready"
    assert host.read(OWN + "/networks", ACME) == "lan:net0:bridge:0:-"
    rows = host.ask("delegation_list", start=0).fields.delegations
    assert [(row.driver, row.tenant, row.volumes_kib) for row in rows] == [
        ("net0", "acme", 0), ("disk0", "acme", 4096),
    ]  # fmt: skip


def test_each_side_writes_where_it_should_and_nobody_else_reads(host: DelegatingHost) -> None:
    host.delegate()
    host.client(NET).write(HOME + "/service/state", "ready")
    assert host.read(HOME + "/service/state", ACME) == "ready"
    host.client(ACME).write(HOME + "/requests/1", "create a 4096")
    assert host.read(HOME + "/requests/1", NET) == "create a 4096"
    for path in ("/name", "/networks/lan", "/service/state", "/requests/1"):
        assert host.read(HOME + path, BLK) is None
    for domid, path in ((ACME, "/name"), (ACME, "/networks/wan"), (ACME, "/service/x"), (NET, "/requests/2")):
        with pytest.raises(Exception, match="EACCES"):
            host.client(domid).write(HOME + path, "x")


def test_withdrawn_it_is_gone_from_both_sides(host: DelegatingHost) -> None:
    host.delegate()
    assert host.ask("withdraw", driver="net0", tenant="acme").kind == "done"
    assert "withdraw_delegation" in host.fake.requests
    assert host.tenants_nodes() == []
    assert host.read(OWN + "/delegated", ACME) == "" == host.read(OWN + "/networks", ACME)
    assert host.ask("delegation_list", start=0).fields.delegations == []


def test_said_again_it_is_replaced(host: DelegatingHost) -> None:
    host.delegate()
    assert host.delegate(networks=[]).kind == "done"
    assert host.read(HOME + "/name", NET) == "acme" and host.read(HOME + "/networks/lan", NET) is None
    assert len(host.ask("delegation_list", start=0).fields.delegations) == 1


@pytest.mark.parametrize(
    ("changes", "errno", "text"),
    [
        ({"driver": "net9"}, ENOENT, "no driver domain net9"),
        ({"tenant": "bolt"}, ENOENT, "no tenant bolt"),
        ({"networks": [("wan",)]}, EINVAL, "net0 has no network wan"),
        ({"volumes_kib": 5}, EINVAL, "it has no volumes"),
        ({"driver": "disk0"}, EINVAL, "it has no networks"),
    ],
)
def test_what_can_not_be_delegated(
    host: DelegatingHost, changes: dict[str, Any], errno: int, text: str
) -> None:
    fields = {"driver": "net0", "tenant": "acme", "networks": [("lan",)], "volumes_kib": 0, "images": []}
    reply = host.ask("delegate", **{**fields, **changes})
    assert (reply.kind, reply.fields.errno) == ("error", errno) and text in reply.fields.text
    assert "allow_delegation" not in host.fake.requests and host.tenants_nodes() == []


def test_what_builder_refuses_is_not_delegated(host: DelegatingHost) -> None:
    host.fake.fail = {"allow_delegation"}
    assert host.delegate().kind == "error"
    assert host.tenants_nodes() == []


def test_what_a_driver_domain_was_told_stays_while_a_tenants_toolstack_is_built_anew(
    host: DelegatingHost,
) -> None:
    """Its guests run on, and are plugged into what their tenant may have."""
    host.delegate()
    host.run()
    driver = host.client(NET)
    driver.watch(HOME, "told")
    host.now += 60_000
    host.fake.stop(ACME, "poweroff")
    for _ in range(40):
        host.run(1)
        assert driver.read(HOME + "/name") == b"acme" and driver.directory(HOME + "/networks") == ["lan"]
    changed = {path.removeprefix(HOME) for path, _ in iter(driver.take_event, None)}
    assert {"/service", "/name"} <= changed, "the driver domain hears that it is to speak again"


def test_networks_that_stay_are_there_all_the_time_and_others_go(host: DelegatingHost) -> None:
    assert host.ask("network_create", network=("more", "net0", "bridge", 7, "", [], "")).kind == "done"
    host.delegate(networks=[("lan",), ("more",)])
    driver = host.client(NET)
    driver.watch(HOME, "told")
    assert host.delegate(networks=[("more",)]).kind == "done"
    assert driver.directory(HOME + "/networks") == ["more"]
    host.fake.stop(ACME, "crash")
    assert host.delegate(networks=[]).kind == "done", "while its Toolstack is gone"
    host.run()
    assert driver.directory(HOME + "/networks") == []


def test_a_network_of_a_tenant_is_not_deleted(host: DelegatingHost) -> None:
    host.delegate()
    reply = host.ask("network_delete", name="lan")
    assert (reply.kind, reply.fields.errno) == ("error", EBUSY) and "tenant acme" in reply.fields.text


@pytest.mark.parametrize("who", ["driver", "tenant"])
def test_it_is_written_again_when_one_of_the_two_comes_back(host: DelegatingHost, who: str) -> None:
    host.delegate()
    host.client(ACME).write(HOME + "/requests/1", "create a 4096")
    if who == "driver":
        assert host.ask("driver_restart", name="net0", timeout_ms=1000).kind == "done"
    else:
        host.now += 60_000
        host.fake.stop(ACME, "crash")
        host.run()
    host.clients.clear()
    assert host.read(HOME + "/name", NET) == "acme" and host.read(HOME + "/networks/lan", NET) == ""
    host.client(NET).write(HOME + "/service/state", "ready")
    assert host.read(HOME + "/service/state", ACME) == "ready"
    assert host.read(OWN + "/delegated", ACME) == f"net0:netback:{NET}:ready"
    assert host.read(HOME + "/requests/1", NET) is None, "nobody waits for the reply any more"


def test_a_tenants_toolstack_runs_once_it_is_told_and_what_was_said_to_the_last_one_is_gone(
    host: DelegatingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.delegate()
    # more than XenStore reads at a time
    assert host.delegate("disk0", images=[(f"image{number}",) for number in range(8)]).kind == "done"
    host.client(NET).write(HOME + "/service/state", "ready")
    answer, there = host.fake.answer, []

    def seen(message: Message) -> None:
        if message.kind == "unpause":
            host.clients.clear()
            there.extend([host.read(OWN + "/delegated", ACME), host.read(OWN + "/networks", ACME)])
            there.extend([host.read(HOME + "/name", NET), host.read(HOME + "/service/state", NET)])
        answer(message)

    monkeypatch.setattr(host.fake, "answer", seen)
    host.now += 60_000
    host.fake.stop(ACME, "poweroff")
    host.run()
    assert there == [BOTH, "lan:net0:bridge:0:-", "acme", None]


class Delegated(TenantsHost):
    """A tenant's Toolstack, whose domid is TOOLSTACK; a manager (99) plays the host's Toolstack."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = Operator(self)
        self.fake.late = {"net0": NET, "disk0": BLK}
        for domid in (NET, BLK):
            self.server.introduce(domid, TOOLSTACK)
        self.server.contents.add_domain(99)
        self.manager = self.as_domain(99)
        for domid in (NET, BLK):
            self.manager.write(f"/local/domain/{domid}/backend", "")
        self.place = {domid: f"/local/domain/{domid}/tenants/{TOOLSTACK}" for domid in (NET, BLK)}

    def told(self, drivers: str, networks: str = "lan:net0:nat:0:10.9.0.0/24") -> None:
        for name, value in (("delegated", drivers), ("networks", networks)):
            self.manager.write(f"/local/domain/{TOOLSTACK}/{name}", value)
            self.manager.set_perms(f"/local/domain/{TOOLSTACK}/{name}", ["n99", f"r{TOOLSTACK}"])
        for place in self.place.values():
            self.manager.write(place + "/service", "")
            self.manager.set_perms(place + "/service", ["n99", f"r{TOOLSTACK}"])
            self.manager.write(place + "/requests", "")
            self.manager.set_perms(place + "/requests", ["n99", f"b{TOOLSTACK}"])
        self.run()

    def agent(self, domid: int, path: str, value: str) -> None:
        self.manager.write(f"{self.place[domid]}/service/{path}", value)
        self.run()

    def drivers(self) -> dict[str, str]:
        return {row.name: row.state for row in self.operator.ask("driver_list", start=0).fields.drivers}


BOTH = f"net0:netback:{NET}:ready disk0:blkback:{BLK}:ready"


def test_a_tenant_has_what_it_is_told() -> None:
    host = Delegated()
    assert host.drivers() == {}
    host.told(BOTH)
    assert host.drivers() == {"net0": "waiting", "disk0": "waiting"}
    host.agent(NET, "state", "ready")
    assert host.drivers() == {"net0": "ready", "disk0": "waiting"}
    (row,) = host.operator.ask("network_list", start=0).fields.networks
    assert (row.name, row.driver, row.mode, row.subnet) == ("lan", "net0", "nat", "10.9.0.0/24")


def test_requests_about_volumes_go_where_the_tenants_are_looked_for() -> None:
    host = Delegated()
    host.told(BOTH)
    host.agent(BLK, "state", "ready")
    host.agent(BLK, "volumes/root", "size_kib=4096 used_kib=0 origin=- users=- state=ok")
    (row,) = host.operator.ask("volume_list", start=0).fields.volumes
    assert (row.name, row.driver) == ("root", "disk0")
    frame = host.operator.sealed(
        "volume_change", driver="disk0", action="create", name="data", source="", size_kib=4096, offset=0,
        length=0, format="raw", sha256=bytes(32),
    )  # fmt: skip
    assert host.say(1, frame) == b""
    assert host.manager.read(host.place[BLK] + "/requests/1") == b"create data 4096"
    host.agent(BLK, "replies/1", "ok")
    reply = host.operator.took(host.received.pop(1))
    assert reply.kind == "volume_changed"


def test_a_guest_with_devices_waits_for_them_and_is_linked_by_builder() -> None:
    host = Delegated()
    host.told(BOTH)
    for domid in (NET, BLK):
        host.agent(domid, "state", "ready")
    frame = host.operator.sealed("guest_create", **host.create_fields(disks=[disk()], nics=[nic()]))
    assert host.say(1, frame) == b""
    guest = host.guests.find("web")
    assert guest is not None
    assert host.fake.links == {(guest.domid, BLK, b"vbd", 51712), (guest.domid, NET, b"vif", 0)}
    for path in (f"{BLK}/backend/vbd/{guest.domid}/51712", f"{NET}/backend/vif/{guest.domid}/0"):
        host.manager.write(f"/local/domain/{path}/hotplug-status", "connected")
    host.run()
    assert host.operator.took(host.received.pop(1)).kind == "started"


def test_what_is_withdrawn_is_not_there_and_comes_back() -> None:
    host = Delegated()
    host.told(BOTH)
    host.agent(NET, "state", "ready")
    host.told(f"disk0:blkback:{BLK}:ready", "")
    assert host.drivers() == {"disk0": "waiting"}
    assert host.operator.ask("network_list", start=0).fields.networks == []
    reply = host.operator.ask("guest_create", **host.create_fields(nics=[nic()]))
    assert (reply.kind, reply.fields.errno) == ("error", ENOENT)
    host.told(BOTH)
    assert host.drivers() == {"net0": "ready", "disk0": "waiting"}


def test_a_driver_domain_that_ends_fails_its_devices_until_it_is_back() -> None:
    host = Delegated()
    host.told(BOTH)
    host.agent(NET, "state", "ready")
    host.manager.rm(host.place[NET])
    host.run()
    assert host.drivers()["net0"] == "waiting"
    host.told(BOTH)
    host.agent(NET, "state", "ready")
    assert host.drivers()["net0"] == "ready"
    host.agent(NET, "note", "no card")
    host.agent(NET, "state", "failed")
    assert host.drivers()["net0"] == "failed"


@pytest.mark.parametrize(
    "rubbish",
    [
        "net0",
        "net0:netback:0:ready",
        "net0:pciback:6:ready",
        "N:netback:6:ready",
        "net0:netback:6",
        ":::",
        "x:netback:99999:ready",
        "\xff",
    ],
)
def test_words_that_make_no_sense_are_no_driver_domains(rubbish: str) -> None:
    host = Delegated()
    host.told(rubbish, rubbish)
    assert host.drivers() == {}
    assert host.operator.ask("network_list", start=0).fields.networks == []


def test_a_device_of_what_is_withdrawn_and_delegated_again_is_as_its_driver_domain_says() -> None:
    host = Delegated()
    host.told(BOTH)
    host.agent(NET, "state", "ready")
    host.say(1, host.operator.sealed("guest_create", **host.create_fields(nics=[nic()])))
    guest = host.guests.find("web")
    assert guest is not None
    back = f"/local/domain/{NET}/backend/vif/{guest.domid}/0"

    def state(*nodes: tuple[str, str]) -> str:
        for name, value in nodes:
            host.manager.write(f"{back}/{name}", value)
        host.run()
        return str(guest.devices[0].state)

    assert state(("hotplug-status", "connected"), ("state", "4")) == "connected"
    host.told("", "")
    host.manager.rm(host.place[NET])
    assert state(("hotplug-error", "not delegated"), ("hotplug-status", "error")) == "failed"
    host.told(BOTH)
    host.agent(NET, "state", "ready")
    assert state(("hotplug-status", "connected")) == "connected"


def test_said_again_what_the_two_said_to_each_other_stays(host: DelegatingHost) -> None:
    host.delegate()
    host.client(NET).write(HOME + "/service/state", "ready")
    host.client(ACME).write(HOME + "/requests/1", "create a 4096")
    assert host.delegate().kind == "done"
    assert host.read(HOME + "/service/state", ACME) == "ready"
    assert host.read(HOME + "/requests/1", NET) == "create a 4096"


# a tenant's Toolstack that begins anew


def with_devices() -> tuple[Delegated, int]:
    host = Delegated()
    host.told(BOTH)
    for domid in (NET, BLK):
        host.agent(domid, "state", "ready")
    fields = host.create_fields(disks=[disk()], nics=[nic(address="10.9.0.2")])
    host.say(1, host.operator.sealed("guest_create", **fields))
    for path in (f"{NET}/backend/vif/5/0", f"{BLK}/backend/vbd/5/51712"):
        host.manager.write(f"/local/domain/{path}/hotplug-status", "connected")
        host.manager.write(f"/local/domain/{path}/state", "4")
    host.run()
    assert host.operator.took(host.received.pop(1)).kind == "started"
    return host, host.guests.all[0].domid


def shown(host: Delegated) -> Any:
    return host.operator.ask("guest_show", name="web").fields


class LateEvents(Client):
    """Hears of an event as late as XenStore may say it: before the answer to a later request, no sooner."""

    def __init__(self, *ends: Any) -> None:
        super().__init__(*ends)
        self.held: list[tuple[str, str]] = []
        self.due: list[tuple[str, str]] = []

    def poll(self) -> bool:
        moved = super().poll()
        self.held += self._events
        self._events = []
        return moved

    def request(self, kind: int, payload: bytes, transaction: int = 0) -> int:
        number = super().request(kind, payload, transaction)
        self.due += self.held
        self.held = []
        return number

    def take_event(self) -> tuple[str, str] | None:
        return self.due.pop(0) if self.due else None

    @property
    def idle(self) -> bool:
        return not self.due and super().idle


def test_the_next_life_serves_nobody_before_it_has_heard_what_is_delegated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Delegated()
    host.told(BOTH)
    for domid in (NET, BLK):
        host.agent(domid, "state", "ready")
    monkeypatch.setattr("toolstack_host.Client", LateEvents)
    host.agent(NET, "networks/lan", "up")
    host.agent(BLK, "volumes/root", "size_kib=4096 used_kib=0 origin=- users=- state=ok")
    host.begin_anew()
    while not host.toolstack.begun:
        host.run(1)
    toolstack: Any = host.toolstack
    assert [(driver.name, driver.state) for driver in toolstack.drivers.all] == [
        ("net0", "ready"),
        ("disk0", "ready"),
    ]
    assert toolstack.networks.find("lan").state == "up"
    assert toolstack.volumes._volumes["disk0"]["root"].size_kib == 4096


def begun_anew(words: str) -> Delegated:
    """A host whose driver domains have said nothing yet to the Toolstack that begins anew."""
    host = Delegated()
    host.told(words)
    host.begin_anew()
    host.run()
    return host


def test_the_next_one_serves_nobody_before_driver_domains_have_said_that_they_serve() -> None:
    host = begun_anew(BOTH)
    assert not host.toolstack.begun
    host.agent(NET, "state", "ready")
    assert not host.toolstack.begun
    host.agent(BLK, "state", "failed")
    assert host.toolstack.begun


def test_it_serves_at_once_if_none_serves_or_what_served_is_withdrawn() -> None:
    host = begun_anew(BOTH.replace("ready", "starting"))
    assert host.toolstack.begun
    host = begun_anew(BOTH)
    host.told("")
    assert host.toolstack.begun


def test_driver_domains_that_say_nothing_are_waited_for_a_minute() -> None:
    host = begun_anew(BOTH)
    host.now += 59_000
    host.run()
    assert not host.toolstack.begun
    host.now += 1_000
    host.run()
    assert host.toolstack.begun


def test_devices_are_where_they_were_in_the_next_life() -> None:
    host, domid = with_devices()
    before = shown(host)
    assert [row.state for row in before.disks + before.nics] == ["connected", "connected"]
    host.begin_anew()
    host.run()
    host.operator = Operator(host, 2)
    assert shown(host) == before
    assert host.drivers() == {"net0": "ready", "disk0": "ready"} and host.fake.requests.count("plug") == 2
    host.manager.write(f"/local/domain/{BLK}/backend/vbd/{domid}/51712/state", "6")
    host.run()
    assert shown(host).disks[0].state == "closing"
    reply = host.operator.ask("nic_attach", guest="web", nic=nic(address="10.9.0.2"), timeout_ms=1000)
    assert "has the address" in reply.fields.text
    assert host.operator.ask("guest_destroy", name="web").kind == "done"
    assert not host.fake.links and not host.fake.domains


def test_devices_are_there_also_if_driver_domains_take_their_time_to_speak_to_the_next_life() -> None:
    host, _ = with_devices()
    before = shown(host)
    for domid in (NET, BLK):
        host.manager.rm(f"{host.place[domid]}/service/state")
    host.begin_anew()
    host.run()
    for domid in (NET, BLK):
        host.agent(domid, "state", "ready")
    host.operator = Operator(host, 2)
    assert shown(host) == before
    assert [row.restarts for row in host.operator.ask("driver_list", start=0).fields.drivers] == [0, 0]


def test_a_device_that_is_to_be_unplugged_goes_in_the_next_life() -> None:
    host, domid = with_devices()
    fields = {"guest": "web", "device": "xvda", "timeout_ms": 1000}
    assert host.say(1, host.operator.sealed("disk_detach", **fields)) == b""
    assert not host.toolstack.idle, "an operator waits"
    host.begin_anew()
    host.run()
    host.operator = Operator(host, 2)
    assert shown(host).disks[0].state == "closing"
    host.manager.write(f"/local/domain/{BLK}/backend/vbd/{domid}/51712/state", "6")
    host.run()
    assert shown(host).disks == [] and len(host.fake.links) == 1
    host.begin_anew()
    host.run()
    host.operator = Operator(host, 3)
    assert shown(host).disks == [] and len(shown(host).nics) == 1


def test_a_device_that_was_only_linked_goes() -> None:
    host, _ = with_devices()
    host.fake.hold = {"plug"}
    fields = {"guest": "web", "disk": disk("xvdb", "data"), "timeout_ms": 1000}
    assert host.say(1, host.operator.sealed("disk_attach", **fields)) == b""
    held, host.fake.held = host.fake.held, []
    host.fake.hold = set()
    host.begin_anew()
    for message in held:
        host.fake.answer(message)
    assert len(host.fake.links) == 3
    host.run()
    host.operator = Operator(host, 2)
    assert len(shown(host).disks) == 1 and len(host.fake.links) == 2


def test_a_handle_rests_in_the_next_life_too() -> None:
    host, domid = with_devices()
    host.say(1, host.operator.sealed("nic_detach", guest="web", handle=0, timeout_ms=1000))
    host.manager.write(f"/local/domain/{NET}/backend/vif/{domid}/0/state", "6")
    host.run()
    host.begin_anew()
    host.run()
    host.operator = Operator(host, 2)
    host.operator.host.say(2, host.operator.sealed("nic_attach", guest="web", nic=nic(), timeout_ms=1000))
    assert [device.number for device in host.guests.all[0].devices if device.kind == "vif"] == [1]


def test_devices_of_a_driver_domain_that_is_not_delegated_any_more_are_still_there() -> None:
    host, _ = with_devices()
    host.told(f"net0:netback:{NET}:ready")
    host.begin_anew()
    host.run()
    host.operator = Operator(host, 2)
    assert shown(host).disks[0].driver == "disk0" and host.drivers() == {"net0": "ready"}
    assert "not delegated" in host.guests.all[0].devices[0].driver.note


@pytest.mark.parametrize(
    "changes",
    [{"guest": b"x" * 16}, {"driver": "net0"}, {"device": "sda"}, {"driver_domid": 0}, {"device": "xvda"}],
)
def test_a_device_that_can_not_be_is_dropped(changes: dict[str, Any]) -> None:
    host, _ = with_devices()
    guest = host.guests.all[0]
    fields = {"guest": guest.config.uuid, "driver_domid": BLK, "plugged": 1, "lost": 0, "closing": 0}
    fields.update({"device": "xvdb", "driver": "disk0", "volume": "data", "mode": "w"})
    host.shelf.records.append(encode("kept_disk", 99, **{**fields, **changes}))
    host.begin_anew()
    host.run()
    host.operator = Operator(host, 2)
    assert len(shown(host).disks) == 1
    assert [line for line in host.reports if "a record of the last life is dropped" in line]
