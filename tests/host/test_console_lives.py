"""Console is rolled back while operators use it, after it hung, and when it was taken over."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from harness import HostUnderTest, running

from xoar.host.assembly import Replacement
from xoar.host.client import Stream

LIVES = Path(__file__).parent / "lives"
TINY = '[images.tiny]\nbuiltin = "tiny"\n'
ROLLBACKS = 5
PERMISSION_DENIED = -8  # GNTST_permission_denied


def lives(host: HostUnderTest) -> int:
    """How often Console was rolled back."""
    (row,) = [row for row in host.json("ps") if row["name"] == "console"]
    return int(row["rollbacks"])


def rollbacks(host: HostUnderTest) -> list[str]:
    """The causes of Console's, the oldest first, as far as they are kept: other shards' count, too."""
    return [entry["cause"] for entry in host.json("reboot", "--history") if entry["shard"] == "console"]


def answered(stream: Stream, pattern: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    while not re.search(pattern, seen):
        assert time.monotonic() < deadline, f"no {pattern!r} in {seen[-500:]!r}"
        seen += stream.read(1.0)
    return seen


def test_sessions_go_on_over_rollbacks(state: None, logs: Path) -> None:
    with running("sessions", TINY, logs) as host:
        (row,) = [row for row in host.json("ps") if row["name"] == "console"]
        assert row["policy"] == "when idle and after 120 s"
        host.create("talker")
        host.wait_for("talker", rb"login: ")
        with host.client() as client:
            log = client.log(host.domid("talker"), follow=True)
            console = client.console(host.domid("talker"))
            console.write(b"root\n")
            answered(console, rb"# ")
            before, asked = lives(host), 0
            deadline = time.monotonic() + 240
            while lives(host) < before + ROLLBACKS:
                assert time.monotonic() < deadline
                for _ in range(5):
                    asked += 1
                    console.write(f"echo =$(({asked}+1000))=\n".encode())
                    answered(console, f"={asked + 1000}=\r\n".encode())
            told = host.json("reboot", "console")
            assert told["found"] == "none" and told["pages"] > 0
            console.write(b"echo the $((1+1))nd end\n")
            answered(console, rb"the 2nd end\r\n")
            seen = answered(log, rb"the 2nd end\r\n")
        assert re.findall(rb"\n=(\d+)=\r", seen) == [str(n + 1000).encode() for n in range(1, asked + 1)]
        assert set(rollbacks(host)) <= {"start", "itself", "toolstack"}
        host.destroy("talker")
        assert not re.findall(r"Traceback|a bug|bug:|crashed|recovery box", host.log_since(0))


def test_what_is_planted_in_it_is_gone_in_its_next_life(state: None, logs: Path) -> None:
    replaced = {"console": Replacement("planting_console", LIVES)}
    with running("plants", TINY, logs, replaced) as host:
        host.create("victim")
        deadline = time.monotonic() + 240
        log = ""
        while len(re.findall(r"mapped: ", log)) < 5:
            assert time.monotonic() < deadline, log[-3000:]
            host.json("ps")
            log = host.log_since(0)
        host.wait_for("victim", rb"login: ")
        host.destroy("victim")
        log = host.log_since(0)
    ended = re.findall(r"life \d+: (\w+)", log)
    assert ended.count("whole") > 5 and set(ended) == {"whole"}
    assert {int(status) for status in re.findall(r"mapped: (-?\d+)", log)} == {PERMISSION_DENIED}
    refused = re.findall(r"console: the recovery box: (.*)", log)
    assert len(refused) >= 10
    assert not re.findall(r"Traceback|a bug|bug:|crashed", log)


@pytest.mark.soak
def test_one_that_hangs_is_put_back_in_its_time(state: None, logs: Path) -> None:
    with running("hangs", TINY, logs, {"console": Replacement("hanging_console", LIVES)}) as host:
        host.create("one")
        deadline = time.monotonic() + 400
        causes: list[str] = []
        while "timer" not in causes:
            assert time.monotonic() < deadline, causes
            with contextlib.suppress(AssertionError):  # for two minutes at most
                causes = rollbacks(host)
        host.wait_for("one", rb"login: ")
        assert "console: hangs" in host.log_since(0)
