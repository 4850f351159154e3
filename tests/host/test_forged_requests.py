"""Shards taken over, which send to others what they may not: it is refused, and the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import ATTACKS, SHARDS, HostUnderTest, running
from taken_over import ENOENT, EPERM, forged

from xoar.host.assembly import Replacement

DONE = {("builder", "flood"): "domain_list"}


@pytest.mark.parametrize("shard", ["toolstack", "console"])
def test_forged_requests_are_refused(state: None, logs: Path, hostile_image: Path, shard: str) -> None:
    text = f'[images.hostile]\nkernel = "{hostile_image}"\n'
    replaced = {shard: Replacement(f"forging_{shard}", ATTACKS)}
    with running(f"forging-{shard}", text, logs, replaced) as host:
        guest = host.create("g", "hostile", "16MiB")
        host.wait_log(r"forging done|Traceback", 0, timeout=300)
        check_alive(host, guest)
        log = host.log_since(0)
    answers = forged(log)
    assert len(answers) == (66 if shard == "toolstack" else 6)
    for what, answer in answers.items():
        assert answer == DONE.get(what) or answer in (EPERM, ENOENT, "EACCES", "ENOENT"), f"{what}: {answer}"
    for word in ("Traceback", "a bug", "crashed"):
        assert word not in log


def check_alive(host: HostUnderTest, guest: int) -> None:
    """No domain has ended, and who sleeps wakes up when there is something to do."""
    assert {*range(1, len(SHARDS) + 1), guest} <= set(host.domains_in_xen())
