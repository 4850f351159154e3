"""Every shard taken over in turn: what Xen lets it do is what the manifests state, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import ATTACKS, launched

from xoar.host.assembly import Replacement
from xoar.privilege import rules, shardset
from xoar.privilege.rules import Rule

SHARDS = ("xenstore", "console", "builder", "toolstack")  # of domids 1 to 4

# What FLASK checks for what some shard may do, by Xen's xsm/flask/hooks.c
CHECKED = {
    ("domctl", 5): ("domain", "getdomaininfo"),
    ("sysctl", 1): ("xen", "readconsole"),
    ("sysctl", 3): ("xen", "physinfo"),
    ("sysctl", 16): ("xen", "physinfo"),
    ("sysctl", 17): ("xen", "physinfo"),
    ("sysctl", 22): ("xen", "physinfo"),
    ("sysctl", 29): ("xen", "physinfo"),
    ("xsm_op", 4): ("security", "check_context"),
    ("xsm_op", 5): ("security", "check_context"),
}
# What Xen lets any domain do, since it asks nobody: nothing of it tells of, or changes, another domain
UNCHECKED = {
    ("sysctl", 6): "getdomaininfolist: shows only domains on which the asker has getdomaininfo",
    ("memory_op", 2): "maximum_ram_page",
    ("memory_op", 18): "get_sharing_freed_pages",
    ("memory_op", 19): "get_sharing_shared_pages",
    ("memory_op", 27): "reserved_device_memory_map: of a machine that has none",
    ("hvm_op", 5): "flush_tlbs: the asker's own",
    ("hvm_op", 10): "get_time",
    ("hvm_op", 11): "xentrace: an entry in the trace buffer",
    ("hvm_op", 23): "set_evtchn_upcall_vector: the asker's own",
    ("hvm_op", 24): "guest_request_vm_event: about the asker",
    ("xsm_op", 2): "getenforce",
    ("xsm_op", 3): "setenforce to what it is already",
    ("xsm_op", 10): "policyvers",
    ("xsm_op", 11): "getbool: there is none",
    ("xsm_op", 14): "mls: whether the policy has levels",
    ("xsm_op", 16): "getavc_threshold",
    ("xsm_op", 18): "avc_hashstats",
    ("xsm_op", 19): "avc_cachestats",
    ("xsm_op", 23): "get_peer_sid: of the asker's own event channel",
}


def rule_behind(shard: str, hypercall: str, operation: int, victim: str) -> Rule:
    """The rule that allows a shard something that it did."""
    own, other = f"{shard}_t", "xen_t" if victim == "-" else f"{SHARDS[int(victim) - 1]}_t"
    if hypercall == "map_grant_ref":
        return Rule(own, other, "grant", "map_read")
    if hypercall == "event_channel_op" and operation == 0:  # bind_interdomain
        return Rule(f"{own}_channel", other, "event", "bind")
    assert (hypercall, operation) in CHECKED, f"{hypercall} {operation} on {victim} is not refused"
    security_class, permission = CHECKED[hypercall, operation]
    return Rule(own, "security_t" if security_class == "security" else other, security_class, permission)


@pytest.mark.parametrize("shard", SHARDS)
def test_a_shard_taken_over_reaches_what_its_manifest_states(state: None, logs: Path, shard: str) -> None:
    text = '[images.tiny]\nbuiltin = "tiny"\n'
    # nobody waits for it to serve
    with launched(f"sweep-{shard}", text, logs, {shard: Replacement("sweep", ATTACKS)}) as host:
        host.wait_log(r"sweep done|Traceback", 0, timeout=240)
        log = host.log_since(0)
    assert "Traceback" not in log
    stated = rules.derive(shardset.load_all())
    own = str(SHARDS.index(shard) + 1)
    refused = {
        Rule(f"{shard}_t", target, security_class, permission)
        for permissions, target, security_class in re.findall(
            rf"avc: *denied *{{ ([a-z_0-9 ]+) }}.*scontext=system_u:system_r:{shard}_t"
            r" tcontext=system_u:\w+:(\w+) tclass=(\w+)",
            log,
        )
        for permission in permissions.split()
    }
    reached = {
        (hypercall, int(operation), victim)
        for hypercall, operation, victim, _ in re.findall(r"reached (\w+) (\d+) (\S+) (-?\d+)", log)
        if victim != own
    }
    assert not refused & set(stated), "refused, though a manifest states it"
    for hypercall, operation, victim in sorted(reached):
        if (hypercall, operation) not in UNCHECKED:
            rule = rule_behind(shard, hypercall, operation, victim)
            assert rule in stated, f"{hypercall} {operation} on {victim}: no manifest states {rule}"
    for other in SHARDS:
        if other != shard:
            for right in ("pause", "destroy", "setvcpucontext", "getvcpucontext"):
                assert Rule(f"{shard}_t", f"{other}_t", "domain", right) in refused
            assert Rule(f"{shard}_t", f"{other}_t", "mmu", "adjust") in refused
    assert Rule(f"{shard}_t", "security_t", "security", "setenforce") in refused
