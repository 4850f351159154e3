from __future__ import annotations

from collections.abc import Iterator

import pytest

from xoar.host.bench.steady import Steady
from xoar.host.errors import HostError


def machine(*speeds: float) -> Iterator[float]:
    """The time of the loop at each look: five probes; the last speed lasts."""
    for speed in speeds:
        yield from [speed] * 5
    while True:
        yield speeds[-1]


def steady(*speeds: float) -> tuple[Steady, list[float]]:
    """And the seconds that it rests."""
    probes, rests = machine(*speeds), list[float]()
    return Steady(lambda: next(probes), rests.append), rests


def test_a_measurement_counts_if_the_machine_is_at_its_best_before_and_after() -> None:
    under_test, rests = steady(1.0, 1.2)
    assert under_test.measured(lambda: 7.0) == 7.0
    assert rests == []


def test_what_was_measured_while_the_machine_became_slow_is_measured_again() -> None:
    under_test, rests = steady(1.0, 3.0, 3.0, 1.0, 1.0)
    values = iter([1.0, 2.0])
    assert under_test.measured(lambda: next(values)) == 2.0
    assert len(rests) == 1


def test_it_waits_for_the_speed_that_was_seen_before() -> None:
    under_test, rests = steady(1.0, 2.0, 2.0, 1.0)
    under_test.wait()
    under_test.wait()
    assert len(rests) == 2


def test_one_interrupted_probe_is_no_slow_machine() -> None:
    probes = iter([1.0] * 5 + [9.0, 9.0, 1.0, 9.0, 9.0])
    under_test = Steady(lambda: next(probes))
    under_test.wait()
    assert under_test.at_its_best()


def test_a_machine_that_stays_slow_is_an_error() -> None:
    under_test, rests = steady(1.0, 2.0)
    under_test.wait()
    with pytest.raises(HostError, match="slower than it was"):
        under_test.wait()
    assert sum(rests) == 900
