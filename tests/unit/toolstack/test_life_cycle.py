"""Guests from create to their end, with the real XenStore, and with a failure at every step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toolstack_host import Host

from xoar.toolstack.guests import MAX_GUESTS


def test_a_created_guest_runs_and_has_its_records() -> None:
    host = Host()
    domid = host.create("web", vcpus=2)
    assert host.fake.domains == {domid: "running"}
    store = host.as_domain(99)
    home = f"/local/domain/{domid}"
    vm = "/vm/00000000-0000-0000-0000-000000000001"
    values = {
        "name": "web", "domid": str(domid), "vm": vm, "memory/target": "65536", "memory/static-max": "65536",
        "store/ring-ref": "11", "store/port": "1", "console/ring-ref": "12", "console/port": "2",
        "console/type": "xenconsoled", "console/limit": "1048576", "cpu/0/availability": "online",
        "cpu/1/availability": "online", "control/shutdown": "",
        "control/platform-feature-xs_reset_watches": "1",
    }  # fmt: skip
    for path, value in values.items():
        assert store.read(f"{home}/{path}").decode() == value, path
    assert store.read(vm + "/name") == b"web"
    assert store.read(vm + "/uuid") == vm[4:].encode()


def test_the_guest_may_read_its_records_and_write_only_its_own() -> None:
    host = Host()
    domid, other = host.create("web"), host.create("other")
    guest = host.as_domain(domid)
    home = f"/local/domain/{domid}"
    assert guest.read(home + "/name") == b"web"
    guest.write(home + "/control/feature-poweroff", "1")
    guest.write(home + "/control/shutdown", "")
    guest.write(home + "/data/anything", "x")
    for path in (home + "/name", home + "/memory/target", home + "/console/port", home + "/new"):
        with pytest.raises(Exception, match="EACCES"):
            guest.write(path, "x")
    with pytest.raises(Exception, match="EACCES"):
        guest.read(f"/local/domain/{other}/name")


def test_a_destroyed_guest_leaves_nothing() -> None:
    host = Host()
    host.create()
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.nothing_is_left()
    assert host.fake.requests == ["domains", "build", "unpause", "destroy"]


@pytest.mark.parametrize("step", ["build", "unpause"])
def test_a_create_that_fails_in_builder_takes_everything_back(step: str) -> None:
    host = Host()
    host.fake.fail = {step}
    reply = host.ask("guest_create", **host.create_fields())
    assert (reply.kind, reply.fields.errno) == ("error", 12)
    assert f"{step} fails in this test" in reply.fields.text
    assert host.nothing_is_left()
    host.fake.fail = set()
    host.create()


def test_a_create_whose_records_are_refused_takes_the_domain_back() -> None:
    host = Host()
    host.server.limits["nodes"] = 2
    reply = host.ask("guest_create", **host.create_fields())
    assert reply.kind == "error" and "XenStore refused" in reply.fields.text
    assert not host.fake.domains and not host.guests.all


def test_a_broken_xenstore_link_fails_requests_and_not_the_toolstack() -> None:
    host = Host()
    host.create("old")
    host.store_page.words[2060 // 4] = 0x80000000
    host.serve_store = False
    reply = host.ask("guest_create", **host.create_fields())
    assert reply.kind == "error" and "EIO" in reply.fields.text
    assert "web" not in [guest.name for guest in host.guests.all]
    assert list(host.fake.domains.values()) == ["running"]
    assert host.ask("guest_list", start=0).kind == "guests"


def test_a_broken_builder_link_fails_requests_and_not_the_toolstack() -> None:
    host = Host()
    host.create("old")
    host.fake.hold = {"build"}
    id = host.send("guest_create", **host.create_fields())
    host.run()
    host.builder_page.words[2060 // 4] += 0x8000
    host.wake()
    host.run()
    assert host.answers[1, id].kind == "error"
    assert host.ask("ps", start=0).kind == "error"
    assert host.ask("guest_list", start=0).fields.guests[0].name == "old"


def test_a_guest_that_powers_off_when_asked_is_gone() -> None:
    host = Host()
    domid = host.create()
    id = host.send("guest_shutdown", name="web", timeout_ms=5000)
    host.run()
    assert (1, id) not in host.answers
    assert host.as_domain(99).read(f"/local/domain/{domid}/control/shutdown") == b"poweroff"
    assert host.state() == "stopping"
    host.fake.stop(domid, "poweroff")
    host.run()
    assert host.answers[1, id].kind == "done"
    assert host.nothing_is_left()


def test_a_guest_that_ignores_a_shutdown_is_reported_and_runs_on() -> None:
    host = Host()
    host.create()
    id = host.send("guest_shutdown", name="web", timeout_ms=5000)
    host.run()
    assert host.guests.deadline_ms() == host.now + 5000
    host.now += 5000
    host.run()
    assert host.answers[1, id].fields.errno == 110
    assert host.answers[1, id].fields.text == "guest web did not shut down in time; it still runs"
    assert host.state() == "running"
    assert host.guests.deadline_ms() is None


def test_an_operators_reboot_brings_the_guest_back_as_a_new_domain() -> None:
    host = Host()
    domid = host.create()
    id = host.send("guest_reboot", name="web", timeout_ms=5000)
    host.run()
    host.fake.stop(domid, "reboot")
    host.run()
    reply = host.answers[1, id]
    assert reply.kind == "started" and reply.fields.domid != domid
    guest = host.ask("guest_show", name="web").fields
    assert (guest.state, guest.previous_domid, guest.restarts) == ("running", domid, 1)
    assert host.fake.domains == {reply.fields.domid: "running"}
    assert not [path for path in host.tree() if path.startswith(f"/local/domain/{domid}/")]
    assert host.as_domain(99).read(f"/local/domain/{reply.fields.domid}/name") == b"web"


def test_a_reboot_that_needs_longer_to_build_than_its_timeout_is_no_failure() -> None:
    host = Host()
    domid = host.create()
    id = host.send("guest_reboot", name="web", timeout_ms=5000)
    host.run()
    host.fake.hold = {"build"}
    host.fake.stop(domid, "reboot")
    host.run()
    host.now += 60000
    host.run()
    assert (1, id) not in host.answers
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].kind == "started"


def test_a_shutdown_that_a_later_reboot_overrides_is_answered() -> None:
    host = Host()
    domid = host.create()
    shutdown = host.send("guest_shutdown", name="web", timeout_ms=5000)
    host.run()
    reboot = host.send("guest_reboot", name="web", timeout_ms=5000)
    host.run()
    host.fake.stop(domid, "reboot")
    host.run()
    assert host.answers[1, reboot].kind == "started"
    assert "guest web was started again: it rebooted" in host.answers[1, shutdown].fields.text


def test_a_guest_that_reboots_itself_comes_back() -> None:
    host = Host()
    domid = host.create(on_reboot="restart")
    host.fake.stop(domid, "reboot")
    host.run()
    assert host.state() == "running"
    assert domid not in host.fake.domains and len(host.fake.domains) == 1


@pytest.mark.parametrize(
    ("reason", "setting", "action", "state"),
    [
        ("reboot", "on_reboot", "destroy", "ended"),
        ("reboot", "on_reboot", "keep", "kept"),
        ("soft_reset", "on_reboot", "restart", "running"),
        ("crash", "on_crash", "restart", "running"),
        ("crash", "on_crash", "destroy", "ended"),
        ("crash", "on_crash", "keep", "kept"),
        ("watchdog", "on_crash", "restart", "running"),
        ("suspend", "on_crash", "restart", "kept"),
        ("poweroff", "on_reboot", "restart", "ended"),
        ("vanished", "on_crash", "restart", "ended"),
    ],
)
def test_a_guest_that_ends_by_itself_meets_what_its_configuration_says(
    reason: str, setting: str, action: str, state: str
) -> None:
    host = Host()
    domid = host.create(**{setting: action})
    host.fake.stop(domid, reason)
    host.run()
    guest = host.ask("guest_show", name="web").fields
    assert guest.state == state
    if state == "ended":
        assert host.nothing_is_left()
        assert guest.reason == reason and guest.note
    assert any(f"guest web (domain {domid})" in line for line in host.reports)


def test_a_kept_crashed_guest_can_be_destroyed_or_rebooted() -> None:
    host = Host()
    domid = host.create(on_crash="keep")
    host.fake.stop(domid, "crash")
    host.run()
    guest = host.ask("guest_show", name="web").fields
    assert (guest.state, guest.reason, guest.domid, guest.note) == ("kept", "crash", domid, "it crashed")
    assert host.ask("guest_reboot", name="web", timeout_ms=1000).kind == "started"
    host.fake.stop(host.ask("guest_show", name="web").fields.domid, "crash")
    host.run()
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.nothing_is_left()


def test_a_guest_that_crashes_again_and_again_is_kept() -> None:
    host = Host()
    domid = host.create(on_crash="restart")
    for _ in range(3):
        host.now += 1000
        host.fake.stop(domid, "crash")
        host.run()
        domid = host.ask("guest_show", name="web").fields.domid
    guest = host.ask("guest_show", name="web").fields
    assert (guest.state, guest.restarts) == ("kept", 2)
    assert "3 times right after its start" in guest.note


def test_a_guest_that_crashes_now_and_then_is_restarted_each_time() -> None:
    host = Host()
    domid = host.create(on_crash="restart")
    for _ in range(6):
        host.now += 60_000
        host.fake.stop(domid, "crash")
        host.run()
        domid = host.ask("guest_show", name="web").fields.domid
    assert host.state() == "running"


@pytest.mark.parametrize("step", ["build", "unpause"])
def test_a_guest_destroyed_while_it_is_created_leaves_nothing(step: str) -> None:
    host = Host()
    host.fake.hold = {step}
    creating = host.send("guest_create", **host.create_fields())
    host.run()
    destroying = host.send("guest_destroy", name="web")
    host.run()
    host.fake.answer_held()
    host.run()
    assert "destroyed by the operator" in host.answers[1, creating].fields.text
    assert host.answers[1, destroying].kind == "done"
    assert host.nothing_is_left()


def test_a_guest_destroyed_while_it_reboots_does_not_come_back() -> None:
    host = Host()
    domid = host.create()
    host.fake.hold = {"destroy"}
    host.fake.stop(domid, "reboot")
    host.run()
    id = host.send("guest_destroy", name="web")
    host.run()
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].kind == "done"
    assert host.nothing_is_left()


def test_a_guest_that_stops_before_its_start_was_confirmed_is_not_forgotten() -> None:
    host = Host()
    host.fake.hold = {"unpause"}
    id = host.send("guest_create", **host.create_fields(on_crash="destroy"))
    host.run()
    (domid,) = host.fake.domains
    host.fake.stop(domid, "crash")
    host.run()
    host.fake.answer_held()
    host.run()
    assert host.answers[1, id].kind == "started"
    assert host.nothing_is_left()


def test_a_guest_that_cannot_be_destroyed_is_kept_and_can_be_tried_again() -> None:
    host = Host()
    host.create()
    host.fake.fail = {"destroy"}
    reply = host.ask("guest_destroy", name="web")
    assert "could not be destroyed: destroy fails" in reply.fields.text
    assert host.state() == "kept"
    host.fake.fail = set()
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.nothing_is_left()


def test_a_rebuild_that_fails_is_reported_and_leaves_nothing() -> None:
    host = Host()
    domid = host.create()
    host.fake.fail = {"build"}
    host.fake.stop(domid, "reboot")
    host.run()
    assert host.nothing_is_left()
    assert any("guest web could not be built" in line for line in host.reports)


def test_several_requests_are_in_flight_at_once() -> None:
    host = Host()
    first = host.create("first")
    stopping = host.send("guest_shutdown", name="first", timeout_ms=5000)
    host.fake.hold = {"build"}
    creating = host.send("guest_create", **host.create_fields("second"))
    host.run()
    host.fake.stop(first, "poweroff")
    host.run()
    assert host.answers[1, stopping].kind == "done"
    assert (1, creating) not in host.answers
    host.fake.answer_held()
    host.run()
    assert host.answers[1, creating].kind == "started"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "taken"}, "there is a guest taken already"),
        ({"uuid": bytes(16)}, "uuid is zero"),
        ({"uuid": (1).to_bytes(16, "big")}, "guest taken has the same uuid"),
        ({"kernel": bytes(32)}, "no kernel"),
        ({"memory_kib": 4096}, "4096 KiB of memory"),
        ({"memory_kib": 65537}, "in steps of 4"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_is_done(
    changes: dict[str, object], text: str
) -> None:
    host = Host()
    host.create("taken")
    before = list(host.fake.requests)
    reply = host.ask("guest_create", **host.create_fields(**{"name": "web", **changes}))
    assert reply.kind == "error" and text in reply.fields.text
    assert host.fake.requests == before


def test_guests_are_bounded() -> None:
    host = Host()
    host.fake.hold = {"build"}
    for number in range(MAX_GUESTS + 1):
        host.send("guest_create", channel=1 + number // 10, **host.create_fields(f"g{number}"))
        host.run(3)
    assert len(host.guests.all) == MAX_GUESTS
    assert "the most allowed" in host.answers[1 + MAX_GUESTS // 10, host.last_id].fields.text


STEPS = st.one_of(
    st.sampled_from(["build", "unpause", "destroy"]).map(lambda kind: ("fail", kind)),
    st.sampled_from(["build", "unpause", "destroy"]).map(lambda kind: ("hold", kind)),
    st.sampled_from(["a", "b"]).map(lambda name: ("create", name)),
    st.sampled_from(["a", "b"]).map(lambda name: ("destroy", name)),
    st.sampled_from(["a", "b"]).map(lambda name: ("shutdown", name)),
    st.sampled_from(["a", "b"]).map(lambda name: ("reboot", name)),
    st.sampled_from(["crash", "reboot", "poweroff", "vanished"]).map(lambda reason: ("stop", reason)),
    st.integers(0, 30000).map(lambda ms: ("wait", ms)),
    st.just(("heal", "")),
)


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_every_request_is_answered_and_nothing_leaks(
    steps: list[tuple[str, object]],
) -> None:
    host = Host()
    for what, value in steps:
        if what == "fail":
            host.fake.fail.add(str(value))
        elif what == "hold":
            host.fake.hold.add(str(value))
        elif what == "heal":
            host.fake.fail.clear()
            host.fake.answer_held()
        elif what == "create":
            host.send(
                "guest_create", channel=host.last_id, **host.create_fields(str(value), on_crash="restart")
            )
        elif what == "destroy":
            host.send("guest_destroy", channel=host.last_id, name=value)
        elif what in ("shutdown", "reboot"):
            host.send("guest_" + what, channel=host.last_id, name=value, timeout_ms=1000)
        elif what == "stop":
            running = [domid for domid, state in host.fake.domains.items() if state == "running"]
            if running:
                host.fake.stop(running[0], str(value))
        else:
            host.now += int(str(value))
        host.run(6)
    host.fake.fail.clear()
    host.fake.answer_held()
    host.run()
    host.now += 100_000
    host.run()
    assert sorted(id for _, id in host.answers) == list(range(1, host.last_id + 1))
    for name in ("a", "b"):
        if host.guests.find(name):
            assert host.ask("guest_destroy", name=name).kind == "done"
    assert host.nothing_is_left()
