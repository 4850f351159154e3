"""A host that is up: which domains it has, what they hold, and that the policy is enforced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import ATTACKS, HostUnderTest, running

from xoar.host.assembly import Replacement
from xoar.host.errors import HostError
from xoar.privilege import shardset

CONTROL_PLANE_KIB = 128 << 10


def test_the_shards_of_the_manifests_run_and_no_domain_0(host: HostUnderTest) -> None:
    rows = host.wait_json(lambda rows: rows[0]["name"] != "bootstrapper", "ps")
    shards = (m for level in shardset.load_all().levels for m in level)
    lasting = [m for m in shards if m.lives == "forever"]
    assert [row["name"] for row in rows] == [m.name for m in lasting]
    assert [row["label"] for row in rows] == [m.label for m in lasting]
    keys = {"id", "name", "kind", "label", "memory_kib", "vcpus", "state", "age_s", "owner", "driver"}
    keys |= {"policy", "rollbacks", "rollback_age_ms"}
    assert all(set(row) == keys for row in rows)
    assert all(row["kind"] == "shard" and row["id"] > 0 for row in rows)


def test_ps_agrees_with_xen_itself(host: HostUnderTest) -> None:
    host.create("one")
    host.wait_for("one", rb"login: ")  # a guest that boots gives some pages back
    told = {row["id"]: row["memory_kib"] for row in host.json("ps")}
    assert 0 not in told
    assert {domid: pages * 4 for domid, pages in host.domains_in_xen().items()} == told


def test_all_shards_together_fit_into_128_mib(host: HostUnderTest) -> None:
    assert sum(row["memory_kib"] for row in host.json("ps")) <= CONTROL_PLANE_KIB


def test_the_policy_is_enforced_from_the_start(host: HostUnderTest) -> None:
    text = host.log_since(0)
    assert "Flask:  Starting in enforcing mode." in text
    assert not re.search(r"avc:.*scontext=system_u:system_r:(xenstore|console|builder|toolstack)_t", text)


def test_no_shard_has_a_right_to_map_foreign_memory_but_builder() -> None:
    for manifest in shardset.load_all().manifests.values():
        foreign = [r for r in manifest.rights if r.security_class == "mmu" and r.on not in ("self", "xen")]
        assert not foreign or manifest.name in ("builder", "bootstrapper"), manifest.name


def test_a_shard_that_fails_to_start_stops_the_boot_and_is_named(state: None, logs: Path) -> None:
    replaced = {"console": Replacement("failing_shard", ATTACKS)}
    with (
        pytest.raises(HostError) as error,
        running("failing", '[images.tiny]\nbuiltin = "tiny"\n', logs, replaced),
    ):
        pass
    told = str(error.value)
    assert "console ended while it started" in told
    assert "no serial port today" in told
