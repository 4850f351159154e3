"""Every shard taken over in turn: what Xen lets it do is what the manifests state, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import ATTACKS, SHARDS, running
from taken_over import OFTEN_ASKED, audit, judge, outcome

from xoar.host.assembly import Replacement

# The domains that taken_builder.py makes
BUILT = {str(domid): f"{name}_t" for domid, name in enumerate(("guest", "pciback", "netback", "blkback"), 40)}
# What Builder is found to have only where there are real driver domains: test_drivers_taken_over.py
BY_BUILDERS_WORK = "builder_t (pciback_t:grant unmap|(net|blk)back_t:mmu pinpage);"


@pytest.mark.parametrize("shard", SHARDS)
def test_a_shard_taken_over_reaches_what_its_manifest_states(
    state: None, logs: Path, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    audit(monkeypatch, shard, but=OFTEN_ASKED)
    replaced = {shard: Replacement(f"taken_{shard}", ATTACKS)}
    with running(f"taken-{shard}", '[images.tiny]\nbuiltin = "tiny"\n', logs, replaced) as host:
        types = {str(domid): f"{name}_t" for domid, name in enumerate(SHARDS, 1) if name != shard}
        types[str(host.create("victim"))] = "guest_t"
        host.wait_log(r"sweep done|Traceback|crashed", 0, timeout=240)
        log = host.log_since(0)
    if shard == "builder":
        types |= BUILT
    found = re.search(r"sweep done: (.*)", log)
    assert found and found[1].split() == list(types)
    judge(shard, outcome(shard, log, log), types, elsewhere=BY_BUILDERS_WORK)


def test_a_guest_reaches_what_the_manifest_of_guests_states(
    state: None, logs: Path, monkeypatch: pytest.MonkeyPatch, hostile_image: Path
) -> None:
    audit(monkeypatch, "guest")
    with running("taken-guest", f'[images.hostile]\nkernel = "{hostile_image}"\n', logs) as host:
        types = {str(domid): f"{name}_t" for domid, name in enumerate(SHARDS, 1)}
        types[str(host.create("victim", "hostile", "16MiB"))] = "guest_t"
        host.create("g", "hostile", "16MiB")
        host.wait_for("g", rb"hostile guest ready")
        said = host.ask("g", f"sweep {' '.join(types)}", rb"sweep done", 240).decode()
        log = host.said_since(0)
    judge("guest", outcome("guest", said, log), types)
