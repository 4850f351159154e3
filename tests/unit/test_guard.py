"""A bug in serving one client ends neither the shard nor the log's usefulness."""

from __future__ import annotations

import pytest

from xoar.xen.guard import Guard


def broken() -> None:
    raise KeyError("oops")


def test_results_come_back_and_bugs_are_reported_a_limited_number_of_times(
    capsys: pytest.CaptureFixture[str],
) -> None:
    guard = Guard("builder")
    assert guard.call(max, 1, 2) == 2
    for _ in range(50):
        assert guard.call(broken) is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20 and lines[0] == "builder: bug: KeyError('oops')"
