"""The journal of changed rights, and optional rights that Builder turns on and off."""

from __future__ import annotations

from typing import Any

import pytest

from xoar.builder import journal, plan
from xoar.builder.errors import ENODEV, BuildError
from xoar.builder.journal import DONE, MOST, Journal
from xoar.builder.permits import Permits
from xoar.messages.codec import encode
from xoar.messages.errors import ENOENT

from .test_service import World, message

CONSOLE = {"shard": "console", "security_class": "xen", "permission": "debug"}


@pytest.fixture
def world() -> World:
    return World()


def answer(world: World, kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    world.ask(kind, **fields)
    ((kind, _, reply),) = world.toolstack.take()
    return kind, reply


def permitted(world: World) -> list[tuple[str, str, str, int]]:
    kind, fields = answer(world, "permits", start=0)
    assert (kind, fields["more"]) == ("permit_list", 0)
    return list(fields["permits"])


def test_the_journal_keeps_the_newest_entries_and_counts_the_others() -> None:
    times = iter(range(1000))
    lines: list[str] = []
    kept = Journal(lambda: next(times), lines.append)
    for number in range(MOST + 3):
        kept.enter("toolstack", f"thing {number}", DONE)
    assert (kept.dropped, len(lines)) == (3, MOST + 3)
    first, more = kept.since(0, 2)
    assert (first, more) == (
        [(3, 3, "toolstack", "thing 3", DONE), (4, 4, "toolstack", "thing 4", DONE)],
        True,
    )
    last, more = kept.since(MOST + 2, 2)
    assert ([entry.what for entry in last], more) == ([f"thing {MOST + 2}"], False)
    assert kept.since(MOST + 3, 2) == ([], False)
    assert lines[0] == "builder: journal: toolstack: thing 0: done"


def test_what_fails_is_entered_with_the_reason_and_still_fails() -> None:
    kept = Journal(lambda: 0, lambda line: None)

    def refuse() -> None:
        raise BuildError(ENODEV, "no such card")

    def fail() -> None:
        raise OSError(1, "boolean x")

    for action in (refuse, fail):
        with pytest.raises((BuildError, OSError)):
            kept.attempt("toolstack", "something", action)
    kept.attempt("toolstack", "something", lambda: None)
    outcomes = [entry.outcome for entry in kept.since(0, 9)[0]]
    assert outcomes == ["refused: no such card", "Xen refused: error 1", DONE]


def test_who_is_refused_for_ever_does_not_fill_xens_log() -> None:
    lines: list[str] = []
    kept = Journal(lambda: 0, lines.append)
    for _ in range(1000):
        kept.enter("toolstack", "something", "refused: no")
    assert len(lines) == journal._MAX_PRINTED_REFUSALS
    kept.enter("toolstack", "something", DONE)
    assert lines[-1].endswith("something: done")


def test_entries_fit_into_messages_whatever_they_are_about() -> None:
    kept = Journal(lambda: 1, lambda line: None)
    for _ in range(20):
        kept.enter("\x00ü" * 99, "\n" * 999, "x" * 999)
    entries, more = kept.since(0, 16)
    assert more
    encode("journal_page", 1, more=1, dropped=0, now_ns=1, entries=entries)


def test_optional_rights_are_off_until_they_are_permitted_and_after_the_withdrawal(world: World) -> None:
    assert permitted(world) == [("console", "xen", "debug", 0), ("netback", "mmu", "stat", 0)]
    assert answer(world, "permit_hypercall", **CONSOLE, on=1) == ("done", {})
    assert world.xen.switched == [("console_xen_debug", True)]
    assert permitted(world)[0] == ("console", "xen", "debug", 1)
    # once more: it is so already
    assert answer(world, "permit_hypercall", **CONSOLE, on=1) == ("done", {})
    assert answer(world, "permit_hypercall", **CONSOLE, on=0) == ("done", {})
    assert world.xen.switched == [("console_xen_debug", True), ("console_xen_debug", False)]
    assert permitted(world)[0] == ("console", "xen", "debug", 0)


@pytest.mark.parametrize(
    "changes", [{"shard": "builder"}, {"security_class": "domain"}, {"permission": "kexec"}]
)
def test_what_no_manifest_states_as_optional_is_refused(world: World, changes: dict[str, str]) -> None:
    kind, fields = answer(world, "permit_hypercall", **{**CONSOLE, **changes}, on=1)
    assert (kind, fields["errno"]) == ("error", ENOENT)
    assert "no optional right" in fields["text"]
    assert world.xen.switched == []


def test_a_switch_that_xen_refuses_stays_as_it_is() -> None:
    def switch(boolean: str, on: bool) -> None:
        raise OSError(1, boolean)

    permits = Permits([plan.Optional("console", "xen", "debug", "console_xen_debug")], switch)
    with pytest.raises(OSError):
        permits.change("console", "xen", "debug", True)
    assert permits.rows(0, 9) == ([("console", "xen", "debug", 0)], False)


def test_the_journal_says_who_permitted_what_and_what_was_refused(world: World) -> None:
    answer(world, "permit_hypercall", **CONSOLE, on=1)
    answer(world, "permit_hypercall", **{**CONSOLE, "permission": "kexec"}, on=1)
    kind, fields = answer(world, "journal", start=0)
    assert (kind, fields["dropped"], fields["more"]) == ("journal_page", 0, 0)
    assert [entry[2:] for entry in fields["entries"]] == [
        ("toolstack", "permit xen.debug of console", "done"),
        (
            "toolstack",
            "permit xen.kexec of console",
            "refused: xen.kexec is no optional right of console's manifest",
        ),
    ]


def test_messages_that_a_shard_may_not_send_are_in_the_journal(world: World) -> None:
    world.ask("build_shard", name="tenant-acme")
    world.answer()
    world.toolstack.take()
    world.xen.reporters["tenant"]("refused a message from tenant: tenant may not send permit_hypercall")
    _, fields = answer(world, "journal", start=0)
    (entry,) = fields["entries"]
    assert entry[2:4] == ("tenant-acme", "a message")
    assert "may not send permit_hypercall" in entry[4]


def test_tenants_may_not_ask() -> None:
    from xoar.messages.schema import accepted

    own = {"permits", "permit_hypercall", "journal"}
    assert own <= accepted("toolstack", "builder")
    assert not own & accepted("tenant", "builder")
    assert not {"permit_change", "permit_show", "journal_show"} & accepted("operator", "tenant")
    assert message("permit_hypercall", 1, **CONSOLE, on=1).fields.shard == "console"
