"""The policy of this host against the checks that Xen makes (xen/xsm/flask/hooks.c) for what shards do.

Each function here restates the hooks of one operation; the rules must hold all that they ask for. So a
permission that an operation needs can't be forgotten in a manifest without a test that says which.
"""

import pytest

from xoar.privilege import bootplan, rules, shardset
from xoar.privilege.manifest import Manifest
from xoar.privilege.rules import Rule, channel_type, domain_type

SHARDS = shardset.load_all()
PLAN = bootplan.plan(SHARDS)
ALLOWED = set(rules.derive(SHARDS))
DRIVERS = [driver.name for driver in SHARDS.drivers]
FRONTENDS = [
    (manifest.name, frontend.server, frontend.protocol)
    for manifest in SHARDS.manifests.values()
    for frontend in manifest.frontends
]
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


def grant_copy(one: str, other: str) -> list[Rule]:
    """GNTTABOP_copy both ways: flask_grant_copy, source to destination."""
    return [
        Rule(domain_type(source), domain_type(destination), "grant", "copy")
        for source, destination in ((one, other), (other, one))
    ]


def grant_map_and_unmap(mapper: str, owner: str) -> list[Rule]:
    """GNTTABOP_map_grant_ref without GNTMAP_readonly, and GNTTABOP_unmap_grant_ref if the owner can end; or
    copies, by a server that maps nothing."""
    if mapper in SHARDS.manifests and SHARDS.manifests[mapper].copies:
        return grant_copy(mapper, owner)
    lasting = owner in {shard.manifest.name for shard in PLAN.shards}
    return [
        Rule(domain_type(mapper), domain_type(owner), "grant", permission)
        for permission in ("map_read", "map_write", *(() if lasting else ("unmap",)))
    ]


def building(builder: str, target: str) -> list[Rule]:
    """The hypercalls of xoar.builder.construct, in its order, and unpause."""
    on_target = (
        ("domain", "create"),  # XEN_DOMCTL_createdomain
        ("domain", "max_vcpus"),
        ("domain", "setdomainmaxmem"),
        ("mmu", "adjust"),  # XENMEM_populate_physmap
        ("domain2", "resource_map"),  # XENMEM_acquire_resource of its grant table
        ("mmu", "map_read"),  # XENMAPSPACE_gmfn_foreign
        ("mmu", "map_write"),
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


def saved_header(builder: str, target: str) -> Rule:
    """XEN_DOMCTL_gethvmcontext, of the first domain that the builder builds."""
    return Rule(domain_type(builder), domain_type(target), "hvm", "gethvmc")


def pv_building(builder: str, target: str) -> list[Rule]:
    """The hypercalls of xoar.builder.driver."""
    on_target = (
        ("domain", "create"),
        ("domain", "max_vcpus"),
        ("domain", "setdomainmaxmem"),
        ("domain2", "settsc"),  # XEN_DOMCTL_settscinfo
        ("domain2", "setscheduler"),  # XEN_DOMCTL_scheduler_op
        ("mmu", "adjust"),
        ("domain2", "resource_map"),
        ("domain", "getdomaininfo"),  # where its shared info page is
        ("mmu", "map_read"),
        ("mmu", "map_write"),
        ("mmu", "mmuext_op"),  # MMUEXT_PIN_L4_TABLE: flask_mmuext_op,
        ("mmu", "pinpage"),  # then flask_memory_pin_page
        ("domain", "setvcpucontext"),
        ("domain", "unpause"),
        ("domain", "destroy"),
    )
    return [Rule(domain_type(builder), domain_type(target), *what) for what in on_target]


def iomem_permission(giver: str, user: str, use: str) -> list[Rule]:
    """XEN_DOMCTL_iomem_permission and XEN_DOMCTL_memory_mapping: flask_iomem_permission."""
    return [
        Rule(domain_type(giver), domain_type(user), "resource", "add"),
        Rule(domain_type(giver), "iomem_t", "resource", "add_iomem"),
        Rule(domain_type(user), "iomem_t", "resource", use),
    ]


def assign_device(giver: str, user: str) -> list[Rule]:
    """XEN_DOMCTL_assign_device to a domain behind the IOMMU: flask_assign_device."""
    return [
        Rule(domain_type(giver), domain_type(user), "resource", "add"),
        Rule(domain_type(giver), "device_t", "resource", "add_device"),
        Rule(domain_type(user), "device_t", "resource", "use_iommu"),
    ]


def serve_configuration_space(server: str, user: str) -> list[Rule]:
    """What PCIBack does to a device and for the domain that has it."""
    own, device = domain_type(server), "device_t"
    return [
        Rule(own, device, "resource", "setup"),  # PHYSDEVOP_prepare_msix, release_msix; writes to BARs
        Rule(own, device, "resource", "use_noiommu"),  # other writes: flask_pci_config_permission
        Rule(own, domain_type(user), "resource", "add"),  # PHYSDEVOP_map_pirq: flask_map_domain_pirq,
        Rule(own, device, "resource", "add_irq"),  # then flask_map_domain_irq of an MSI:
        Rule(domain_type(user), device, "resource", "use_iommu"),
        Rule(own, domain_type(user), "resource", "remove"),  # PHYSDEVOP_unmap_pirq
        Rule(own, device, "resource", "remove_irq"),
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
    if name == PLAN.shards[0].manifest.name:
        needed.append(saved_header(root, name))
    needed.append(Rule(domain_type(root), domain_type(name), "domain2", "setscheduler"))
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


@pytest.mark.parametrize("name", ["guest", "pciback"])
def test_guests_and_pciback_can_be_built_and_destroyed(name):
    needed = [*building("builder", name), Rule("builder_t", domain_type(name), "domain", "destroy")]
    assert saved_header("builder", name) not in ALLOWED  # Bootstrapper tells Builder what that would say
    if name == "guest":
        needed.append(Rule("builder_t", "guest_t", "hvm", "setparam"))  # HVM_PARAM_STORE_PFN, ...
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


def test_the_serial_port_can_be_given_to_its_owner():
    """flask_ioport_permission: the giver on the owner, the giver and the owner on the ports' label."""
    needed = {
        Rule("bootstrapper_t", "console_t", "resource", "add"),
        Rule("bootstrapper_t", "console_ioport_t", "resource", "add_ioport"),
        Rule("console_t", "console_ioport_t", "resource", "use_noiommu"),
    }
    assert needed <= ALLOWED


@pytest.mark.parametrize("manifest", [*SHARDS.late, *SHARDS.drivers], ids=lambda manifest: manifest.name)
def test_every_link_of_what_is_built_later_can_be_wired_bound_mapped_and_signalled(manifest: Manifest):
    needed = []
    for use in manifest.uses:
        needed += evtchn_unbound("builder", manifest.name, use.server)
        needed += evtchn_interdomain(use.server, manifest.name)
        needed += evtchn_send(manifest.name) + evtchn_send(use.server)
        if use.server != "builder":  # which reaches their memory anyway
            needed += grant_map_and_unmap(use.server, manifest.name)
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


@pytest.mark.parametrize(("client", "server", "protocol"), FRONTENDS)
def test_every_front_end_and_back_end_can_be_connected(client, server, protocol):
    needed = evtchn_unbound(client, client, server) + evtchn_interdomain(server, client)
    needed += evtchn_send(client) + evtchn_send(server)
    needed += grant_map_and_unmap(server, client)
    if protocol == "vif":
        needed += grant_copy(client, server)
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


@pytest.mark.parametrize("name", DRIVERS)
def test_driver_domains_can_be_built_and_given_their_device(name):
    needed = pv_building("builder", name) + assign_device("builder", name)
    needed += iomem_permission("builder", name, "use_iommu")
    needed += serve_configuration_space("pciback", name)
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


def test_configuration_space_reaches_pciback_through_builder():
    needed = iomem_permission("bootstrapper", "builder", "use_noiommu")
    needed += iomem_permission("builder", "pciback", "use_noiommu")
    assert [str(rule) for rule in needed if rule not in ALLOWED] == []


@pytest.mark.parametrize("name", DRIVERS)
def test_driver_domains_act_on_no_other_domain_but_along_links_and_front_ends(name):
    own = domain_type(name)
    outside = {
        (rule.target, rule.security_class)
        for rule in ALLOWED
        if rule.source == own and not rule.target.startswith(own)
    }
    expected = {("device_t", "resource"), ("iomem_t", "resource")}
    # to Console it can be the source of a copy, and the destination: Xen does not ask who calls
    assert outside == expected | {("guest_t", "grant"), ("console_t", "grant")}


@pytest.mark.parametrize(
    ("name", "memory"), [("xenstore", [Rule("xenstore_t", "xenstore_t", "mmu", "physmap")]), ("console", [])]
)
def test_xenstore_maps_nothing_but_grants_and_console_nothing_at_all(name, memory):
    """No foreign mapping; the only `mmu` right is to place a page in the domain's own memory."""
    own = domain_type(name)
    assert [rule for rule in ALLOWED if rule.source == own and rule.security_class == "mmu"] == memory
    maps = {rule.permission for rule in ALLOWED if rule.source == own and rule.security_class == "grant"}
    assert maps == ({"map_read", "map_write", "unmap"} if memory else {"copy"})
    assert not any(
        rule.source == own and rule.security_class in ("domain", "domain2", "shadow") for rule in ALLOWED
    )


def test_only_bootstrapper_builder_and_restorer_have_rights_of_control():
    holders = {
        rule.source
        for rule in ALLOWED
        if rule.security_class in ("domain", "domain2", "shadow") and rule.source != rule.target
    }
    assert holders == {"xenboot_t", "bootstrapper_t", "builder_t", "restorer_t"}
