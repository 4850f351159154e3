"""Groups of guests on the command line, and `xoar sharing`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_host import FakeHost, Run

from xoar.cli.failures import ERROR, USAGE
from xoar.host.sharing import ONCE
from xoar.messages.records import DISK, NETWORK, NIC

CONFIG = '[images.debian]\nbuiltin = "debian"\n[guests.web]\nimage = "debian"\ngroup = "red"\n'


@pytest.fixture
def shared(host: FakeHost) -> FakeHost:
    """Two guests of a group on one network card, and one guest without a group or a device."""
    host.add_driver("net0", "netback")
    host.add_driver("disk0", "blkback")
    host.devices.networks["lan"] = NETWORK.value("lan", "net0", "bridge", 0, "", [], "up")
    host.devices.add_volume("disk0", "root", 1024)
    nics = [NIC.value("lan", bytes(6), "", 0)]
    host.add_guest("web", group="red", nics=nics, disks=[DISK.value("xvda", "disk0", "root", "w")])
    host.add_guest("mail", group="red", nics=nics)
    host.add_guest("lonely")
    return host


def groups(host: FakeHost) -> list[str]:
    """The groups that guests were to be created with."""
    return [message.fields.group for message in host.requests if message.kind == "guest_create"]


def test_a_guest_is_created_in_the_group_of_the_option_or_of_the_file(host: FakeHost, run: Run) -> None:
    Path("xoar.toml").write_text(CONFIG)
    for words in (["web"], ["shop", "--image", "debian", "--group", "blue"], ["other"]):
        assert run("guest", "create", *words).exit_code == 0
    del host.guests["web"]
    assert run("guest", "create", "web", "--group", "").exit_code == 0
    assert groups(host) == ["red", "blue", "", ""]


def test_a_group_that_is_no_name_is_refused_before_the_host_is_asked(host: FakeHost, run: Run) -> None:
    for name in ("Red", "-", "r" * 33):
        result = run("guest", "create", "web", "--group", name)
        assert result.exit_code == USAGE and "--group" in result.stderr
    assert host.requests == []


def test_groups_are_shown_and_listed(shared: FakeHost, run: Run) -> None:
    assert json.loads(run("guest", "show", "web", "--json").stdout)["group"] == "red"
    assert json.loads(run("guest", "show", "lonely", "--json").stdout)["group"] is None
    listed = json.loads(run("guest", "list", "--json").stdout)
    assert [entry["group"] for entry in listed] == ["red", "red", None]
    for words in (("show", "web"), ("list",)):
        assert "red" in run("guest", *words).stdout


def test_sharing_has_each_shard_and_each_guest_for_scripts(shared: FakeHost, run: Run) -> None:
    found = json.loads(run("sharing", "--json").stdout)
    shards = {entry["name"]: entry for entry in found["shards"]}
    assert shards["net0"] == {
        "name": "net0", "kind": "netback", "groups": ["red"], "guests": ["web", "mail"], "holds": ["lan"],
        "reach": "the traffic of its guests and networks; no memory",
    }  # fmt: skip
    assert shards["builder"]["guests"] == ["web", "mail", "lonely"]
    assert shards["builder"]["groups"] == [None, "red"]
    web, _, lonely = found["guests"]
    assert (web["name"], web["group"], lonely["group"]) == ("web", "red", None)
    assert {entry["name"]: entry["shared_with"] for entry in web["shards"]} == {
        "net0": ["mail"], "disk0": [], "pciback": ["mail"],
        **{name: ["mail", "lonely"] for name in ONCE},
    }  # fmt: skip
    assert [entry["uses"] for entry in web["shards"]][:2] == [["lan"], ["root"]]


def test_sharing_is_shown_as_tables(shared: FakeHost, run: Run) -> None:
    lines = [" ".join(line.split()) for line in run("sharing").stdout.splitlines()]
    for line in (
        "net0 netback red web mail lan the traffic of its guests and networks; no memory",
        "builder builder (none) red all - everything",
        "web red net0 lan mail",
        "web red disk0 root -",
        "lonely - - - -",
    ):
        assert line in lines


def test_sharing_is_drawn(
    shared: FakeHost, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = run("sharing", "--dot").stdout
    assert '"guest web" -- "shard net0"' in graph
    (tmp_path / "dot").write_text("#!/bin/sh\nexec /bin/cat\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("sharing", "--svg", "picture.svg")
    assert result.exit_code == 0, result.stderr
    assert Path("picture.svg").read_text() == graph
    (tmp_path / "dot").unlink()
    result = run("sharing", "--svg", "other.svg")
    assert result.exit_code == ERROR and "apt-get install graphviz" in result.stderr
    assert run("sharing", "--dot", "--json").exit_code == USAGE
