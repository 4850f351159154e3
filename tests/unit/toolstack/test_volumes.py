"""Volumes: requests to BlkBack and what its agent says."""

from __future__ import annotations

import string
from collections import namedtuple
from typing import Any

import pytest
from driver_domains import BLK, NET, DriverHost
from hypothesis import given
from hypothesis import strategies as st

from xoar.toolstack import service
from xoar.toolstack.volumes import MAX_REQUESTS, MAX_VOLUMES, command

HOME = f"/local/domain/{BLK}"
DIGEST = bytes(range(32))
STATE = "size_kib=2048 used_kib=12 origin=base users=32,33 state=ok"


def change(action: str = "create", **changes: Any) -> dict[str, Any]:
    return {
        "driver": "disk0", "action": action, "name": "root", "source": "", "size_kib": 2048, "offset": 0,
        "length": 0, "format": "raw", "sha256": bytes(32), **changes,
    }  # fmt: skip


def requests(host: DriverHost) -> dict[int, str]:
    client = host.client(BLK)
    names = client.directory(f"{HOME}/requests")
    return {int(name): client.read(f"{HOME}/requests/{name}").decode() for name in names}


def reply(host: DriverHost, number: int, text: str, domid: int = BLK) -> None:
    host.client(domid).write(f"/local/domain/{domid}/service/replies/{number}", text)
    host.run()


def test_a_request_is_passed_on_answered_and_removed() -> None:
    host = DriverHost()
    id = host.send("volume_change", **change())
    host.run()
    assert requests(host) == {1: "create root 2048"}
    assert (1, id) not in host.answers
    reply(host, 1, "ok ")
    assert host.answers[1, id].fields == (0, bytes(32))
    assert requests(host) == {}


def test_progress_and_an_exports_result_reach_the_operator() -> None:
    host = DriverHost()
    id = host.send("volume_change", **change("export", length=1 << 30))
    host.run()
    assert host.ask("volume_progress", driver="disk0").fields.percent == 0
    reply(host, 1, "progress 37")
    assert host.ask("volume_progress", driver="disk0").fields.percent == 37
    reply(host, 1, f"ok length=4096 sha256={DIGEST.hex()}")
    assert host.answers[1, id].fields == (4096, DIGEST)
    assert host.ask("volume_progress", driver="disk0").fields.percent == 0


def test_an_agents_error_reaches_the_operator() -> None:
    host = DriverHost()
    id = host.send("volume_change", **change("delete"))
    host.run()
    reply(host, 1, "error 16 volume root is in use by domain 32")
    fields = host.answers[1, id].fields
    assert (fields.errno, fields.text) == (16, "volume root is in use by domain 32")


def test_another_driver_domain_cannot_answer() -> None:
    host = DriverHost()
    id = host.send("volume_change", **change())
    host.run()
    reply(host, 1, "ok", NET)
    for number in (2, 0):
        reply(host, number, "ok")
    assert (1, id) not in host.answers


def test_a_driver_domain_that_ends_fails_its_requests() -> None:
    host = DriverHost()
    id = host.send("volume_change", **change())
    host.run()
    host.fake.channel.send("stopped", 0, domid=BLK, reason="crash")
    host.run()
    assert "disk0 ended before it replied" in host.answers[1, id].fields.text
    assert "disk0 failed: its domain ended" in host.ask("volume_change", **change()).fields.text


def test_requests_are_bounded_and_go_on_at_the_same_time() -> None:
    host = DriverHost()
    ids = []
    for number in range(MAX_REQUESTS + 1):
        ids.append(host.send("volume_change", channel=1 + number // 10, **change(name=f"v{number}")))
        host.run(3)
    host.run()
    assert len(requests(host)) == MAX_REQUESTS
    assert host.answers[1 + MAX_REQUESTS // 10, ids[-1]].fields.errno == 16
    reply(host, 3, "ok")
    assert host.answers[1, ids[2]].kind == "volume_changed"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (change("create", size_kib=0), "create needs a size"),
        (change("clone", source="Not A Name"), "clone needs a source"),
        (change("import", length=0), "import needs a length"),
        (change("export"), "export needs room"),
        (change(driver="net0"), "there is no blkback net0"),
        (change(driver="x"), "there is no blkback x"),
    ],
)
def test_what_is_missing_is_named(fields: dict[str, Any], text: str) -> None:
    host = DriverHost()
    assert text in host.ask("volume_change", **fields).fields.text
    assert requests(host) == {}


def test_volumes_and_pools_are_what_the_agent_says() -> None:
    host = DriverHost()
    client = host.client(BLK)
    client.write(f"{HOME}/service/pool", "size_kib=9000 used_kib=100")
    names = [f"v{number:03}" for number in range(20)]
    for name in names:
        client.write(f"{HOME}/service/volumes/{name}", STATE)
    client.write(f"{HOME}/service/volumes/BAD", STATE)
    client.write(f"{HOME}/service/volumes/odd", "size_kib=-1")
    host.run(100)
    first = host.ask("volume_list", start=0).fields
    second = host.ask("volume_list", start=16).fields
    assert [row.name for row in first.volumes + second.volumes] == names
    assert (first.more, second.more) == (1, 0)
    assert first.volumes[0] == ("v000", "disk0", 2048, 12, "base", "32,33", "ok")
    assert first.pools == [("disk0", 9000, 100)]
    client.rm(f"{HOME}/service/volumes/v000")
    host.run()
    assert host.ask("volume_list", start=0).fields.volumes[0].name == "v001"
    client.rm(f"{HOME}/service/volumes")
    host.run()
    assert host.ask("volume_list", start=0).fields.volumes == []


def test_an_agent_that_invents_volumes_is_bounded() -> None:
    host = DriverHost()
    for number in range(MAX_VOLUMES + 10):
        host.client(BLK).write(f"{HOME}/service/volumes/v{number}", STATE)
        host.run(2)
    host.run(100)
    rows, more = 0, 1
    while more:
        fields = host.ask("volume_list", start=rows).fields
        rows, more = rows + len(fields.volumes), fields.more
    assert rows == MAX_VOLUMES


Fields = namedtuple(
    "Fields", ("action", "name", "source", "size_kib", "offset", "length", "format", "sha256")
)


def test_each_action_has_its_line() -> None:
    base = Fields("create", "root", "debian", 2048, 1 << 20, 99, "qcow2", DIGEST)
    lines = {
        action: command(base._replace(action=action))
        for action in ("create", "clone", "grow", "delete", "import", "export")
    }
    assert lines == {
        "create": "create root 2048", "clone": "clone debian root", "grow": "grow root 2048",
        "delete": "delete root", "export": "export root 1048576 99",
        "import": f"import root qcow2 1048576 99 2048 {DIGEST.hex()}",
    }  # fmt: skip


VALUES = st.binary(max_size=1200) | st.lists(
    st.sampled_from(
        ["ok", "error", "progress", "16", "100", "101", "size_kib=1", "used_kib=2", "origin=-", "users=-",
         "users=1,2", "state=ok", "state=no", "length=7", "sha256=" + "0a" * 32, "sha256=zz", "\0", "\x1b["]
    ),
    max_size=8,
).map(lambda words: " ".join(words).encode())  # fmt: skip


@given(VALUES, st.text(max_size=70))
def test_whatever_an_agent_writes_is_bounded_and_printable(value: bytes, name: str) -> None:
    printable = set(string.printable) - set("\t\n\r\x0b\x0c")
    assert set(service.text(value, 100)) <= printable and len(service.text(value, 100)) <= 100
    assert len(service.address(value)) <= 15
    answer = service.reply(value)
    if answer is not None:
        assert answer.verb in ("ok", "error", "progress") and 0 <= answer.percent <= 100
        assert len(answer.text) <= 256 and set(answer.text) <= printable and len(answer.sha256) == 32
        assert (answer.errno != 0) == (answer.verb == "error")
    service.pool("disk0", value)
    volume = service.volume("disk0", name, value)
    if volume is not None:
        assert service.is_name(volume.name) and len(volume.users) <= 64


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.sampled_from(["ok", "importing", "bad"]))
def test_a_volume_as_documented_is_understood(size: int, used: int, state: str) -> None:
    line = f"size_kib={size} used_kib={used} origin=- users=- state={state}".encode()
    assert service.volume("disk0", "root", line) == ("root", "disk0", size, used, "", "", state)
