"""The recovery box: what was stored last is loaded, even if a life ended in the middle of storing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.xen.box import Box, Full

RECORDS = st.lists(st.binary(max_size=40), max_size=6)
SIZE = 1024


def stored(memory: bytearray, records: list[bytes], writes: int) -> None:
    """Stores, but for all writes after so many; Box writes its last byte but one last."""
    before = bytes(memory)
    Box(memoryview(memory)).store(records)
    after = bytes(memory)
    changed = [at for at in range(SIZE) if before[at] != after[at]]
    assert changed.index(SIZE - 2) == len(changed) - 1
    memory[:] = before
    for at in changed[:writes]:
        memory[at] = after[at]


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_what_was_stored_last_is_loaded(stores: list[list[bytes]]) -> None:
    memory = bytearray(SIZE)
    assert Box(memoryview(memory)).load() == []
    for records in stores:
        Box(memoryview(memory)).store(records)
        assert Box(memoryview(memory)).load() == records


@given(st.lists(RECORDS, min_size=2, max_size=4), st.integers(0, 300))
def test_a_life_that_ends_in_the_middle_leaves_the_last_but_one(
    stores: list[list[bytes]], writes: int
) -> None:
    memory = bytearray(SIZE)
    for records in stores[:-1]:
        Box(memoryview(memory)).store(records)
    stored(memory, stores[-1], writes)
    assert Box(memoryview(memory)).load() in (stores[-2], stores[-1])


@given(st.binary(min_size=SIZE, max_size=SIZE))
def test_whatever_lies_there_it_is_loaded_and_stored_over(content: bytes) -> None:
    box = Box(memoryview(bytearray(content)))
    assert sum(len(record) + 4 for record in box.load()) <= box.room
    box.store([b"mine"])
    assert box.load() == [b"mine"]


def test_what_does_not_fit_leaves_what_was_there() -> None:
    box = Box(memoryview(bytearray(SIZE)))
    box.store([b"kept"])
    with pytest.raises(Full, match="2 records do not fit"):
        box.store([bytes(300), bytes(300)])
    assert box.load() == [b"kept"]


def test_whether_the_last_life_was_at_rest_is_told() -> None:
    box = Box(memoryview(bytearray(SIZE)))
    assert not box.at_rest
    box.at_rest = True
    box.store([bytes(box.room - 4)])
    box.store([bytes(box.room - 4)])
    assert box.at_rest
    box.at_rest = False
    assert not box.at_rest
