"""What tests/rights goes by: which scenarios fit a rule, which earlier outcomes hold, what a denial is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from xoar.host.state import Host
from xoar.privilege import rules, shardset
from xoar.privilege.rules import Rule

sys.path.insert(0, str(Path(__file__).parents[1] / "rights"))
import mutate
import scenarios
import trial

RULE = Rule("builder_t", "guest_t", "domain", "destroy")
OTHERS = frozenset(("one", "two", "three"))


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (RULE, ["plain", "linux", "tenant", "network", "disk", "ends"]),
        (Rule("guest_t_channel", "netback_t", "event", "bind"), ["network"]),
        (Rule("builder_t", "pciback_t", "domain", "create"), ["network", "disk"]),
        (
            Rule("console_t", "console_ioport_t", "resource", "use_noiommu"),
            ["plain", "linux", "tenant", "network", "disk", "ends"],
        ),
        (Rule("console_t", "tenant_t", "grant", "copy"), ["tenant"]),
        # no host has both
        (Rule("netback_t", "blkback_t", "grant", "copy"), []),
    ],
)
def test_a_scenario_fits_if_its_host_has_the_domains_that_a_rule_is_about(
    rule: Rule, names: list[str]
) -> None:
    assert [scenario.name for scenario in mutate.fitting(rule, shardset.load_all())] == names


def test_scenarios_name_manifests_that_exist() -> None:
    known = set(shardset.load_all().manifests)
    for scenario in scenarios.ALL:
        assert set(scenario.parties) <= known


@pytest.mark.parametrize(
    ("noticed", "now", "holds"),
    [
        (True, OTHERS, True),
        (True, OTHERS - {"one"}, True),
        (True, OTHERS | {"four"}, False),
        (False, OTHERS, True),
        (False, OTHERS - {"one"}, False),
        (False, OTHERS | {"four"}, True),
    ],
)
def test_an_outcome_holds_for_fewer_rights_if_it_was_noticed_and_for_more_if_not(
    tmp_path: Path, noticed: bool, now: frozenset[str], holds: bool
) -> None:
    store = mutate.Store(tmp_path)
    assert store.outcome("key", RULE, OTHERS) is None
    kept = mutate.Outcome(noticed, "how", 1.0, True, store.name_of(OTHERS))
    store.keep("key", RULE, kept)
    assert mutate.Store(tmp_path).outcome("key", RULE, now) == (kept if holds else None)
    assert store.outcome("other key", RULE, OTHERS) is None


DENIAL = (
    "(XEN) avc:  denied  { create destroy } for source=d3 target=d32"
    " scontext=system_u:system_r:builder_t tcontext=system_u:system_r:guest_t tclass=domain"
)


def test_a_denial_is_that_of_the_missing_right_only() -> None:
    assert trial.denial(RULE).search(DENIAL)
    for other in (
        RULE._replace(permission="pause"),
        RULE._replace(source="console_t"),
        RULE._replace(target="guest_t_self"),
        RULE._replace(security_class="domain2"),
    ):
        assert not trial.denial(other).search(DENIAL)


def test_rules_that_are_asked_for_often_are_not_audited() -> None:
    often = {rule for rule in rules.derive(shardset.load_all()) if mutate.asked_often(rule, {"netback_t"})}
    assert Rule("netback_t", "guest_t", "grant", "map_read") in often
    assert Rule("netback_t", "netback_t_self", "mmu", "pinpage") in often
    assert Rule("xenstore_t", "guest_t", "grant", "unmap") not in often
    assert RULE in often
    assert RULE._replace(permission="unpause") not in often


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("took", "limit"), [(0.5, 90), (1.0, 90), (3.0, 270)])
def test_a_step_may_take_longer_where_the_one_before_did(
    monkeypatch: pytest.MonkeyPatch, took: float, limit: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(trial, "time", clock)
    tried = trial.Trial(Host("never-started"), {"first": 1.0, "second": 10.0}, frozenset())
    tried.step("first", lambda: True if clock.now >= took else None)
    with pytest.raises(trial.Noticed, match=r"second: not within (\d+) s") as noticed:
        tried.step("second", lambda: None)
    found = re.search(r"within (\d+) s", str(noticed.value))
    assert found and abs(int(found[1]) - limit) <= 0.05 * limit
