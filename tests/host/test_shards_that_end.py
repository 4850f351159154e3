"""A shard that ends is put back at once, whichever it is, and goes on."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from harness import HostUnderTest, running

from xoar.host.assembly import Replacement

RIGHTS = Path(__file__).parents[1] / "rights"
ENDING = ("logic", "builder", "console", "toolstack")
"""Each has a module there with which it ends as one of its first lives begins."""
SOON = 40.0
"""Seconds; Restorer would come to Console and Toolstack after minutes."""


def crashes(host: HostUnderTest) -> dict[str, Any]:
    return {entry["shard"]: entry for entry in host.json("reboot", "--history") if entry["found"] == "crash"}


def test_each_shard_that_ends_is_put_back(state: None, logs: Path) -> None:
    replaced = {name: Replacement(f"ending_{name}", RIGHTS) for name in ENDING}
    with running("ends", '[images.tiny]\nbuiltin = "tiny"\n', logs, replaced) as host:
        deadline = time.monotonic() + SOON + 5 * len(ENDING)
        found: dict[str, Any] = {}
        while set(found) != set(ENDING) - {"logic"}:
            assert time.monotonic() < deadline, sorted(found)
            try:
                host.json("ps")
                found |= crashes(host)
            except AssertionError:
                pass  # Console or the Toolstack is just at it
        assert (found["console"]["cause"], found["toolstack"]["cause"]) == ("builder", "builder")
        host.create("one")
        host.wait_for("one", rb"login: ")
        assert crashes(host)["logic"]["cause"] == "xenstore"
        host.destroy("one")
        log = host.log_since(0)
    assert set(re.findall(r"builder: domain \d+ \((\w+)\) ended: crash", log)) >= {"console", "toolstack"}
