"""Builder keeps tenants' Toolstacks to their own guests and to their quotas."""

from __future__ import annotations

from typing import Any

import pytest

from xoar.messages.errors import EEXIST, EINVAL, ENOSPC, EPERM

from .test_service import ACME, FIRST_GUEST, FakeChannel, World, message

TENANT = "tenant-acme"


@pytest.fixture
def world() -> World:
    world = World()
    world.ask("build_shard", name=TENANT)
    assert sorted(world.answer()) == [("console", "introduce"), ("xenstore", "introduce")]
    ((kind, _, fields),) = world.toolstack.take()
    assert (kind, fields["domid"]) == ("built", ACME)
    return world


def ask(world: World, kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """What the tenant's Toolstack is answered."""
    world.service.handle(TENANT, message(kind, 7, **fields))
    world.answer()
    return last(world.xen.opened[ACME])


def last(channel: FakeChannel) -> tuple[str, dict[str, Any]]:
    ((kind, _, fields),) = channel.take()
    return kind, fields


def build(world: World, **changes: Any) -> tuple[str, dict[str, Any]]:
    world.build(TENANT, **changes)
    world.answer()
    return last(world.xen.opened[ACME])


def test_servers_hear_what_the_link_is_for_and_whose_domain_it_is(world: World) -> None:
    world.build(TENANT, uuid=bytes(range(16)))
    heard = {name: channel.sent[-1][2] for name, channel in world.servers.items()}
    expected = {"domid": FIRST_GUEST, "name": "", "parent": ACME, "uuid": bytes(range(16))}
    assert heard["xenstore"] == {**expected, "link": "xenstore", "gref": 1, "port": 12}
    assert heard["console"] == {**expected, "link": "console", "gref": 0, "port": 11}
    world = World()
    world.ask("build_shard", name=TENANT)
    expected = {"domid": ACME, "name": TENANT, "parent": 4, "uuid": bytes(16)}
    assert world.servers["console"].sent[-1][2] == {**expected, "link": "operator", "gref": 3, "port": 14}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"memory_kib": 65537},
            "the quota of tenant-acme is 65536 KiB: its guests have 0, this one needs 65537",
        ),
        ({"vcpus": 4}, "3 vCPUs: its guests have 0, this one needs 4"),
    ],
)
def test_a_guest_beyond_the_quota_is_refused_by_builder(
    world: World, changes: dict[str, Any], text: str
) -> None:
    kind, fields = build(world, **changes)
    assert (kind, fields["errno"]) == ("error", ENOSPC)
    assert text in fields["text"]
    assert FIRST_GUEST not in world.xen.present


def test_the_quota_is_for_all_guests_together_and_what_is_destroyed_counts_no_more(world: World) -> None:
    built = [build(world, memory_kib=32768)[1]["domid"] for _ in range(2)]
    kind, fields = build(world, memory_kib=4096)
    assert (kind, fields["errno"]) == ("error", ENOSPC)
    assert "2 guests" in fields["text"]
    assert ask(world, "destroy", domid=built[0])[0] == "done"
    assert build(world, memory_kib=32769)[0] == "error"
    assert build(world, memory_kib=32768)[0] == "built"
    # the host's own Toolstack has no quota
    assert world.built() > 0


def test_the_host_is_told_what_tenants_have_and_may_have(world: World) -> None:
    build(world, memory_kib=32768, vcpus=2)
    world.ask("quotas", start=0)
    assert last(world.toolstack) == (
        "quota_list",
        {"more": 0, "quotas": [(TENANT, 1, 32768, 2, 0, 2, 65536, 3, 3)]},
    )
    world.ask("quotas", start=1)
    assert last(world.toolstack)[1]["quotas"] == []


def test_a_uuid_is_used_once(world: World) -> None:
    assert build(world, uuid=b"u" * 16)[0] == "built"
    world.build(uuid=b"u" * 16)
    assert last(world.toolstack)[1]["errno"] == EEXIST
    assert build(world, uuid=bytes(16))[1]["errno"] == EINVAL


@pytest.mark.parametrize("kind", ["unpause", "destroy"])
def test_what_belongs_to_others_is_out_of_reach(world: World, kind: str) -> None:
    hosts = world.built()
    for domid in (hosts, ACME, *range(5)):
        answered, fields = ask(world, kind, domid=domid)
        assert (answered, fields["errno"]) == ("error", EPERM)
    mine = build(world)[1]["domid"]
    world.ask(kind, domid=mine)
    assert last(world.toolstack)[1]["errno"] == EPERM
    assert set(world.xen.present) >= {hosts, ACME, mine}


def test_a_tenant_sees_its_own_domains_and_memory(world: World) -> None:
    hosts = world.built()
    mine = build(world)[1]["domid"]
    _, fields = ask(world, "domains", start=0)
    assert [row[0] for row in fields["domains"]] == [mine, ACME]
    assert (fields["total_kib"], fields["free_kib"]) == (65536, 32768)
    world.ask("domains", start=5)
    _, fields = last(world.toolstack)
    assert {row[0]: row[9] for row in fields["domains"]} == {
        hosts: "toolstack",
        mine: TENANT,
        ACME: "toolstack",
    }


def test_guests_outlive_their_toolstack_which_gets_them_back(world: World) -> None:
    mine = build(world)[1]["domid"]
    assert ask(world, "unpause", domid=mine)[0] == "done"
    world.xen.end(ACME, 3)
    world.service.domains_changed()
    assert [kind for kind, _, _ in world.toolstack.take()] == ["stopped"]
    world.servers["console"].take(), world.servers["xenstore"].take()
    world.ask("destroy", domid=ACME)
    assert sorted(world.answer()) == [("console", "release"), ("xenstore", "release")]
    assert last(world.toolstack)[0] == "done"
    assert mine in world.xen.present
    world.ask("build_shard", name=TENANT)
    world.answer()
    assert last(world.toolstack)[0] == "built"
    assert ask(world, "destroy", domid=mine)[0] == "done"
