"""What a taken-over domain reached, by its own words and by Xen's log, held against what manifests state.

For a sweep the policy is as shipped, and besides has Xen log what it grants to the attacker (`auditallow`):
so a run says of each right whether it was found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from xoar.privilege import flask, rules, shardset
from xoar.privilege.rules import Rule
from xoar.privilege.shardset import ShardSet
from xoar.privilege.vectors import AccessVectors

EPERM, ENOENT, EINVAL = "1", "2", "22"

OFTEN_ASKED = "domain destroy"
"""For `audit`: what Xen asks anew for each part of one piece of work."""

# What FLASK checks for what somebody may do, by Xen's xsm/flask/hooks.c
CHECKED = {
    ("sysctl", "1"): "xen readconsole",
    ("sysctl", "3"): "xen physinfo",
    ("sysctl", "16"): "xen physinfo",
    ("sysctl", "17"): "xen physinfo",
    ("sysctl", "22"): "xen physinfo",
    ("sysctl", "29"): "xen physinfo",
    ("xsm_op", "4"): "security check_context",
    ("xsm_op", "5"): "security check_context",
    ("xsm_op", "12"): "security setbool",
    ("xsm_op", "13"): "security setbool",
    ("console_io", "0"): "xen writeconsole",
    ("console_io", "1"): "xen readconsole",
    ("xen_version", "1"): "version xen_extraversion",
    ("xen_version", "2"): "version xen_compile_info",
    ("xen_version", "3"): "version xen_capabilities",
    ("xen_version", "4"): "version xen_changeset",
    ("xen_version", "7"): "version xen_pagesize",
    ("xen_version", "8"): "version xen_guest_handle",
    ("domctl", "2"): "domain destroy",
    ("domctl", "3"): "domain pause",
    ("domctl", "4"): "domain unpause",
    ("domctl", "5"): "domain getdomaininfo",
    ("domctl", "11"): "domain setdomainmaxmem",
    ("domctl", "12"): "domain setvcpucontext",
    ("domctl", "15"): "domain max_vcpus",
    ("domctl", "10"): "shadow logdirty",
    ("domctl", "27"): "domain resume",
    ("domctl", "33"): "hvm gethvmc",
    ("domctl", "34"): "hvm sethvmc",
    ("domctl", "37"): "resource add",
    ("domctl", "45"): "resource add",
    ("domctl", "42"): "domain setvcpucontext",
    ("domctl", "55"): "hvm gethvmc",
    ("domctl", "60"): "domain2 settsc",
    ("domctl", "62"): "domain setvcpucontext",
    ("domctl", "73"): "domain setvcpucontext",
    ("event_channel_op", "0"): "event bind",
    ("event_channel_op", "offer"): "event bind",
    ("grant_table_op", "map"): "grant map_read",
    ("grant_table_op", "unmap"): "grant unmap",
    ("grant_table_op", "query"): "grant query",
    ("grant_table_op", "setup"): "grant setup",
    ("hvm_op", "0"): "hvm setparam",
    ("hvm_op", "1"): "hvm getparam",
    ("memory_op", "3"): "mmu stat",
    ("memory_op", "6"): "mmu adjust",
    ("memory_op", "13"): "mmu memorymap",
    ("memory_op", "28"): "domain2 resource_map",
    ("memory_op", "foreign"): "mmu map_write",
    ("memory_op", "resource1"): "domain2 resource_map",
    ("physdev_op", "13"): "resource add",
    ("physdev_op", "14"): "resource remove",
    ("physdev_op", "27"): "resource setup",
    ("physdev_op", "30"): "resource setup",
    ("physdev_op", "31"): "resource setup",
}
# What Xen lets any domain do, since it asks nobody: nothing of it tells of, or changes, another domain
UNCHECKED = {
    ("sysctl", "6"): "getdomaininfolist: shows only domains on which the asker has getdomaininfo",
    ("memory_op", "2"): "maximum_ram_page",
    ("memory_op", "12"): "machphys_mapping: where Xen shows all PV domains its table of machine frames",
    ("memory_op", "18"): "get_sharing_freed_pages",
    ("memory_op", "19"): "get_sharing_shared_pages",
    ("memory_op", "27"): "reserved_device_memory_map: of a machine that has none",
    ("hvm_op", "5"): "flush_tlbs: the asker's own",
    ("hvm_op", "10"): "get_time",
    ("hvm_op", "11"): "xentrace: an entry in the trace buffer",
    ("hvm_op", "23"): "set_evtchn_upcall_vector: the asker's own",
    ("hvm_op", "24"): "guest_request_vm_event: about the asker",
    ("xsm_op", "2"): "getenforce",
    ("xsm_op", "3"): "setenforce to what it is already",
    ("xsm_op", "10"): "policyvers",
    ("xsm_op", "11"): "getbool: which optional rights are on",
    ("xsm_op", "14"): "mls: whether the policy has levels",
    ("xsm_op", "16"): "getavc_threshold",
    ("xsm_op", "18"): "avc_hashstats",
    ("xsm_op", "19"): "avc_cachestats",
    ("xsm_op", "23"): "get_peer_sid: of the asker's own event channel",
    ("physdev_op", "4"): "irq_unmask_notify: the asker's own",
    ("physdev_op", "5"): "irq_status_query: the asker's own",
    ("xen_version", "0"): "version",
    ("xen_version", "5"): "platform_parameters",
    ("xen_version", "6"): "get_features",
}
# What Xen refuses with EINVAL, before it asks FLASK, for a PV domain
_NOT_FOR_PV = {("dm_op", str(number)) for number in range(32)}
_NOT_FOR_PV |= {("hvm_op", "0"), ("hvm_op", "1"), ("domctl", "38"), ("domctl", "48")}
_PV = ("netback_t", "blkback_t")
# What manifests state and no sweep can find, and why
_LINUX = (("mmu", "map_read"), ("mmu", "map_write"), ("mmu", "mmuext_op"), ("mmu", "pinpage"))
_ALL_THE_TIME = "Linux does that all the time, which is not logged; without it no driver domain would run"
_ENDED = "Bootstrapper has ended when Builder is taken over"
NOT_FOUND = {Rule("builder_t", "bootstrapper_t", "domain", "destroy"): _ENDED}
for _kind in ("netback", "blkback"):
    _own, _guest = f"{_kind}_t", "the guest of the sweep has no devices, and so grants no page to unmap"
    NOT_FOUND[Rule(_own, "guest_t", "grant", "unmap")] = _guest
    NOT_FOUND[Rule(_own, f"{_own}_channel", "event", "send")] = _ALL_THE_TIME
    NOT_FOUND |= {Rule(_own, f"{_own}_self", *right): _ALL_THE_TIME for right in _LINUX}
# Every domain must have been seen to be refused these on every other that it has no right on
_ALWAYS = ("domain pause", "domain destroy", "domain setvcpucontext", "domain getvcpucontext", "mmu adjust")
_AVC = re.compile(
    r"avc: *(denied|granted) *\{ ([a-z_0-9 ]+) \}.*scontext=\w+:\w+:(\w+) tcontext=\w+:\w+:(\w+) tclass=(\w+)"
)


@dataclass(frozen=True)
class Outcome:
    """What one attacker tried: by FLASK's word, and by its own (hypercall, operation, victim, result)."""

    granted: frozenset[Rule]
    refused: frozenset[Rule]
    reached: frozenset[tuple[str, str, str, str]]


def audit(monkeypatch: pytest.MonkeyPatch, *attackers: str, but: str = "nothing") -> None:
    """Has hosts log what FLASK grants to these, but for rules that match `but`: those used all the time."""
    sources = {source for name in attackers for source in (f"{name}_t", f"{name}_t_channel")}
    original = flask.generate

    def generate(shards: ShardSet, access_vectors: AccessVectors) -> str:
        audited = [
            f"audit{rule}"
            for rule in rules.derive(shards)
            if rule.source in sources and not re.search(but, str(rule))
        ]
        types, rest = original(shards, access_vectors).split("\nrole system_r;", 1)
        return "\n".join([types, *audited, "role system_r;"]) + rest

    monkeypatch.setattr(flask, "generate", generate)


def outcome(attacker: str, said: str, log: str) -> Outcome:
    """`said`: the attacker's own lines; `log`: Xen's."""
    own = (f"{attacker}_t", f"{attacker}_t_channel")
    by_word: dict[str, set[Rule]] = {"granted": set(), "denied": set()}
    for word, permissions, source, target, security_class in _AVC.findall(log):
        if source in own:
            by_word[word] |= {Rule(source, target, security_class, name) for name in permissions.split()}
    reached = re.findall(r"reached (\w+) (\w+) (\S+) (-?\d+)", said)
    return Outcome(frozenset(by_word["granted"]), frozenset(by_word["denied"]), frozenset(reached))


def judge(
    attacker: str, found: Outcome, types: dict[str, str], devices: bool = False, elsewhere: str = "nothing"
) -> None:
    """Asserts that what was reached is what manifests state, as far as it is about who was there.

    `types`: those of the victims, by domid; `devices`: whether the host has some; rules that match
    `elsewhere` are found by another test.
    """
    stated = rules.at_boot(rules.derive(shardset.load_all()))
    own = f"{attacker}_t"
    wrong = [f"refused, though a manifest states it: {rule}" for rule in found.refused & set(stated)]
    wrong += [f"granted, though no manifest states it: {rule}" for rule in found.granted - set(stated)]
    rights = set(found.granted)
    for hypercall, operation, victim, result in found.reached:
        asked = (hypercall, operation)
        not_for_it = asked in _NOT_FOR_PV and types.get(victim) in _PV and result == "-22"
        if asked not in UNCHECKED and not not_for_it:
            rule = behind(attacker, hypercall, operation, victim, types)
            if rule in stated:
                rights.add(rule)
            else:
                wrong.append(f"{hypercall} {operation} on {victim} is not refused; a right to it: {rule}")
    for target in set(types.values()):
        for security_class, permission in map(str.split, _ALWAYS):
            rule = Rule(own, target, security_class, permission)
            if rule not in found.refused and rule not in stated:
                wrong.append(f"not tried: {rule}")
    others = {*types.values(), "bootstrapper_t"}
    there = {*others, *(f"{name}_channel" for name in others), own, f"{own}_self", f"{own}_channel"}
    there |= {"xen_t", "security_t"}
    there |= {"device_t", "iomem_t"} if devices else set()
    mine = {rule for rule in stated if rule.source in (own, f"{own}_channel") and rule.target in there}
    missed = [rule for rule in mine - rights - set(NOT_FOUND) if not re.search(elsewhere, str(rule))]
    wrong += [f"stated, but not found: {rule}" for rule in missed]
    assert not wrong, "\n".join(sorted(wrong))


def behind(attacker: str, hypercall: str, operation: str, victim: str, types: dict[str, str]) -> Rule | None:
    """The rule that stands behind what was not refused, if one can."""
    own = f"{attacker}_t"
    check = CHECKED.get((hypercall, operation))
    if check is None:
        return None
    security_class, permission = check.split()
    if security_class == "security":
        return Rule(own, "security_t", security_class, permission)
    if victim == "-":
        return Rule(own, "xen_t", security_class, permission)
    if victim == "self":
        manifest = shardset.load_all().manifests[attacker]
        return Rule(own, rules.self_type(manifest), security_class, permission)
    domid = victim.split(",")[0]
    if domid.startswith("d"):
        return Rule(own, "device_t", security_class, permission)
    source = f"{own}_channel" if permission == "bind" else own
    return Rule(source, types[domid], security_class, permission)


def forged(log: str) -> dict[tuple[str, str], str]:
    """Answers to forged requests (attacks/forging.py): by server and request, a kind or error number."""
    found = re.findall(r"forged (\w+) (\S+) (.+?)\r?$", log, re.MULTILINE)
    return {(server, what): answer for server, what, answer in found}
