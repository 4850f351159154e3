"""A Toolstack that ends at any moment and begins anew: its guests are what they were, or have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toolstack_host import TOOLSTACK, Host, ListShelf

from xoar.messages.codec import encode
from xoar.messages.errors import EBUSY, ENOENT, ENOSPC
from xoar.toolstack.builder import RENEWED
from xoar.toolstack.guests import MAX_QUICK_ENDS
from xoar.toolstack.memory import number_of
from xoar.toolstack.shelf import XenStoreShelf
from xoar.xenstore import paths
from xoar.xenstore.client import Client
from xoar.xenstore.errors import Refused

GUEST = (
    ("web", b"u" * 16, b"k" * 32, bytes(32), "", 65536, 1, "restart", "keep", ""),
    (5, 0, "running", 1, 0, "none", "", 10, 0, 0, b""),
)  # fmt: skip
NAMES = ("name", "uuid", "kernel", "ramdisk", "command_line", "memory_kib", "vcpus", "on_reboot", "on_crash",
         "group", "domid", "previous_domid", "state", "settled", "rebuild", "reason", "note", "started_ms",
         "restarts", "quick_ends", "resting")  # fmt: skip


def guest_record(number: int = 1, **changes: Any) -> bytes:
    return encode("kept_guest", number, **{**dict(zip(NAMES, GUEST[0] + GUEST[1], strict=True)), **changes})


class BuiltAgain(Host):
    """The Toolstack is a domain that is built again: its memory is in XenStore, and Builder cleans up."""

    def shelf_of(self, client: Client) -> tuple[Any, Callable[[], bool]]:
        self.server.release(TOOLSTACK)
        self.server.introduce(TOOLSTACK, memory=paths.memory(TOOLSTACK))
        self.ring.connection = self.server.connections[TOOLSTACK]
        client._wait = self.ring.serve
        shelf = XenStoreShelf(client, self.store, TOOLSTACK, self.reports.append)
        return shelf, lambda: shelf.settled

    def begin_anew(self) -> None:
        for domid in [domid for domid, state in self.fake.domains.items() if state == "paused"]:
            del self.fake.domains[domid]
            self.server.release(domid)
            self.fake.unlink(domid)
        super().begin_anew()

    def kept(self) -> list[str]:
        client = self.as_domain(TOOLSTACK)
        return client.directory(paths.memory(TOOLSTACK).decode())


KINDS = (Host, BuiltAgain)
both = pytest.mark.parametrize("kind", KINDS)


def domids(host: Host) -> dict[str, int]:
    return {row.name: row.domid for row in host.ask("guest_list", start=0).fields.guests}


@both
def test_guests_are_what_they_were(kind: type[Host]) -> None:
    host = kind()
    fields = host.create_fields("web", command_line="quiet", group="red", on_crash="restart")
    web = host.ask("guest_create", **fields).fields.domid
    host.create("mail")
    host.ask("guest_destroy", name="mail")
    host.now += 30_000
    host.fake.stop(web, "reboot")
    host.run()
    before = [host.ask("guest_show", name=name).fields for name in ("web", "mail")]
    requests = len(host.fake.requests)
    host.begin_anew()
    host.run()
    assert [host.ask("guest_show", name=name).fields for name in ("web", "mail")] == before
    assert before[0].restarts == 1 and before[0].previous_domid == web
    assert before[1].note == "destroyed by the operator"
    assert host.fake.requests[requests:] == ["domains"]
    assert host.toolstack.idle
    assert host.ask("guest_destroy", name="web").kind == "done"
    host.create("web")


@both
def test_what_stops_while_nobody_listens_is_dealt_with(kind: type[Host]) -> None:
    host = kind()
    web, mail, news = [host.create(name) for name in ("web", "mail", "news")]
    host.now += 60_000
    host.fake.stop(web, "reboot")
    host.fake.stop(mail, "crash")
    host.fake.stop(news, "vanished")
    host.begin_anew()
    host.run()
    assert domids(host) == {"web": 8, "mail": mail}
    assert host.state("mail") == "kept" and host.state("news") == "ended"
    assert host.ask("guest_show", name="news").fields.note == "its domain vanished"


def test_a_domain_that_no_record_knows_is_destroyed_but_not_a_younger_one() -> None:
    host = Host()
    host.create()
    host.shelf.records = []
    host.begin_anew()
    host.fake.hold = {"domains"}
    host.run()
    id = host.send("guest_create", **host.create_fields("mail"))
    host.run()
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].fields.domid == 6 and list(host.fake.domains) == [6]
    assert any("domain 5 is of no guest" in line for line in host.reports)


def test_nobody_is_served_before_it_is_known_what_there_is() -> None:
    host = Host()
    host.create()
    host.begin_anew()
    host.fake.hold = {"domains"}
    id = host.send("guest_destroy", name="web")
    host.run()
    assert (1, id) not in host.answers and not host.toolstack.idle
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].kind == "done"


def test_domains_of_others_are_left_alone() -> None:
    host = Host()
    host.fake.domains[40] = host.fake.domains[41] = "running"
    host.fake.parents[40] = "tenant-acme"
    host.shelf.records = [guest_record(domid=40), guest_record(2, name="mail", uuid=b"m" * 16, domid=3)]
    host.begin_anew()
    host.run()
    assert list(host.fake.domains) == [40]
    assert host.state("web") == host.state("mail") == "ended"
    assert [line for line in host.reports if "is not domain" in line]


@pytest.mark.parametrize("phase", ["build", "unpause"])
@both
def test_a_guest_that_was_being_created_is_gone(kind: type[Host], phase: str) -> None:
    host = kind()
    host.fake.hold = {phase}
    host.send("guest_create", **host.create_fields())
    host.run()
    host.fake.hold = set()
    host.fake.held = []
    host.begin_anew()
    host.run()
    assert not host.fake.domains and not host.guests.all
    guest = host.ask("guest_show", name="web").fields
    assert guest.state == "ended" and guest.note == "the Toolstack began anew while it was building"
    host.create("web")


@both
def test_one_that_was_being_rebooted_runs_again_but_not_for_ever(kind: type[Host]) -> None:
    host = kind()
    host.fake.hold = {"destroy"}
    host.fake.stop(host.create(), "reboot")
    for life in range(MAX_QUICK_ENDS):
        host.run()
        assert host.state() == "rebooting" or life
        host.fake.held = []
        host.fake.hold = {"build"}
        host.begin_anew()
    host.fake.hold = set()
    host.run()
    assert host.state() == "ended" and not host.fake.domains


@both
def test_a_destroy_that_was_asked_for_is_done(kind: type[Host]) -> None:
    host = kind()
    host.create()
    host.fake.hold = {"destroy"}
    host.send("guest_destroy", name="web")
    host.run()
    host.fake.held = []
    host.begin_anew()
    host.run()
    host.fake.hold = set()
    host.fake.fail = {"destroy"}  # somebody does it already
    host.fake.answer_held()
    host.run()
    host.fake.fail = set()
    host.now += 1000
    host.run()
    assert host.nothing_is_left()
    assert host.ask("guest_show", name="web").fields.note == "destroyed by the operator"


def test_builders_next_life_leaves_nothing_half_done() -> None:
    host = Host()
    host.create("web")
    host.fake.hold = {"build", "destroy", "domains"}
    ids = [host.send("guest_create", **host.create_fields("mail")), host.send("guest_destroy", name="web")]
    ids.append(host.send("ps", start=0))
    host.run()
    # it has done half of it, and does not answer
    host.fake.held = []
    host.fake.hold = set()
    host.fake.domains[9] = "paused"
    host.toolstack.builder_renewed()
    host.wake()
    host.run()
    host.now += 1000
    host.run()
    created, destroyed, listed = [host.answers[1, id] for id in ids]
    assert RENEWED in created.fields.text and listed.fields.text == RENEWED
    assert destroyed.kind == "done"
    assert host.nothing_is_left() and host.toolstack.idle


# what is idle


def test_idle_is_when_nothing_is_on_its_way() -> None:
    host = Host()
    assert not host.toolstack.idle
    host.run()
    assert host.toolstack.idle
    host.console.send("relay", 0, channel=1, data=b"\1")
    assert not host.toolstack.idle
    host.run()
    assert not host.toolstack.idle, "the rest of a message is to come"
    host.console.send("hangup", 0, channel=1)
    host.run()
    assert host.toolstack.idle
    for step in ("build", "unpause"):
        host.fake.hold = {step}
        host.send("guest_create", **host.create_fields(step))
        host.run()
        assert not host.toolstack.idle
        host.fake.answer_held()
        host.run()
        assert host.toolstack.idle
    host.send("guest_shutdown", name="build", timeout_ms=100)
    host.run()
    assert not host.toolstack.idle
    host.now += 100
    host.run()
    assert host.toolstack.idle


def test_the_next_life_serves_a_stream_that_it_does_not_know() -> None:
    host = Host()
    host.create()
    host.begin_anew()
    assert list(domids(host)) == ["web"]


# where it is kept


def test_only_what_changes_is_written() -> None:
    host = BuiltAgain()
    for name in ("web", "mail"):
        host.create(name)
    web, mail = [f"/memory/{TOOLSTACK}/{number}" for number in sorted(host.kept(), key=int)]
    written: list[str] = []
    put = host.store.request
    host.store.request = lambda kind, payload, transaction=0: (  # type: ignore[method-assign]
        written.append(payload.split(b"\0")[0].decode()) or put(kind, payload, transaction)
    )
    host.ask("guest_destroy", name="web")
    assert web in written and mail not in written
    with pytest.raises(Refused, match="EACCES"):
        host.as_domain(6).read(mail)


def test_an_answer_waits_until_what_it_says_is_remembered() -> None:
    host = BuiltAgain()
    host.run()
    seen: list[bool] = []
    relayed = host.relayed

    def look(message: Any) -> None:
        seen.append(host.toolstack._is_settled() and len(host.kept()) == 1)
        relayed(message)

    host.relayed = look  # type: ignore[method-assign]
    host.create()
    assert seen == [True]


def test_what_xenstore_refuses_is_said_and_the_next_guest_is_refused() -> None:
    host = BuiltAgain()
    host.run()
    host.server.limits["node-size"] = 1000
    host.create(command_line="x" * 1000)
    assert any("not remembered" in line for line in host.reports)
    reply = host.ask("guest_create", **host.create_fields("mail"))
    assert (reply.kind, reply.fields.errno) == (
        "error",
        ENOSPC,
    ) and "can't remember more" in reply.fields.text
    host.server.limits["node-size"] = 3000
    host.ask("guest_destroy", name="web")
    host.create("mail")


def test_without_room_nothing_is_begun() -> None:
    host = Host()
    host.shelf.room = host.toolstack._reserve + 1900
    host.create()
    reply = host.ask("guest_create", **host.create_fields("mail"))
    assert (reply.kind, reply.fields.errno) == ("error", ENOSPC)
    assert host.fake.requests == ["domains", "build", "unpause"]


def test_what_is_left_of_strangers_in_the_memory_goes() -> None:
    host = BuiltAgain()
    client = host.as_domain(TOOLSTACK)
    for name in ("junk", "07", "7"):
        client.write(f"/memory/{TOOLSTACK}/{name}", "x")
    host.begin_anew()
    host.run()
    assert host.kept() == []


# hostile memory

BAD = {
    "no record": b"\0" * 40,
    "cut short": guest_record()[:-1],
    "another kind": encode("ps", 1, start=0),
    "no number": guest_record(0),
    "a zero uuid": guest_record(uuid=bytes(16)),
    "no memory": guest_record(memory_kib=4),
    "a domid that can't be": guest_record(domid=0x7FF4),
}


@pytest.mark.parametrize("what", BAD)
def test_a_record_that_can_not_be_is_dropped_with_a_line(what: str) -> None:
    host = Host(shelf=ListShelf(BAD[what]))
    host.run()
    assert not host.guests.all and not host.guests.ended
    assert len([line for line in host.reports if "a record of the last life is dropped" in line]) == 1
    assert host.shelf.records == []


@pytest.mark.parametrize(
    "second", [{"uuid": b"v" * 16, "domid": 6}, {"name": "b", "domid": 6}, {"name": "b", "uuid": b"v" * 16}]
)
def test_names_uuids_and_domids_are_unique(second: dict[str, Any]) -> None:
    host = Host(shelf=ListShelf(guest_record(1), guest_record(2, **second)))
    assert [guest.name for guest in host.guests.all] == ["web"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_in_the_memory_ends_the_toolstack(data: st.DataObject) -> None:
    host = Host()
    host.create("web")
    host.create("mail")
    records = host.shelf.records
    for position in range(len(records)):
        changed = bytearray(records[position])
        for _ in range(data.draw(st.integers(0, 3))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        records[position] = bytes(changed)
    records += data.draw(st.lists(st.binary(max_size=60), max_size=2))
    host.begin_anew()
    for _ in range(3):
        host.run()
        host.now += 30_000
    check(host)
    # three changed bytes of another record do not make this uuid
    host.create("news", uuid=b"n" * 16)


# any moment

OPERATIONS = ("create", "destroy", "shutdown", "reboot", "ends", "crashes", "reboots", "vanishes")


def check(host: Host) -> None:
    """Every domain is one guest's, and every guest is at rest."""
    host.fake.hold = set()
    for _ in range(4):
        host.run()
        host.now += 1000
    rows = host.ask("guest_list", start=0).fields.guests
    assert sorted(row.domid for row in rows) == sorted(host.fake.domains), host.reports
    assert len({row.name for row in rows}) == len(rows)
    assert {row.state for row in rows} <= {"running", "kept"}
    homes = {path.split("/")[3] for path in host.tree() if path.startswith("/local/domain/")}
    shards = {str(domid) for domid in (TOOLSTACK, *host.fake.late.values())}
    assert homes - shards == {str(row.domid) for row in rows}
    assert host.toolstack.idle


def operate(host: Host, what: str, name: str) -> int:
    """Begins something; the id of the request, 0 if it is none."""
    if what == "create":
        return host.send("guest_create", **host.create_fields(name))
    if what == "destroy":
        return host.send("guest_destroy", name=name)
    if what in ("shutdown", "reboot"):
        return host.send(f"guest_{what}", name=name, timeout_ms=100)
    guest = host.guests.find(name)
    if guest is not None and host.fake.domains.get(guest.domid) == "running":
        reasons = {"ends": "poweroff", "crashes": "crash", "reboots": "reboot", "vanishes": "vanished"}
        if what == "vanishes":
            host.server.release(guest.domid)
        host.fake.stop(guest.domid, reasons[what])
    return 0


STEP = st.tuples(
    st.sampled_from(OPERATIONS), st.sampled_from(("web", "mail")), st.integers(0, 14), st.booleans()
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=12))
def test_whenever_it_ends_no_guest_is_lost_or_doubled_or_half_built(
    kind: type[Host], steps: list[tuple[str, str, int, bool]]
) -> None:
    host = kind()
    started: set[str] = set()
    for what, name, turns, ends in steps:
        id = operate(host, what, name)
        host.run(turns)
        if (1, id) in host.answers and host.answers[1, id].kind == "started":
            started.add(name)
        if ends:
            host.begin_anew()
            host.run(turns)
    check(host)
    known = {guest.name for guest in host.guests.all + host.guests.ended}
    assert started <= known
    assert len(host.shelf.records) == len({number_of(record) for record in host.shelf.records})


@pytest.mark.parametrize("errno", [EBUSY, ENOENT])
def test_a_stranger_that_can_not_be_destroyed_at_once_goes_later(errno: int) -> None:
    host = Host()
    host.create()
    host.shelf.records = []
    host.fake.fail = {"destroy"} if errno == EBUSY else set()
    if errno == ENOENT:
        host.fake.hold = {"destroy"}
    host.begin_anew()
    host.run()
    assert not host.toolstack.idle
    host.fake.fail = set()
    host.fake.answer_held()
    host.now += 1000
    host.run()
    assert not host.fake.domains and host.toolstack.idle
