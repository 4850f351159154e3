"""`xoar reboot`, and what `xoar ps` says of rollbacks."""

from __future__ import annotations

import json

import pytest
from fake_host import FakeHost, Run

from xoar.cli.failures import NOT_FOUND, USAGE
from xoar.messages.records import ROLLBACK


def record(life: int, cause: str = "xenstore", found: str = "none") -> object:
    return ROLLBACK.value("xenstore", life, cause, found, 31, 7000, 4200, 1000, 200, 900, 1900, 200)


@pytest.fixture
def rolled(host: FakeHost) -> FakeHost:
    host.policies = {"xenstore": "after each request"}
    host.rollbacks = [record(1, "start"), record(2), record(3), record(4, "toolstack", "crash"), record(5)]
    return host


def test_a_shard_is_rolled_back(rolled: FakeHost, run: Run) -> None:
    result = run("reboot", "xenstore")
    assert result.exit_code == 0
    assert "xenstore is in its life 5: 31 pages restored in 4.2 ms" in result.output
    shown = json.loads(run("reboot", "xenstore", "--json").stdout)
    assert (shown["life"], shown["total_us"], shown["copy_us"]) == (5, 4200, 900)


def test_a_shard_without_a_policy_is_not(rolled: FakeHost, run: Run) -> None:
    result = run("reboot", "xenstor")
    assert result.exit_code == NOT_FOUND
    assert "can't be rolled back on demand" in result.output and "xenstore" in result.output
    assert run("reboot").exit_code == USAGE


def test_the_history_comes_page_by_page(rolled: FakeHost, run: Run) -> None:
    shown = json.loads(run("reboot", "--history", "--json").stdout)
    assert [entry["life"] for entry in shown] == [1, 2, 3, 4, 5]
    assert list(shown[0]) == [
        "shard", "life", "cause", "found", "pages", "total_us",
        "pause_us", "dirty_us", "copy_us", "context_us", "unpause_us", "age_ms",
    ]  # fmt: skip
    lines = run("reboot", "--history").stdout.splitlines()
    assert len(lines) == 6
    shown_row = "3 s xenstore 4 toolstack (crash) 31 4.2 1.0 0.2 0.9 1.9 0.2"
    assert " ".join(lines[4].split()) == shown_row
    assert json.loads(run("reboot", "console", "--history", "--json").stdout) == []


def test_ps_shows_who_is_rolled_back_and_when(rolled: FakeHost, run: Run) -> None:
    (line,) = [line for line in run("ps").stdout.splitlines() if " xenstore " in line]
    assert "after each request" in line and line.split()[-4:-1] == ["41", "3", "s"]
    (entry, *others) = json.loads(run("ps", "--json").stdout)
    assert (entry["policy"], entry["rollbacks"], entry["rollback_age_ms"]) == ("after each request", 41, 3000)
    assert {other["rollback_age_ms"] for other in others} == {None}


def test_a_shell_completes_the_shards_that_can_be_rolled_back(
    rolled: FakeHost, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_WORDS", "xoar\nreboot\n")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_XOAR_COMPLETE", "complete_bash")
    assert run().stdout.split() == ["xenstore"]
