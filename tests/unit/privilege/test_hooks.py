"""The policy of this host against the checks that Xen makes (xen/xsm/flask/hooks.c) for what shards do.

Each function here restates the hooks of one operation; the rules must hold all that they ask for. So a
permission that an operation needs can't be forgotten in a manifest without a test that says which.
"""

import pytest

from xoar.privilege import bootplan, rules, shardset
from xoar.privilege.rules import Rule, channel_type, domain_type

SHARDS = shardset.load_all()
PLAN = bootplan.plan(SHARDS)
ALLOWED = set(rules.derive(SHARDS))
LINKS = [link for shard in PLAN.shards for link in shard.links]


def evtchn_unbound(caller: str, holder: str, remote: str) -> list[Rule]:
    """EVTCHNOP_alloc_unbound by `caller` with dom = holder, remote_dom = remote."""
    end = channel_type(holder)
    return [
        Rule(domain_type(caller), end, "event", "create"),
        Rule(end, domain_type(remote), "event", "bind"),
    ]


def evtchn_interdomain(holder: str, remote: str) -> list[Rule]:
    """EVTCHNOP_bind_interdomain by `holder` to an unbound end that `remote` holds."""
    return [
        *evtchn_unbound(holder, holder, remote),
        Rule(channel_type(remote), domain_type(holder), "event", "bind"),
    ]


def evtchn_send(holder: str) -> list[Rule]:
    return [Rule(domain_type(holder), channel_type(holder), "event", "send")]


def grant_map_and_unmap(mapper: str, owner: str) -> list[Rule]:
    """GNTTABOP_map_grant_ref without GNTMAP_readonly, and GNTTABOP_unmap_grant_ref."""
    return [
        Rule(domain_type(mapper), domain_type(owner), "grant", permission)
        for permission in ("map_read", "map_write", "unmap")
    ]


def building(builder: str, target: str) -> list[Rule]:
    """The hypercalls of xoar.builder.construct, in its order, and unpause."""
    on_target = (
        ("domain", "create"),  # XEN_DOMCTL_createdomain
        ("domain", "max_vcpus"),
        ("domain", "setdomainmaxmem"),
        ("mmu", "adjust"),  # XENMEM_populate_physmap
        ("domain2", "resource_map"),  # XENMEM_acquire_resource of its grant table
        ("hvm", "setparam"),
        ("mmu", "map_read"),  # XENMAPSPACE_gmfn_foreign
        ("mmu", "map_write"),
        ("hvm", "gethvmc"),
        ("hvm", "sethvmc"),
        ("domain", "unpause"),
        ("domain", "getdomaininfo"),
    )
    caller = domain_type(builder)
    return [
        Rule(caller, "security_t", "security", "check_context"),  # FLASK_CONTEXT_TO_SID
        Rule(caller, caller, "mmu", "physmap"),  # XENMEM_add_to_physmap, XENMEM_remove_from_physmap
        *(Rule(caller, domain_type(target), *what) for what in on_target),
    ]


@pytest.mark.parametrize("link", [*LINKS, *PLAN.guest_links], ids=lambda link: f"{link.client}-{link.server}")
def test_every_link_can_be_wired_bound_mapped_and_signalled(link):
    builder = SHARDS.root.name if link in LINKS else "builder"
    needed = evtchn_unbound(builder, link.client, link.server)
    needed += evtchn_interdomain(link.server, link.client)
    needed += evtchn_send(link.client) + evtchn_send(link.server)
    needed += grant_map_and_unmap(link.server, link.client)
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


@pytest.mark.parametrize("name", [shard.manifest.name for shard in PLAN.shards])
def test_every_shard_can_be_built_and_can_say_that_it_is_ready(name):
    root = SHARDS.root.name
    needed = building(root, name)
    needed += evtchn_unbound(root, root, name) + evtchn_interdomain(name, root) + evtchn_send(name)
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


def test_guests_can_be_built_and_destroyed():
    needed = [*building("builder", "guest"), Rule("builder_t", "guest_t", "domain", "destroy")]
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


def test_the_serial_port_can_be_given_to_its_owner():
    """flask_ioport_permission: the giver on the owner, the giver and the owner on the ports' label."""
    needed = {
        Rule("bootstrapper_t", "console_t", "resource", "add"),
        Rule("bootstrapper_t", "console_ioport_t", "resource", "add_ioport"),
        Rule("console_t", "console_ioport_t", "resource", "use_noiommu"),
    }
    assert needed <= ALLOWED


@pytest.mark.parametrize("name", ["xenstore", "console"])
def test_xenstore_and_console_map_nothing_but_grants(name):
    """No foreign mapping; the only `mmu` right is to place a page in the domain's own memory."""
    own = domain_type(name)
    assert [rule for rule in ALLOWED if rule.source == own and rule.security_class == "mmu"] == [
        Rule(own, own, "mmu", "physmap")
    ]
    assert not any(
        rule.source == own and rule.security_class in ("domain", "domain2", "shadow") for rule in ALLOWED
    )


def test_only_bootstrapper_and_builder_have_rights_of_control():
    holders = {
        rule.source
        for rule in ALLOWED
        if rule.security_class in ("domain", "domain2", "shadow") and rule.source != rule.target
    }
    assert holders == {"xenboot_t", "bootstrapper_t", "builder_t"}
