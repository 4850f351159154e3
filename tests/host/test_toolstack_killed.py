"""A Toolstack that ends half-way through the creation of a guest leaves nothing of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

from harness import ATTACKS, HostUnderTest, running

from xoar.host.assembly import Replacement


def domains(host: HostUnderTest) -> set[int]:
    text = host.debug_key("q", "Shared frames")
    return {int(found) for found in re.findall(r"General information for domain (\d+):", text)}


def test_a_toolstack_that_dies_leaves_no_half_created_guest(state: None, logs: Path) -> None:
    replaced = {"toolstack": Replacement("dying_toolstack", ATTACKS)}
    with running("dying", '[images.tiny]\nbuiltin = "tiny"\n', logs, replaced) as host:
        found = host.wait_log(r"built domain (\d+), it took (\d+) KiB", 0)
        assert int(found[2]) >= 32768
        host.wait_log(r"builder: domain 5 \(toolstack\) ended: crash", 0)
        deadline = time.monotonic() + 30
        while int(found[1]) in domains(host):
            assert time.monotonic() < deadline, "the half-created guest is still there"
        assert {1, 2, 3, 4} <= domains(host)
