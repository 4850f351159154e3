"""Optional rights, the journal and debug keys on the command line."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from fake_host import FakeHost, Run

from xoar.cli import options
from xoar.cli.failures import ERROR, NOT_FOUND, USAGE
from xoar.messages.line import NOT_PERMITTED


def test_rights_are_listed_permitted_and_withdrawn(host: FakeHost, run: Run) -> None:
    assert "console  xen.debug  no" in run("right", "list").stdout
    assert "console may xen.debug" in run("right", "permit", "console", "xen.debug").stderr
    rows = json.loads(run("right", "list", "--json").stdout)
    assert rows[0] == {"shard": "console", "class": "xen", "permission": "debug", "permitted": True}
    assert len(rows) == 3
    run("right", "withdraw", "console", "xen.debug")
    assert "yes" not in run("right", "list").stdout


def test_a_right_that_is_not_optional_is_named_with_those_that_are(host: FakeHost, run: Run) -> None:
    result = run("right", "permit", "console", "xen.debgu")
    assert result.exit_code == NOT_FOUND
    assert "console xen.debug" in result.stderr
    assert run("right", "permit", "console", "debug").exit_code == USAGE


def test_the_journal_is_shown_with_ages(host: FakeHost, run: Run) -> None:
    host.journal = [(n, n * 10**9, "toolstack", f"permit {n}", "done") for n in range(3)]
    result = run("journal")
    assert "2 older entries are not kept any more" in result.stderr
    assert "1 min 38 s" in result.stdout
    assert "permit 2" in result.stdout
    shown = json.loads(run("journal", "--json").stdout)
    assert shown["dropped"] == 2
    assert [entry["what"] for entry in shown["entries"]] == ["permit 0", "permit 1", "permit 2"]


def test_debug_keys_say_how_they_are_permitted(host: FakeHost, run: Run) -> None:
    assert run("debug-keys", "q").exit_code == 0
    host.keys_refused = f"{NOT_PERMITTED} (xen.debug of console)"
    result = run("debug-keys", "q")
    assert result.exit_code == ERROR
    assert "xoar right permit console xen.debug" in result.stderr
    host.keys_refused = "key 'R' does more than print"
    assert "permit" not in run("debug-keys", "R").stderr


@pytest.mark.parametrize(("shard", "known"), [("console", ["xen.debug"]), ("guest", []), ("nobody", [])])
def test_rights_are_completed_from_the_manifests(shard: str, known: list[str]) -> None:
    context = SimpleNamespace(params={"shard": shard})
    assert options._optional_rights(context, "") == known  # type: ignore[arg-type]
    assert "console" in options._optional_shards(None)
