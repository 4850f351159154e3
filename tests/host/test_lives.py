"""Rollbacks on a real Xen: a shard is what it was at its snapshot, whatever it did meanwhile."""

from __future__ import annotations

import re
import shutil
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import HostUnderTest, launched, running

from xoar.cli.failures import TIMEOUT
from xoar.host.assembly import Replacement
from xoar.privilege import shardset
from xoar.privilege.manifest import SHARDS_FOLDER

LIVES = Path(__file__).parent / "lives"
MOST_GROWTH = 3  # of the median time of a rollback; a machine that others use is half as fast at times
TINY = '[images.tiny]\nbuiltin = "tiny"\n'
REPLACED = {
    "probe": Replacement("probe", LIVES),
    "restorer": Replacement("checking_restorer", LIVES),
    "toolstack": Replacement("kicker", LIVES),
}


@pytest.fixture
def with_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts have the shard of lives/probe.toml, too."""
    folder = tmp_path / "shards"
    for manifest in SHARDS_FOLDER.glob("*/manifest.toml"):
        text = manifest.read_text()
        if manifest.parent.name in ("bootstrapper", "builder"):
            text = text.replace('"toolstack"]\nclass', '"toolstack", "probe"]\nclass')
        (folder / manifest.parent.name).mkdir(parents=True)
        (folder / manifest.parent.name / "manifest.toml").write_text(text)
    (folder / "probe").mkdir()
    shutil.copy(LIVES / "probe.toml", folder / "probe/manifest.toml")
    original = shardset.load_all
    monkeypatch.setattr(shardset, "load_all", lambda: original(folder))


def test_a_shard_is_what_it_was_whatever_it_does(state: None, logs: Path, with_probe: None) -> None:
    with launched("lives", TINY, logs, REPLACED) as host:
        host.wait_log("kicker: storm over|kicker: no answer|no snapshot of|can't wait", 0, timeout=400)
        log = host.log_since(0)
    assert "kicker: no answer" not in log
    lives = re.findall(r"probe life (\d+): (\w+)", log)
    assert {word for _, word in lives} == {"whole"}
    compared = re.findall(r"compared (\d+) frames: different (.*)", log)
    assert {found for _, found in compared} == {"[]"}
    assert [frames for frames, _ in compared].count(str(8 * 256)) == 60
    assert "kicker: done, to be asked after 1, 1000 ms" in log
    assert set(re.findall(r"refused: (.*)", log)) == {"-16 -16 -16 -16 -13"}


def test_logic_is_rolled_back_after_each_request_and_on_demand(
    state: None, logs: Path, request: pytest.FixtureRequest
) -> None:
    """Guests come and go meanwhile; some hundred rollbacks later Xen has what it had."""
    wanted = request.config.getoption("--rollbacks")
    with running("rolled", TINY, logs) as host:
        row = shown(host)
        assert row["policy"] == "after each request"
        host.create("g")
        host.wait_for("g", rb"login: ")
        before = shown(host)["rollbacks"]
        assert int(str(before)) > int(str(row["rollbacks"])) + 20
        told = host.json("reboot", "logic")
        assert told["cause"] in ("toolstack", "xenstore") and told["found"] == "none"
        assert 0 < told["pages"] < 500
        history = [entry for entry in host.json("reboot", "--history") if entry["shard"] == "logic"]
        lives = [entry["life"] for entry in history]
        assert lives == sorted(lives) and {entry["cause"] for entry in history} <= {
            "xenstore",
            "toolstack",
            "start",
        }

        roll_back(host, 50)  # whatever is allocated once
        counted = at_rest(host)
        _, ports, shared, free = counted
        others = all_rollbacks(host)
        records = roll_back(host, wanted)
        others = all_rollbacks(host) - others - wanted
        assert at_rest(host) == counted
        took = [record.total_us / 1000 for record in records]
        restored = [record.pages for record in records]
        half = wanted // 2
        growth = statistics.median(took[half:]) / statistics.median(took[:half])
        more_pages = statistics.median(restored[half:]) - statistics.median(restored[:half])
        kept = counted.pages[host.domid("restorer")]
        print(
            f"{wanted} rollbacks, and {others} of other shards meanwhile: "
            f"median {statistics.median(took):.1f} ms, {min(took):.1f} to "
            f"{max(took):.1f}; {statistics.median(restored):.0f} pages; Restorer has {kept} pages; "
            f"the second half took {growth:.2f} times as long as the first, with {more_pages:+.0f} pages; "
            f"event channels {ports}; "
            f"{len([line for line in shared if '[0x' in line])} grants; {free} KiB are free"
        )
        assert growth < MOST_GROWTH, "rollbacks take longer and longer"
        assert more_pages <= 1, "rollbacks restore more and more pages"
        host.destroy("g")
        assert int(str(shown(host)["rollbacks"])) > int(str(before)) + wanted
        assert not re.findall(r"Traceback|a bug|restorer: (?!ready)|crashed", host.log_since(0))


def shown(host: HostUnderTest) -> dict[str, object]:
    """Logic, as `xoar ps` shows it."""
    (row,) = [row for row in host.json("ps") if row["name"] == "logic"]
    return dict(row)


def all_rollbacks(host: HostUnderTest) -> int:
    """How many there were of all shards."""
    return sum(int(str(row.get("rollbacks") or 0)) for row in host.json("ps"))


def roll_back(host: HostUnderTest, count: int) -> list[object]:
    """So often, and what is told of each."""
    with host.client() as client:
        return [
            client.request("shard_reboot", 30, name="logic", timeout_ms=10_000).fields.rollback
            for _ in range(count)
        ]


class Counted(NamedTuple):
    """What Xen has: pages and event channels by domid, grants, free memory in KiB."""

    pages: dict[int, int]
    ports: dict[int, int]
    grants: list[str]
    free_kib: int


def at_rest(host: HostUnderTest) -> Counted:
    """What Xen has when no shard is in the middle of beginning a life: twice the same, a second apart."""
    last, deadline = None, time.monotonic() + 60
    while True:
        found = Counted(host.domains_in_xen(), open_ports(host), grants(host), host.free_kib())
        if found == last:
            return found
        assert time.monotonic() < deadline, (found, last)
        last = found
        time.sleep(1)


def open_ports(host: HostUnderTest) -> dict[int, int]:
    """Domid -> how many event channels Xen has for each domain but the last one."""
    last = max(host.domains_in_xen())
    text = host.debug_key("e", f"Event channel information for domain {last}")
    parts = re.split(r"Event channel information for domain (\d+):", text)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    return {
        int(domid): len(re.findall(r"^.*\d+ \[\d/\d/", part, re.MULTILINE))
        for domid, part in found
        if int(domid) != last
    }


def grants(host: HostUnderTest) -> list[str]:
    """What Xen has of each domain's grants: the page, and how often it is mapped."""
    text = host.debug_key("g", "gnttab_usage_print_all ] done")
    found = re.findall(r"^\(XEN\) (?:grant-table for remote|\[0x).*$", text, re.MULTILINE)
    assert any("[0x" in line for line in found), text
    return found


def test_without_restorer_xenstore_refuses_and_the_host_says_so(
    state: None, logs: Path, hostile_image: Path
) -> None:
    """Guests run on; nothing waits for ever."""
    config = f'[images.hostile]\nkernel = "{hostile_image}"\n'
    with running("no-restorer", config, logs, {"restorer": Replacement("ending_restorer", LIVES)}) as host:
        host.create("g", "hostile", "16MiB")
        host.wait_for("g", rb"hostile guest ready")
        host.ask("g", "store-read domid", rb"it says \d+ after")
        host.cli("reboot", "logic", status=TIMEOUT)
        host.wait_log(r"builder: domain \d+ \(restorer\) ended: crash", 0)
        # Logic is whole and answers once more
        host.ask("g", "store-read domid", rb"it says \d+ after")
        took = re.search(rb"it says EIO after (\d+) ms", host.ask("g", "store-read domid", rb"it says .* ms"))
        assert took and int(took[1]) < 60_000
        host.wait_log("xenstore: nobody rolls Logic back", 0)
        took = re.search(rb"it says EIO after (\d+) ms", host.ask("g", "store-read domid", rb"it says .* ms"))
        assert took and int(took[1]) < 5_000
        assert {row["name"]: row["state"] for row in host.json("ps")}["restorer"] == "crashed"
        assert "EIO" in host.cli("guest", "create", "h", "--image", "hostile", "--memory", "16MiB", status=1)
        assert b"echo on" in host.ask("g", "echo on", rb"echo on")


def test_a_storm_of_kicks_delays_nobody_for_long(state: None, logs: Path) -> None:
    replaced = {"toolstack": Replacement("storming_toolstack", LIVES)}
    with running("storm", TINY, logs, replaced) as host:
        start = host.log_position()
        host.create("g")
        host.wait_for("g", rb"login: ")
        host.wait_log("toolstack: storms", 0)
        host.wait_json(
            lambda rows: any(row["name"] == "logic" and row["rollbacks"] > 200 for row in rows), "ps"
        )
        host.destroy("g")
        assert not re.findall(r"Traceback|a bug|crashed", host.log_since(start))
