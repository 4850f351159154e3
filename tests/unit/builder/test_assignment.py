"""Devices that change hands while the host runs: Builder keeps which is whose."""

from __future__ import annotations

from typing import Any

import pytest

from xoar.messages.errors import EBUSY, EINVAL, ENOENT
from xoar.messages.records import FUNCTION

from .test_service import NET0, PCIBACK, World, message

NET1 = 7
NIC0, NIC1, DISK = 0x100, 0x200, 0x300
FOUND = [(NIC0, 0x020000, 0x8086, 0x10D3), (NIC1, 0x020000, 0x1AF4, 0x1041), (DISK, 0x010802, 1, 2)]


@pytest.fixture
def world() -> World:
    world = World()
    survey(world)
    return world


def ask(world: World, kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    world.ask(kind, **fields)
    world.answer()
    ((kind, _, reply),) = world.toolstack.take()
    return kind, reply


def pciback(world: World) -> list[str]:
    """Has PCIBack built; its words about devices."""
    assert ask(world, "build_shard", name="pciback")[0] == "built"
    return list(world.xen.words)


def survey(world: World, found: list[tuple[int, int, int, int]] = FOUND) -> None:
    """PCIBack comes, tells of devices, and goes."""
    pciback(world)
    rows = [FUNCTION.value(*row) for row in found]
    tell(world, "found", start=0, more=1, devices=rows[:1])
    assert world.toolstack.take() == []
    tell(world, "found", start=1, more=0, devices=rows[1:])
    assert [sent[:2] for sent in world.toolstack.take()] == [("surveyed", 0)]
    assert ask(world, "destroy", domid=PCIBACK)[0] == "done"


def tell(world: World, kind: str, **fields: Any) -> str:
    """A message of PCIBack's; the kind of the answer."""
    world.service.handle("pciback", message(kind, 9, **fields))
    ((answer, _, _),) = world.xen.opened[PCIBACK].take()
    return answer


def owners(world: World) -> dict[int, str]:
    kind, fields = ask(world, "devices", start=0)
    assert (kind, fields["more"]) == ("device_list", 0)
    return {row[0]: row[4] for row in fields["devices"]}


def assign(world: World, driver: str, bdf: int) -> tuple[int, str]:
    kind, fields = ask(world, "assign_pci_device", driver=driver, bdf=bdf)
    return (0, "") if kind == "done" else (fields["errno"], fields["text"])


def withdraw(world: World, driver: str) -> tuple[int, str]:
    kind, fields = ask(world, "withdraw_pci_device", driver=driver)
    return (0, "") if kind == "done" else (fields["errno"], fields["text"])


def start(world: World, driver: str, bdf: int, domid: int) -> None:
    """PCIBack comes, claims the device, the driver domain is built, PCIBack goes."""
    assert f"device={driver}:{domid}:{bdf}" in pciback(world)
    assert tell(world, "claim", driver=driver, bdf=bdf, bars=[(0xC0000000, 0x1000)]) == "done"
    world.toolstack.take()
    assert ask(world, "build_shard", name=driver)[0] == "built"
    assert (world.xen.assigned[domid], world.xen.device_memory[domid]) == (bdf, [(0xC0000000, 0x1000)])
    assert ask(world, "destroy", domid=PCIBACK)[0] == "done"


def test_the_boot_plan_says_whose_devices_are(world: World) -> None:
    assert owners(world) == {NIC0: "net0", NIC1: "", DISK: ""}


def test_a_device_is_assigned_used_withdrawn_and_assigned_to_another(world: World) -> None:
    assert pciback(world) == [f"device=net0:{NET0}:{NIC0}"]
    ask(world, "destroy", domid=PCIBACK)
    assert assign(world, "net1", NIC1) == (0, "")
    assert owners(world) == {NIC0: "net0", NIC1: "net1", DISK: ""}
    start(world, "net1", NIC1, NET1)

    assert withdraw(world, "net1") == (EBUSY, "net1 is there, as domain 7")
    assert ask(world, "destroy", domid=NET1)[0] == "done"
    assert withdraw(world, "net1") == (0, "")
    assert owners(world)[NIC1] == ""
    assert pciback(world) == [f"device=net0:{NET0}:{NIC0}", f"withdrawn={NIC1}"]
    ask(world, "destroy", domid=PCIBACK)

    assert withdraw(world, "net0") == (0, "")
    assert assign(world, "net0", NIC1) == (0, "")
    start(world, "net0", NIC1, NET0)
    # what was reset and handed out again is not reset once more; the other one is
    assert pciback(world) == [f"withdrawn={NIC0}"]


@pytest.mark.parametrize(
    ("driver", "bdf", "errno", "text"),
    [
        ("net0", NIC1, EBUSY, "net0 has 0000:01:00.0: withdraw that first"),
        ("net1", NIC0, EBUSY, "0000:01:00.0 is net0's"),
        ("net1", 0x400, ENOENT, "PCIBack has found no device at 0000:04:00.0"),
        ("net1", 0, ENOENT, "PCIBack has found no device at 0000:00:00.0"),
        ("net9", NIC1, ENOENT, "the boot plan has no driver domain net9"),
    ],
)
def test_what_cannot_be_assigned(world: World, driver: str, bdf: int, errno: int, text: str) -> None:
    before = owners(world)
    assert assign(world, driver, bdf) == (errno, text)
    assert owners(world) == before
    _, fields = ask(world, "journal", start=0)
    (entry,) = fields["entries"]
    assert entry.outcome == f"refused: {text}"


def test_what_cannot_be_withdrawn(world: World) -> None:
    assert withdraw(world, "net1") == (ENOENT, "net1 has no device")
    assert withdraw(world, "net9") == (ENOENT, "the boot plan has no driver domain net9")


def test_a_claim_for_a_device_that_was_withdrawn_counts_for_nothing(world: World) -> None:
    pciback(world)
    assert tell(world, "claim", driver="net0", bdf=NIC0, bars=[(0xC0000000, 0x1000)]) == "done"
    world.toolstack.take()
    assert withdraw(world, "net0") == (0, "")
    for bdf in (NIC0, 0):
        assert tell(world, "claim", driver="net0", bdf=bdf, bars=[(0xC0000000, 0x1000)]) == "error"
        ((kind, _, fields),) = world.toolstack.take()
        assert (kind, fields["state"]) == ("device", "failed")
    kind, fields = ask(world, "build_shard", name="net0")
    assert (kind, fields["errno"]) == ("error", ENOENT)


def test_changes_are_in_the_journal(world: World) -> None:
    assign(world, "net1", NIC1)
    withdraw(world, "net1")
    _, fields = ask(world, "journal", start=0)
    assert [(entry.what, entry.outcome) for entry in fields["entries"]] == [
        ("assign 0000:02:00.0 to net1", "done"),
        ("withdraw 0000:02:00.0 from net1", "done"),
    ]


def test_a_list_of_devices_must_be_whole_and_bounded(world: World) -> None:
    pciback(world)
    row = FUNCTION.value(*FOUND[0])
    for start_at in (1, 2, 4):
        world.service.handle("pciback", message("found", 9, start=start_at, more=0, devices=[row]))
        ((kind, _, fields),) = world.xen.opened[PCIBACK].take()
        assert (kind, fields["errno"]) == ("error", EINVAL)
    assert len(owners(world)) == 3
    for page in range(4):
        assert tell(world, "found", start=64 * page, more=1, devices=[row] * 64) == "done"
    assert tell(world, "found", start=256, more=0, devices=[row]) == "error"
