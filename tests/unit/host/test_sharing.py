"""Who shares what with whom, from the Toolstack's reports, and its picture."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import drawing
from xoar.host.errors import HostError
from xoar.host.sharing import ONCE, REACH, Sharing, model

NETWORKS = [Record(name="lan", driver="net0"), Record(name="dmz", driver="net0")]
NETWORKS += [Record(name="inner", driver="net1")]
DRIVERS = [
    Record(name="net0", kind="netback"),
    Record(name="net1", kind="netback"),
    Record(name="disk0", kind="blkback"),
]


def guest(name: str, group: str = "", networks: Any = (), volumes: Any = ()) -> Any:
    drivers = {entry.name: entry.driver for entry in NETWORKS}
    nics = [Record(driver=drivers[network], network=network) for network in networks]
    disks = [Record(driver="disk0", volume=volume) for volume in volumes]
    return Record(name=name, domid=32, group=group, nics=nics, disks=disks)


def shared(*guests: Any) -> Sharing:
    volumes = [Record(name=name, driver="disk0") for name in ("root", "spare")]
    return model(guests, DRIVERS, NETWORKS, volumes)


EXAMPLE = shared(
    guest("one", "red", ["lan", "lan", "dmz"], ["root"]), guest("two", "red", ["lan"]), guest("three")
)


def test_shards_have_their_guests_what_these_use_and_what_there_is() -> None:
    shards = {shard.name: shard for shard in EXAMPLE.shards}
    assert list(shards) == ["net0", "net1", "disk0", "pciback", *ONCE]
    assert shards["net0"].uses == {"one": ("lan", "dmz"), "two": ("lan",)}
    assert shards["net0"].holds == ("lan", "dmz") and shards["disk0"].holds == ("root", "spare")
    assert shards["disk0"].uses == {"one": ("root",)} and shards["net1"].uses == {}
    assert list(shards["pciback"].uses) == ["one", "two"]
    assert [EXAMPLE.groups(shards[name]) for name in ("net0", "net1", "builder")] == [
        ["red"],
        [],
        ["", "red"],
    ]


def test_each_guest_has_the_shards_that_serve_it_and_whom_it_shares_them_with() -> None:
    assert {shard.name: shard.others("one") for shard in EXAMPLE.serving("one")} == {
        "net0": ["two"], "disk0": [], "pciback": ["two"], **{name: ["two", "three"] for name in ONCE},
    }  # fmt: skip
    assert [shard.name for shard in EXAMPLE.serving("three")] == list(ONCE)


def test_it_is_said_of_every_shard_what_a_compromise_reaches() -> None:
    assert all(shard.reach for shard in EXAMPLE.shards)
    assert [kind for kind, reach in REACH.items() if "no memory" not in reach] == ["builder", "restorer"]


def test_a_host_without_driver_domains_has_no_pciback() -> None:
    assert [shard.name for shard in model([guest("one")], [], [], []).shards] == list(ONCE)


@given(st.lists(st.sets(st.sampled_from(["lan", "dmz", "inner"])), max_size=5))
def test_two_guests_share_a_driver_domain_if_both_use_it_and_both_say_so(uses: list[set[str]]) -> None:
    drivers = {entry.name: entry.driver for entry in NETWORKS}
    sharing = shared(*(guest(f"g{number}", networks=sorted(used)) for number, used in enumerate(uses)))
    for shard in sharing.shards[:2]:
        using = [f"g{n}" for n, used in enumerate(uses) if shard.name in {drivers[name] for name in used}]
        assert list(shard.uses) == using
        assert all(shard.others(name) == [other for other in using if other != name] for name in using)


def test_the_graph_has_an_edge_for_each_use_and_a_colour_for_each_group() -> None:
    graph = drawing.dot("lab", EXAMPLE)
    assert re.findall(r'"(.*)" -- "(.*)" \[label="(.*)"\]', graph) == [
        ("guest one", "shard net0", "lan, dmz"),
        ("guest two", "shard net0", "lan"),
        ("guest one", "shard disk0", "root"),
    ]
    colours = dict(re.findall(r'"guest (.*)" \[shape=box, fillcolor=(\w+)', graph))
    assert colours == {"one": "1", "two": "1", "three": "white"}
    assert 'label="host lab"' in graph and '"one\\ngroup red"' in graph


def test_the_svg_is_what_graphviz_makes_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, file = tmp_path / "dot", tmp_path / "a.svg"
    program.write_text('#!/bin/sh\n[ "$1" = -Tsvg ] || exit 9\necho "<svg>$(/bin/cat)</svg>"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing.svg("graph {}", file)
    assert file.read_text() == "<svg>graph {}</svg>\n"
    program.write_text("#!/bin/sh\necho syntax error >&2\nexit 1\n")
    with pytest.raises(HostError, match="dot failed with exit code 1") as caught:
        drawing.svg("graph {", file)
    assert "syntax error" in str(caught.value) and file.read_text().startswith("<svg>graph {}")


def test_without_graphviz_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="the program dot is not installed") as caught:
        drawing.svg("graph {}", tmp_path / "a.svg")
    assert "apt-get install graphviz" in str(caught.value)
    assert not (tmp_path / "a.svg").exists()


def test_graphviz_draws_every_guest_and_shard(tmp_path: Path) -> None:
    drawing.svg(drawing.dot("lab", EXAMPLE), tmp_path / "a.svg")
    texts = {element.text for element in ElementTree.parse(tmp_path / "a.svg").iter() if element.text}
    assert {"one", "two", "three", "net0", "net1", "disk0", "lan, dmz", *ONCE} <= texts
