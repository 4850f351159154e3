"""The figures of `xoar bench`."""

import json

from hypothesis import given
from hypothesis import strategies as st

from xoar.host.bench.report import Report, Row, spread, this_machine

SECONDS = st.lists(st.floats(0.01, 1000), min_size=1, max_size=9)


def test_the_ratio_is_that_of_the_medians():
    row = Row("login", [10.0, 12.0, 90.0], [24.0, 30.0, 18.0])
    assert row.ratio == 0.5
    assert row.as_dict()["ratio"] == 0.5
    assert row.as_dict()["times_as_good"] == 2.0


def test_one_slow_run_shows_in_the_range_and_not_in_the_median():
    assert spread([2.0, 1.0, 15.7]) == "2.00 s (1.00 to 15.70)"


def test_where_more_is_better_a_higher_figure_is_the_better_one():
    row = Row("network", [300.0], [200.0], "Mbit/s", more_is_better=True)
    assert row.as_dict()["times_as_good"] == row.as_dict()["ratio"] == 1.5


@given(SECONDS, SECONDS)
def test_exchanging_the_hosts_inverts_the_ratio(ours, theirs):
    assert abs(Row("x", ours, theirs).ratio * Row("x", theirs, ours).ratio - 1) < 1e-9


@given(SECONDS, SECONDS)
def test_json_has_every_run_and_its_extremes(ours, theirs):
    document = Report([Row("x", ours, theirs)], {"cpu": "one"}).as_dict()
    (row,) = json.loads(json.dumps(document))["rows"]
    for name, seconds in (("xoar", ours), ("stock", theirs)):
        series = row[name]
        assert series["runs"] == [round(value, 3) for value in seconds]
        assert series["min"] <= series["median"] <= series["max"]


def test_the_machine_is_described():
    assert {"date", "cpu", "load"} == set(this_machine())
