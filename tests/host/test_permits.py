"""Optional rights on a running host: refused, permitted, used, withdrawn, refused again, all on record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import HostUnderTest, running

from xoar.cli.failures import ERROR, NOT_FOUND
from xoar.host.client import Client, RequestRefused

RIGHT = ("console", "xen.debug")
FIELDS = {"shard": "console", "security_class": "xen", "permission": "debug"}
DENIED = r"avc:\s+denied\s+{ debug } .*scontext=system_u:system_r:console_t tcontext=system_u:system_r:xen_t"


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("permits", '[images.tiny]\nbuiltin = "tiny"\n', logs) as host:
        yield host


def test_a_right_holds_while_it_is_permitted_and_no_longer(host: HostUnderTest) -> None:
    def refused() -> None:
        start = host.log_position()
        said = host.cli("debug-keys", "h", status=ERROR)
        assert "xoar right permit console xen.debug" in said
        host.wait_log(DENIED, start)
        assert host.json("right", "list") == [
            {"shard": "console", "class": "xen", "permission": "debug", "permitted": False}
        ]

    refused()
    start = host.log_position()
    host.cli("right", "permit", *RIGHT)
    host.wait_log(r"builder: journal: toolstack: permit xen.debug of console: done", start)
    assert host.json("right", "list")[0]["permitted"]
    host.cli("debug-keys", "hm")
    host.wait_log(r"dump domain \(and guest debug\) info", start)
    host.wait_log(r"Physical memory information", start)
    assert "Physical memory information" in host.cli("logs", "xen")
    assert not re.search(DENIED, host.said_since(start))
    for key in ("R", "C", "hR"):
        assert "does more than print" in host.cli("debug-keys", key, status=ERROR)
    host.cli("right", "withdraw", *RIGHT)
    refused()
    assert [entry["what"] for entry in host.json("journal")["entries"]] == [
        "permit xen.debug of console",
        "withdraw xen.debug of console",
    ]


def test_builder_permits_nothing_that_no_manifest_states_as_optional(host: HostUnderTest) -> None:
    start = host.log_position()
    assert "There is: console xen.debug" in host.cli(
        "right", "permit", "netback", "mmu.stat", status=NOT_FOUND
    )
    with Client.connect(host.host.name) as client:
        for change in ({"shard": "toolstack"}, {"permission": "kexec"}, {"security_class": "security"}):
            with pytest.raises(RequestRefused, match="no optional right"):
                client.request("permit_change", **{**FIELDS, **change}, on=1)
    assert "Flask: committed booleans" not in host.said_since(start)
    refusals = [entry for entry in host.json("journal")["entries"] if entry["outcome"] != "done"]
    assert [entry["who"] for entry in refusals] == ["toolstack"] * 3
    assert refusals[0]["outcome"] == "refused: xen.debug is no optional right of toolstack's manifest"
