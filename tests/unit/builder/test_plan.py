"""The boot plan that the manifests give is the one that Bootstrapper reads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.builder import plan
from xoar.builder.errors import BuildError
from xoar.host import bundle
from xoar.privilege import bootplan, shardset


def test_bootstrapper_reads_what_the_manifests_state() -> None:
    shards = shardset.load_all()
    planned = bootplan.plan(shards)
    read = plan.parse(bundle.plan_text(planned, shards.guests[0].label, 5000))
    assert [(s.name, s.domid, s.label) for s in read.shards] == [
        (s.manifest.name, s.domid, s.manifest.label) for s in planned.shards
    ]
    assert [(x.client.name, x.server.name, x.name, x.gref) for x in read.links] == [
        (x.client, x.server, x.name, x.gref) for s in planned.shards for x in s.links
    ]
    (holder,) = read.library
    assert holder in read.exceptions and holder.name == "builder"
    assert f"guest_label={shards.guests[0].label}" in holder.words
    by_name = {s.name: s for s in read.shards}
    assert by_name["console"].ports == [(0x2F8, 8)]


@dataclass(frozen=True)
class Declared:
    """A driver domain in a host's configuration."""

    name: str
    kind: str
    device: str | None
    memory_kib: int | None


@given(
    st.lists(
        st.builds(
            Declared,
            st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
            st.sampled_from(["netback", "blkback"]),
            st.sampled_from([None, bootplan.UNASSIGNED]),
            st.one_of(st.none(), st.integers(1, 1 << 20).map(lambda pages: pages * 4)),
        ),
        min_size=1,
        max_size=24,
        unique_by=lambda driver: driver.name,
    )
)
def test_builder_reads_what_is_built_later(drivers: list[Declared]) -> None:
    shards = shardset.load_all()
    planned = bootplan.plan(shards, drivers)
    read = plan.parse(bundle.plan_text(planned, shards.guests[0].label, 5000))
    assert [tuple(driver) for driver in read.drivers] == [
        (d.name, d.manifest.name, d.domid, d.memory_kib, 1, d.manifest.label, d.manifest.name, d.bdf)
        for d in planned.drivers
    ]
    (pciback,) = read.late
    assert (pciback.name, pciback.domid, pciback.image) == ("pciback", 7, "pciback")
    assert pciback not in read.shards
    assert [(x.client.name, x.server.name, x.name, x.gref) for x in read.late_links] == [
        ("pciback", "xenstore", "xenstore", 1),
        ("pciback", "builder", "pciback", 2),
    ]
    assert [x.client.name for x in read.links if x.client is pciback] == []
    assert [shard.name for shard in read.hardware] == ["builder"]
    assert pciback.words == []  # Builder knows which devices it is to be told of
    (toolstack,) = (shard for shard in read.shards if shard.name == "toolstack")
    assert toolstack.words == [
        "restarted=console:when_idle_and_after_120_s",
        "restarted=builder:when_idle_and_after_60_s",
        "restarted=logic:after_each_request",
        "restarted=toolstack:when_idle_and_after_600_s",
        "pciback=7",
        *(f"driver={d.name}:{d.manifest.name}:{d.domid}:{d.bdf}" for d in planned.drivers),
    ]


@given(st.text(max_size=60))
def test_a_line_that_makes_no_sense_is_named(line: str) -> None:
    text = line.replace("\n", " ").replace("\r", " ")
    if text.strip():
        with pytest.raises(BuildError, match="boot plan"):
            plan.parse("bogus " + text)


@pytest.mark.parametrize(
    "line",
    [
        "shard a 1",
        "link a b c 2",
        "word a b",
        "ports a 1 2",
        "library a",
        "shard a x 1 1 l i",
        "late a",
        "driver a b 6 4 1 l i",
    ],
)
def test_incomplete_lines_and_unknown_shards_are_refused(line: str) -> None:
    with pytest.raises(BuildError, match="can't understand"):
        plan.parse(line)
