"""Restorer's records: what fits is told, what does not waits, and the reader can't do harm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xoar.abi import xen as abi
from xoar.messages.channel import Channel
from xoar.microreboot.restorer import START, Rollback
from xoar.microreboot.teller import MOST, Teller
from xoar.xen.ring import SharedPage, xenstore_rings


class Link:
    def __init__(self) -> None:
        data = bytearray(4096)
        self.page = SharedPage(memoryview(data), memoryview(data).cast("I"))
        to_reader, to_teller = xenstore_rings(self.page)
        self.woken = 0
        self.time = 1
        self.teller = Teller(to_reader, self.wake, lambda: self.time)
        self.reader = Channel(to_reader, to_teller, lambda: None, "restorer", "toolstack")

    def wake(self) -> None:
        self.woken += 1

    def tell(self, life: int) -> None:
        self.teller.tell(rollback(life))
        self.teller.flush()

    def lives(self) -> list[int]:
        found = []
        while messages := self.reader.receive():
            found += [message.fields.life for message in messages]
        return found


def rollback(life: int, reason: int | None = None) -> Rollback:
    times = [life * 10_000_000 + step * 1000 for step in (0, 10, 12, 30, 60, 65)]
    return Rollback("logic", life, "xenstore", reason, 31, times)


def test_a_record_has_all_that_is_known() -> None:
    link = Link()
    link.tell(2)
    (message,) = link.reader.receive()
    fields = message.fields
    assert (fields.target, fields.life, fields.cause, fields.found, fields.pages) == (
        "logic", 2, "xenstore", "none", 31,
    )  # fmt: skip
    assert (fields.pause_us, fields.dirty_us, fields.copy_us) == (10, 2, 18)
    assert (fields.context_us, fields.unpause_us, fields.total_us, fields.at_ms) == (30, 5, 65, 20)


def test_a_snapshot_and_any_end_can_be_told() -> None:
    link = Link()
    link.teller.tell(Rollback("logic", 1, START, None, 700, [5_000_000, 90_000_000]))
    for reason in (abi.SHUTDOWN_crash, abi.SHUTDOWN_poweroff, 77):
        link.teller.tell(rollback(2, reason))
    link.teller.flush()
    fields = [message.fields for message in link.reader.receive()]
    assert [(told.cause, told.found) for told in fields] == [
        ("start", "none"), ("xenstore", "crash"), ("xenstore", "poweroff"), ("xenstore", "crash"),
    ]  # fmt: skip
    assert fields[0].total_us == 85_000


def test_the_newest_are_kept_while_nobody_reads() -> None:
    link = Link()
    for life in range(1, 501):
        link.tell(life)
    seen = []
    while lives := link.lives():
        seen += lives
        link.teller.flush()
    assert seen == sorted(seen) and seen[-MOST:] == list(range(501 - MOST, 501))
    assert len(seen) < 2 * MOST


def test_the_reader_is_not_woken_for_each_record() -> None:
    link = Link()
    for life in range(1, 6):
        link.tell(life)
    assert link.woken == 1
    deadline = link.teller.deadline()
    assert deadline is not None
    link.time = deadline
    link.teller.flush()
    assert link.woken == 2 and link.teller.deadline() is None


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_offsets_of_any_kind_end_the_telling_at_most(consumer: int, producer: int) -> None:
    link = Link()
    layout = abi.xenstore_domain_interface
    link.page.words[layout.offset("req_cons") // 4] = consumer
    link.page.words[layout.offset("req_prod") // 4] = producer
    for life in range(1, 100):
        link.tell(life)
    assert link.teller.broken == ((producer - consumer) & 0xFFFFFFFF > 1024)
