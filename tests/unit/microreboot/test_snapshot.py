"""A shard that is put back is what it was, whatever it or others have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.microreboot.fake_machine import FakeDomain, FakeMachine

from xoar.abi import xen as abi
from xoar.microreboot.restorer import Target
from xoar.microreboot.snapshot import PAGE, PHASES, Broken, Snapshot

FRAMES, SHARED, LIFE = 40, 5, 15
WRITES = st.lists(
    st.tuples(st.integers(0, FRAMES * PAGE - 300), st.binary(min_size=1, max_size=300)), max_size=12
)


def target(*untracked: int, kept: range = range(0), sealed: range = range(0)) -> Target:
    shared = [range(frame, frame + 1) for frame in untracked]
    return Target("shard", 7, FRAMES, 1, 0, shared, [kept], [sealed])


def started() -> tuple[FakeMachine, FakeDomain]:
    domain = FakeDomain(FRAMES)
    for frame in range(0, FRAMES, 3):
        domain.write(frame * PAGE + 100, b"content %d" % frame)
    domain.memory[LIFE * PAGE : (LIFE + 1) * PAGE] = bytes(PAGE)
    return FakeMachine({7: domain}), domain


@given(WRITES, WRITES, st.binary(max_size=300))
def test_all_pages_are_restored(
    first: list[tuple[int, bytes]], then: list[tuple[int, bytes]], by_grant: bytes
) -> None:
    machine, domain = started()
    snapshot = Snapshot(machine, target(SHARED), LIFE)
    before = bytes(domain.memory)
    for life, writes in enumerate((first, then), 2):
        for address, data in writes:
            domain.write(address, data)
        domain.write(SHARED * PAGE, by_grant, by_grant=True)
        domain.memory[FRAMES * PAGE : FRAMES * PAGE + 4000] = b"\xff" * 4000
        domain.context[:] = b"in the woods"
        snapshot.restore()
        assert domain.word(LIFE) == life
        for frame in set(range(FRAMES)) - {LIFE}:
            assert domain.page(frame) == before[frame * PAGE : (frame + 1) * PAGE], frame
        assert domain.page(LIFE)[4:] == bytes(PAGE - 4)
        assert domain.context == b"at the start" and not any(domain.events())
        assert not domain.paused


def test_the_times_in_the_shared_page_go_on() -> None:
    machine, domain = started()
    snapshot = Snapshot(machine, target(), LIFE)
    domain.memory[FRAMES * PAGE : (FRAMES + 1) * PAGE] = b"\xff" * PAGE
    snapshot.restore()
    changed = sum(size for _, size in abi.shared_info.fields.values())
    assert bytes(domain.memory[FRAMES * PAGE :]).count(b"\xff") == PAGE - changed


def test_only_pages_with_content_are_kept() -> None:
    machine, domain = started()
    snapshot = Snapshot(machine, target(), LIFE)
    # every third frame, but the one with the life
    assert snapshot.pages == len(range(0, FRAMES, 3)) - 1
    assert machine.room_pages == 1000 - snapshot.pages
    domain.write(PAGE, b"x")
    domain.write(2 * PAGE, b"y")
    written, reason, times = snapshot.restore()
    assert (written, reason) == (2, None)
    assert len(times) == len(PHASES) + 1 and times == sorted(times)
    assert machine.room_pages == 1000 - snapshot.pages


def test_a_shard_that_has_ended_goes_on() -> None:
    machine, domain = started()
    snapshot = Snapshot(machine, target(), LIFE)
    domain.reason = abi.SHUTDOWN_crash
    assert snapshot.restore()[1] == abi.SHUTDOWN_crash
    assert domain.reason is None and not domain.paused


def test_a_shard_does_not_stay_paused_when_there_is_no_room() -> None:
    machine, domain = started()
    machine.room_pages = 3
    with pytest.raises(OSError, match="no memory"):
        Snapshot(machine, target(), LIFE)
    assert not domain.paused and not domain.logged


def test_what_is_kept_is_left_as_it_is() -> None:
    machine, domain = started()
    snapshot = Snapshot(machine, target(kept=range(20, 24)), LIFE)
    copied = [frame for frame in range(0, FRAMES, 3) if frame not in range(20, 24)]
    assert snapshot.pages == len(copied) - 1
    for frame in (19, 20, 23, 24):
        domain.write(frame * PAGE, b"new")
    snapshot.restore()
    assert [domain.page(frame)[:3] for frame in (19, 20, 23, 24)] == [bytes(3), b"new", b"new", bytes(3)]


def test_what_is_sealed_has_no_copy_and_a_shard_that_wrote_there_stays_paused() -> None:
    machine, domain = started()
    snapshot = Snapshot(machine, target(sealed=range(20, 24)), LIFE)
    domain.write(19 * PAGE, b"new")
    snapshot.restore()
    domain.write(23 * PAGE, b"new")
    with pytest.raises(Broken):
        snapshot.restore()
    assert domain.paused == 1
