"""Builder over rollbacks: what it remembers, what it undoes, and what it makes of a box by somebody."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xoar.builder.devices import Devices
from xoar.builder.journal import Journal
from xoar.builder.library import Library
from xoar.builder.service import Service
from xoar.host import bundle, compress
from xoar.messages.codec import encode
from xoar.messages.memory import Memory
from xoar.messages.remembered import REMEMBERED
from xoar.privilege.bootplan import FIRST_TENANT
from xoar.xen.box import Box

from .test_library import unpack
from .test_service import ACME, FIRST_GUEST, IMAGES, NET0, PCIBACK, PLAN, SHARDS, WINDOW, World, message

PACKED = bundle.pack(IMAGES, lambda entry: compress.compress_blocks(entry.content))


class Lives(World):
    """The same Builder, life after life."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Box(memoryview(bytearray(1 << 18)))
        self.said: list[str] = []
        self.roll_back()

    def roll_back(self) -> None:
        """What the box has is all that is left; the links are those of the boot."""
        self.journal = Journal(lambda: self.xen.time, lambda line: None)
        self.xen.opened.clear()
        self.service = Service(
            self.xen,
            Library(memoryview(PACKED), unpack),
            {"toolstack": self.toolstack},  # type: ignore[dict-item]
            self.servers,  # type: ignore[arg-type]
            PLAN,
            Devices(PLAN.drivers, [WINDOW]),
            self.journal,
            FIRST_GUEST,
        )
        service = self.service
        self.memory = Memory(
            "builder", self.box, service.remembers(), service.recalls(), self.journal, self.said.append
        )
        if self.memory.load():
            service.recalled()
        self.memory.store()

    def asked(self, kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        """A request that is answered at once."""
        self.ask(kind, **fields)
        self.answer()
        self.memory.store()
        ((answer, _, values),) = self.toolstack.take()
        return answer, values

    def seen(self) -> list[Any]:
        """All that Toolstack can ask for."""
        found: list[Any] = []
        for kind in ("domains", "quotas", "permits", "journal", "devices"):
            _, values = self.asked(kind, start=0)
            found.append({name: value for name, value in values.items() if name != "now_ns"})
        return found

    def from_pciback(self, kind: str, **fields: Any) -> None:
        self.service.handle("pciback", message(kind, 3, **fields))
        self.memory.store()


@pytest.fixture
def lives() -> Lives:
    return Lives()


def test_nothing_that_toolstack_can_see_changes_by_a_rollback(lives: Lives) -> None:
    guest = lives.built()
    assert lives.asked("unpause", domid=guest)[0] == "done"
    assert lives.asked("build_shard", name="tenant-acme")[0] == "built"
    assert lives.asked("build_shard", name="pciback")[0] == "built"
    bars = [(WINDOW[0], 4096)]
    lives.from_pciback("found", start=0, more=0, devices=[(256, 2, 3, 4), (512, 2, 3, 4)])
    lives.from_pciback("claim", driver="net0", bdf=256, bars=bars)
    lives.toolstack.take()
    assert lives.asked("build_shard", name="net0")[0] == "built"
    assert lives.asked("assign_pci_device", driver="net1", bdf=512)[0] == "done"
    assert lives.asked("withdraw_pci_device", driver="net1")[0] == "done"
    assert lives.asked("allow_delegation", driver="net0", toolstack="tenant-acme")[0] == "done"
    assert lives.asked("plug", domid=guest, driver="net0", device_kind="vif", number=0)[0] == "done"
    permit = {"shard": "console", "security_class": "xen", "permission": "debug"}
    assert lives.asked("permit_hypercall", **permit, on=1)[0] == "done"
    before = lives.seen()
    for _ in range(2):
        lives.roll_back()
        assert lives.seen() == before
        assert set(lives.xen.opened) == {ACME, PCIBACK}
    # and it goes on where it was
    assert lives.asked("plug", domid=guest, driver="net0", device_kind="vif", number=0)[0] == "error"
    assert lives.asked("unplug", domid=guest, driver="net0", device_kind="vif", number=0)[0] == "done"
    assert lives.built() == guest + 1
    assert lives.asked("destroy", domid=guest)[0] == "done"
    assert set(lives.xen.present) == set(SHARDS) | {guest + 1, ACME, PCIBACK, NET0}
    assert lives.said == []


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_domain_that_was_being_built_or_destroyed_goes(lives: Lives, at: str) -> None:
    there = lives.built()
    lives.memory.store()
    lives.build()
    if at == "after":  # as it was before the first message about it went out
        lives.memory.store()
    assert len(lives.xen.present) == len(SHARDS) + 2
    lives.roll_back()
    lives.answer()
    assert set(lives.xen.present) == set(SHARDS) | {there}
    lives.ask("destroy", 9, domid=there)
    lives.memory.store()
    lives.roll_back()
    lives.answer()
    assert set(lives.xen.present) == set(SHARDS)
    lives.service.domains_changed()
    assert lives.toolstack.take() == []
    assert lives.service._records.keys() - {0} == set(SHARDS)


def test_a_domain_that_is_still_dying_is_left_until_it_vanishes(lives: Lives) -> None:
    domid = lives.built()
    lives.xen.hold.add(domid)
    lives.ask("destroy", 9, domid=domid)
    lives.answer()
    lives.memory.store()
    lives.roll_back()
    assert lives.answer() == []
    del lives.xen.present[domid]
    lives.service.domains_changed()
    assert domid not in lives.service._records and lives.toolstack.take() == []


def test_a_permit_that_is_not_remembered_is_taken_back(lives: Lives) -> None:
    lives.built()
    lives.xen.switched.clear()
    lives.roll_back()
    assert ("console_xen_debug", False) in lives.xen.switched


def test_a_device_that_changed_hands_is_its_new_owners(lives: Lives) -> None:
    lives.asked("build_shard", name="pciback")
    lives.from_pciback("found", start=0, more=0, devices=[(256, 2, 3, 4)])
    lives.toolstack.take()
    lives.asked("withdraw_pci_device", driver="net0")
    assert lives.asked("assign_pci_device", driver="net1", bdf=256)[0] == "done"
    lives.roll_back()
    assert lives.said == []
    assert lives.asked("devices", start=0)[1]["devices"][0][-1] == "net1"


def domain(**changes: Any) -> bytes:
    fields = {
        "domid": 40,
        "name": "",
        "created": 5,
        "parent": "toolstack",
        "uuid": os.urandom(16),
        "memory_kib": 4096,
        "vcpus": 1,
        "group": "",
        "stage": "there",
        "started": 1,
        "reported": 0,
        "port": 0,
    }
    return encode("remember_domain", 0, **{**fields, **changes})


@pytest.mark.parametrize(
    "record",
    [
        domain(domid=3),
        domain(domid=12),
        domain(domid=FIRST_TENANT),
        domain(domid=40, name="console"),
        domain(domid=40, uuid=bytes(16)),
        domain(domid=40, name="pciback", uuid=bytes(16)),
        domain(domid=PCIBACK, name="pciback"),
        encode("remember_domid", 0, domid=3),
        encode("remember_link", 0, domid=40, driver="x", device_kind="vif", number=1, toolstack="t", group="")
        + b"\0",
        encode("remember_delegation", 0, driver="net0", toolstack="toolstack"),
        encode("remember_permit", 0, shard="guest", security_class="xen", permission="debug", on=1),
        encode(
            "remember_device",
            0,
            driver="net0",
            bdf=256,
            is_claimed=1,
            claimed=[(0, 4096)],
            is_given=0,
            given=[],
        ),
        encode("domains", 0, start=0),
        b"rubbish",
        b"",
    ],
)
def test_what_can_not_be_is_left_out_and_said(lives: Lives, record: bytes) -> None:
    guest = lives.built()
    lives.memory.store()
    lives.box.store([*lives.box.load(), record])
    before = {domid for domid in lives.service._records if domid}
    lives.roll_back()
    assert len(lives.said) == 1 and lives.said[0].startswith("builder: the recovery box: ")
    assert {domid for domid in lives.service._records if domid} == before
    assert lives.asked("destroy", domid=guest)[0] == "done"


KINDS = st.sampled_from([kind.number for kind in REMEMBERED])
ANY = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda number, body: number.to_bytes(4, "little") + bytes(4) + len(body).to_bytes(4, "little") + body,
        KINDS,
        st.binary(max_size=90),
    ),
)


@settings(deadline=None)
@given(st.lists(ANY, max_size=12))
def test_any_box_can_be_begun_with(records: list[bytes]) -> None:
    lives = Lives()
    lives.box.store(records)
    lives.roll_back()
    lives.roll_back()
    lives.answer()
    lives.toolstack.take()
    guest = lives.built()
    assert lives.asked("destroy", domid=guest)[0] == "done"
    assert lives.asked("journal", start=0)[0] == "journal_page"


def test_the_journal_goes_on_with_its_numbers_and_shows_what_is_damaged(lives: Lives) -> None:
    for _ in range(3):
        lives.asked("allow_delegation", driver="net0", toolstack="tenant-acme")
        lives.roll_back()
    _, page = lives.asked("journal", start=1)
    assert [entry.number for entry in page["entries"]] == [1, 2]
    kept = lives.box.load()
    damaged = [record[:-3] if record.startswith(b"\xb3\0\0\0") else record for record in kept]
    assert damaged != kept
    lives.box.store(damaged)
    lives.roll_back()
    _, page = lives.asked("journal", start=0)
    assert [entry.outcome for entry in page["entries"]] == ["this entry is damaged"] * 3
    lives.asked("allow_delegation", driver="net1", toolstack="tenant-acme")
    _, page = lives.asked("journal", start=3)
    assert [entry.number for entry in page["entries"]] == [3]


def test_the_oldest_entries_of_the_journal_make_room(lives: Lives) -> None:
    lives.box = Box(memoryview(bytearray(2 * 9000)))
    lives.roll_back()
    for number in range(20):
        lives.journal.enter("somebody", f"something {number}", "done")
    lives.memory.store()
    assert not lives.memory.full
    lives.roll_back()
    _, page = lives.asked("journal", start=19)
    assert [entry.what for entry in page["entries"]] == ["something 19"]
    assert 3 < page["dropped"] < 17


def test_what_could_not_be_remembered_is_refused(lives: Lives) -> None:
    lives.box = Box(memoryview(bytearray(2 * 8400)))
    lives.roll_back()
    lives.service.is_full = lambda: lives.memory.full
    there = []
    for _ in range(4):
        lives.build()
        lives.answer()
        lives.memory.store()
        ((kind, _, fields),) = lives.toolstack.take()
        if kind == "error":
            assert fields["text"] == "Builder has no room to remember more domains and devices"
            break
        there.append(fields["domid"])
    assert kind == "error" and there
    lives.roll_back()
    assert set(lives.xen.present) == {*SHARDS, *there}
    assert lives.asked("destroy", domid=there[0])[0] == "done"
    assert not lives.memory.full


def test_guests_never_get_the_domid_of_a_tenants_toolstack(lives: Lives) -> None:
    lives.memory.store()
    records = [record for record in lives.box.load() if not record.startswith(b"\xab\0\0\0")]
    lives.box.store([*records, encode("remember_domid", 0, domid=FIRST_TENANT - 1)])
    lives.roll_back()
    assert [lives.built() for _ in range(2)] == [FIRST_TENANT - 1, FIRST_GUEST]
