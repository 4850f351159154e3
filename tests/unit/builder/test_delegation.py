"""Builder links guests to driver domains: of their Toolstack's own, by delegation, groups and quotas."""

from __future__ import annotations

from typing import Any

import pytest

from xoar.messages.errors import EBUSY, EEXIST, EIO, ENOENT, ENOSPC, EPERM

from .test_service import ACME, NET0, FakeChannel, World, message
from .test_tenants import TENANT, build, last

BOLT = "tenant-bolt"


@pytest.fixture
def world() -> World:
    world = World()
    world.ask("build_shard", name=TENANT)
    world.answer()
    world.toolstack.take()
    return world


def device(domid: int, number: int = 0, driver: str = "net0", kind: str = "vif") -> dict[str, Any]:
    return {"domid": domid, "driver": driver, "device_kind": kind, "number": number}


def ask(world: World, client: str, kind: str, **fields: Any) -> tuple[str, int]:
    """The answer's kind, and its error number or 0; servers answer meanwhile."""
    channel: FakeChannel = world.toolstack if client == "toolstack" else world.xen.opened[ACME]
    world.service.handle(client, message(kind, 7, **fields))
    world.answer()
    answered, values = last(channel)
    return answered, values.get("errno", 0)


def delegate(world: World, kind: str = "allow_delegation") -> tuple[str, int]:
    return ask(world, "toolstack", kind, driver="net0", toolstack=TENANT)


def test_a_guest_of_the_host_is_linked_by_xenstore(world: World) -> None:
    domid = world.built()
    world.service.handle("toolstack", message("plug", 7, **device(domid, 3)))
    assert not world.toolstack.sent, "XenStore has not answered"
    ((kind, _, fields),) = world.servers["xenstore"].sent
    assert (kind, fields) == (
        "make_back_end", {"domid": domid, "backend": NET0, "device_kind": "vif", "number": 3}
    )  # fmt: skip
    assert not world.servers["console"].sent
    world.answer()
    assert last(world.toolstack) == ("done", {})
    assert ask(world, "toolstack", "plug", **device(domid, 3)) == ("error", EEXIST)
    assert ask(world, "toolstack", "unplug", **device(domid, 3)) == ("done", 0)
    assert ask(world, "toolstack", "unplug", **device(domid, 3)) == ("error", ENOENT)


def test_a_tenants_guest_needs_a_delegation(world: World) -> None:
    domid = build(world)[1]["domid"]
    assert ask(world, TENANT, "plug", **device(domid)) == ("error", EPERM)
    assert delegate(world) == ("done", 0)
    assert ask(world, TENANT, "plug", **device(domid)) == ("done", 0)
    assert delegate(world, "withdraw_delegation") == ("done", 0)
    assert ask(world, TENANT, "plug", **device(domid, 1)) == ("error", EPERM)
    assert ask(world, TENANT, "unplug", **device(domid)) == ("done", 0)
    assert delegate(world, "withdraw_delegation") == ("error", ENOENT)


def test_nobody_delegates_what_is_not_there(world: World) -> None:
    for driver, toolstack in (("net9", TENANT), ("net0", BOLT), ("net0", "toolstack")):
        answer = ask(world, "toolstack", "allow_delegation", driver=driver, toolstack=toolstack)
        assert answer == ("error", ENOENT)


def test_only_the_parent_links_a_guest_and_only_a_guest_is_linked(world: World) -> None:
    delegate(world)
    hosts = world.built()
    for domid in (hosts, ACME, 1):
        assert ask(world, TENANT, "plug", **device(domid)) == ("error", EPERM)
    assert ask(world, "toolstack", "plug", **device(ACME)) == ("error", ENOENT)
    assert ask(world, "toolstack", "plug", **device(4000)) == ("error", ENOENT)


def test_devices_have_a_quota(world: World) -> None:
    delegate(world)
    domid = build(world)[1]["domid"]
    for number in range(3):
        assert ask(world, TENANT, "plug", **device(domid, number)) == ("done", 0)
    assert ask(world, TENANT, "plug", **device(domid, 3)) == ("error", ENOSPC)
    assert ask(world, TENANT, "unplug", **device(domid, 0)) == ("done", 0)
    assert ask(world, TENANT, "plug", **device(domid, 3)) == ("done", 0)


def test_a_guest_has_so_many_devices(world: World) -> None:
    domid = world.built()
    for number in range(16):
        assert ask(world, "toolstack", "plug", **device(domid, number)) == ("done", 0)
    assert ask(world, "toolstack", "plug", **device(domid, 16)) == ("error", EBUSY)


def test_a_driver_domain_serves_one_group_at_a_time_across_tenants(world: World) -> None:
    delegate(world)
    mine = build(world, group="red")[1]["domid"]
    assert ask(world, TENANT, "plug", **device(mine)) == ("done", 0)
    world.build(group="red")
    world.answer()
    hosts = last(world.toolstack)[1]["domid"]
    # the same word of another Toolstack is another group; and it does not hear the other's
    world.ask("plug", **device(hosts))
    kind, fields = last(world.toolstack)
    assert (kind, fields["errno"]) == ("error", EBUSY) and "red" not in fields["text"]
    assert ask(world, TENANT, "unplug", **device(mine)) == ("done", 0)
    assert ask(world, "toolstack", "plug", **device(hosts)) == ("done", 0)
    assert ask(world, TENANT, "plug", **device(mine)) == ("error", EBUSY)


def test_guests_without_a_group_share_whosever_they_are(world: World) -> None:
    delegate(world)
    mine, hosts = build(world)[1]["domid"], world.built()
    assert ask(world, TENANT, "plug", **device(mine)) == ("done", 0)
    assert ask(world, "toolstack", "plug", **device(hosts)) == ("done", 0)


def test_what_xenstore_refuses_is_not_linked(world: World) -> None:
    domid = world.built()
    world.ask("plug", **device(domid))
    world.answer("error", errno=ENOENT, text="domain 6 serves no devices yet")
    kind, fields = last(world.toolstack)
    assert (kind, fields["errno"]) == ("error", EIO) and "serves no devices" in fields["text"]
    assert world.answer() == [("xenstore", "remove_back_end")], "perhaps only the answer was lost"
    assert ask(world, "toolstack", "plug", **device(domid)) == ("done", 0)


def test_a_guests_end_takes_its_links_and_a_driver_domains_end_those_to_it(world: World) -> None:
    delegate(world)
    domid = build(world)[1]["domid"]
    assert ask(world, TENANT, "plug", **device(domid)) == ("done", 0)
    world.service.handle(TENANT, message("destroy", 7, domid=domid))
    assert sorted(world.answer()) == [("console", "release"), ("xenstore", "release")]
    assert world.answer() == [("xenstore", "remove_back_end")]
    assert last(world.xen.opened[ACME]) == ("done", {})
    world.ask("quotas", start=0)
    assert last(world.toolstack)[1]["quotas"][0][4] == 0

    world.service._devices._claims["net0"] = []
    world.ask("build_shard", name="net0")
    world.answer()
    world.toolstack.take()
    other = world.built()
    assert ask(world, "toolstack", "plug", **device(other)) == ("done", 0)
    assert ask(world, "toolstack", "destroy", domid=NET0)[0] == "done"
    assert world.answer() == [], "the nodes have gone with the driver domain's"
    assert ask(world, "toolstack", "unplug", **device(other)) == ("error", ENOENT)


def test_a_guest_that_is_being_destroyed_is_not_linked(world: World) -> None:
    domid = world.built()
    world.xen.hold.add(domid)
    world.ask("destroy", domid=domid)
    world.answer()
    assert ask(world, "toolstack", "plug", **device(domid)) == ("error", ENOENT)
