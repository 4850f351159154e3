"""Who may have whom rolled back, and what a rollback is told as."""

from __future__ import annotations

import pytest
from tests.unit.microreboot.fake_machine import FakeDomain, FakeMachine

from xoar.abi import xen as abi
from xoar.microreboot.restorer import (
    CRASHES,
    DEMAND_PACE,
    ITSELF,
    START,
    TIMER,
    Kick,
    Restorer,
    Rollback,
    Target,
)

LIFE = 3
LOGIC, STORE, TOOLS, CLOCK, OWN = 11, 12, 13, 21, 22  # ports
SECOND = 1_000_000_000


class Host:
    def __init__(self) -> None:
        self.domains = {7: FakeDomain(8), 8: FakeDomain(4)}
        self.machine = FakeMachine(self.domains)
        self.told: list[Rollback] = []
        self.said: list[str] = []
        self.restorer = Restorer(
            self.machine,
            [
                Target("logic", 7, 8, LOGIC, 0, [range(2, 3)], [], []),
                Target("clock", 8, 4, CLOCK, 60, [], [range(1, 2)], [range(2, 3)]),
            ],
            {
                STORE: Kick("xenstore", "logic", True),
                TOOLS: Kick("toolstack", "logic", False),
                OWN: Kick("clock", "clock", False),
            },
            LIFE,
            self.told.append,
            self.said.append,
        )

    def life(self, domid: int) -> int:
        return self.domains[domid].word(LIFE)


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_shard_asks_for_its_snapshot_and_is_woken(host: Host) -> None:
    host.restorer.turn([LOGIC])
    assert host.life(7) == 1 and host.life(8) == 0
    assert sorted(host.machine.notified) == [LOGIC, STORE]
    assert [(told.target, told.cause, told.life) for told in host.told] == [("logic", START, 1)]


def test_a_second_snapshot_is_never_taken(host: Host) -> None:
    host.restorer.turn([LOGIC])
    host.domains[7].write(100, b"planted")
    host.restorer.turn([LOGIC, LOGIC])
    host.restorer.turn([STORE])
    assert host.domains[7].page(0) == bytes(4096)
    assert [told.cause for told in host.told] == [START, "xenstore"]


def test_who_asked_who_speaks_with_the_shard_and_the_shard_hear_of_a_rollback(host: Host) -> None:
    host.restorer.turn([LOGIC])
    host.machine.notified.clear()
    host.machine.time += DEMAND_PACE
    host.restorer.turn([TOOLS])
    assert sorted(host.machine.notified) == [LOGIC, STORE, TOOLS]
    assert host.life(7) == 2
    assert host.told[-1].cause == "toolstack" and host.told[-1].reason is None
    host.machine.notified.clear()
    host.restorer.turn([STORE])
    assert sorted(host.machine.notified) == [LOGIC, STORE]


def test_before_the_snapshot_there_is_nothing_to_roll_back(host: Host) -> None:
    host.restorer.turn([STORE, TOOLS])
    assert host.told == [] and host.machine.notified == []


def test_many_signals_are_one_rollback_and_strange_ports_none(host: Host) -> None:
    host.restorer.turn([LOGIC])
    host.restorer.turn([99, STORE])
    assert host.life(7) == 2


def test_the_timer_starts_anew_with_each_life(host: Host) -> None:
    assert host.restorer.deadline() is None
    host.restorer.turn([CLOCK])
    deadline = host.restorer.deadline()
    assert deadline is not None and 59 * SECOND < deadline < 61 * SECOND
    host.machine.time = deadline - SECOND
    host.restorer.turn([])
    assert host.life(8) == 1
    host.machine.time = deadline
    host.restorer.turn([])
    assert host.life(8) == 2 and host.told[-1].cause == TIMER
    again = host.restorer.deadline()
    assert again is not None and again > deadline + 59 * SECOND


def test_a_crash_is_told(host: Host) -> None:
    host.restorer.turn([LOGIC])
    host.domains[7].reason = abi.SHUTDOWN_crash
    host.restorer.turn([STORE])
    assert host.told[-1].reason == abi.SHUTDOWN_crash


def test_a_shard_that_fails_in_each_life_is_reported_once(host: Host) -> None:
    host.restorer.turn([LOGIC])
    for number in range(1, 2 * CRASHES):
        host.domains[7].reason = abi.SHUTDOWN_crash
        host.restorer.turn([STORE])
        assert host.said == (["restorer: logic has ended in 3 lives in a row"] if number >= CRASHES else [])
    host.restorer.turn([STORE])
    for _ in range(CRASHES - 1):
        host.domains[7].reason = abi.SHUTDOWN_poweroff
        host.restorer.turn([STORE])
    assert len(host.said) == 1


def test_a_shard_that_is_gone_is_given_up_and_the_others_are_not(host: Host) -> None:
    host.restorer.turn([LOGIC, CLOCK])
    host.domains[7].gone = True
    host.restorer.turn([STORE])
    host.restorer.turn([STORE])
    assert len(host.said) == 1 and "logic can't be rolled back any more" in host.said[0]
    deadline = host.restorer.deadline()
    assert deadline is not None
    host.machine.time = deadline
    host.restorer.turn([])
    assert host.life(8) == 2


def test_without_room_there_is_no_snapshot_and_the_shard_waits(host: Host) -> None:
    host.machine.room_pages = 0
    host.domains[7].write(0, b"content")
    host.restorer.turn([LOGIC])
    host.restorer.turn([LOGIC, STORE])
    assert len(host.said) == 1 and "no snapshot of logic" in host.said[0]
    assert host.life(7) == 0


def test_who_asks_for_a_shard_that_ends_in_each_life_waits_longer_each_time(host: Host) -> None:
    host.restorer.turn([LOGIC])
    waits = []
    for _ in range(9):
        begun = host.machine.time
        host.domains[7].reason = abi.SHUTDOWN_crash
        host.restorer.turn([TOOLS])
        due = host.restorer.deadline()
        assert due is not None
        waits.append((due - begun) / SECOND)
        host.machine.time = max(due, begun)
        host.restorer.turn([])
    assert waits[1] < 1 and waits[4] > 10 and 190 < waits[-1] < 210


def test_who_asks_as_it_likes_is_served_at_a_pace_and_others_at_once(host: Host) -> None:
    host.restorer.turn([LOGIC])
    host.restorer.turn([TOOLS])
    host.restorer.turn([TOOLS])
    assert host.life(7) == 1
    due = host.restorer.deadline()
    assert due is not None
    host.restorer.turn([STORE])
    assert host.life(7) == 2
    host.machine.time = due
    host.restorer.turn([])
    assert host.life(7) == 3 and host.told[-1].cause == "toolstack"
    assert host.restorer.deadline() is None
    host.machine.time = due + 2 * DEMAND_PACE
    host.restorer.turn([TOOLS])
    assert host.life(7) == 4


def test_a_shard_may_ask_for_its_own_rollback_if_its_manifest_says_so(host: Host) -> None:
    host.restorer.turn([CLOCK, LOGIC])
    host.restorer.turn([CLOCK, LOGIC])
    assert host.life(8) == 1 and host.life(7) == 1
    host.restorer.turn([OWN])
    assert host.life(8) == 2 and host.told[-1].cause == ITSELF
    assert host.life(7) == 1


def test_a_shard_that_wrote_where_it_must_not_runs_no_more(host: Host) -> None:
    host.restorer.turn([CLOCK])
    host.domains[8].write(2 * 4096 + 5, b"another image")
    host.restorer.turn([OWN])
    assert host.domains[8].paused == 1
    assert host.said == ["restorer: clock can't be rolled back any more: it has written in its boot module"]
    host.restorer.turn([OWN])
    assert host.domains[8].paused == 1 and len(host.told) == 1
