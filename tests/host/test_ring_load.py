"""Rings under load: no byte of a shared page is lost while both sides write to it."""

from __future__ import annotations

from pathlib import Path

from harness import ATTACKS, running

from xoar.host.assembly import Replacement


def test_a_full_ring_carries_every_byte_while_guests_come_and_go(state: None, logs: Path) -> None:
    replaced = {"toolstack": Replacement("ring_load", ATTACKS)}
    with running("ring-load", '[images.tiny]\nbuiltin = "tiny"\n', logs, replaced) as host:
        found = host.wait_log(r"load carried, (\d+) guests built|Traceback|is cut off", 0, timeout=400)
        assert found[1], host.log_since(0)[-2000:]
        assert int(found[1]) > 10
