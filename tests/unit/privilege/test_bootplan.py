from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xoar.builder import plan as bootstrapper
from xoar.host import devices
from xoar.host.bundle import plan_text
from xoar.privilege import bootplan, shardset
from xoar.privilege.errors import PlanError


@dataclass(frozen=True)
class Driver:
    """As in a host's configuration."""

    name: str
    kind: str = "netback"
    device: str | None = None
    memory_kib: int | None = None


def test_shards_that_do_not_need_each_other_start_in_parallel(samples, check):
    plan = bootplan.plan(check(samples))
    assert plan.waves == (("console", "xenstore"), ("builder",))
    assert [(shard.domid, shard.manifest.name) for shard in plan.shards] == [
        (1, "console"),
        (2, "xenstore"),
        (3, "builder"),
    ]


def test_links_have_the_grant_references_of_the_architecture(samples, check):
    plan = bootplan.plan(check(samples))
    assert [(link.server, link.name, link.gref) for link in plan.shards[2].links] == [
        ("xenstore", "introduce", 2),
        ("console", "introduce", 3),
    ]
    assert [(link.server, link.gref) for link in plan.guest_links] == [("xenstore", 1), ("console", 0)]
    assert [link.client for link in plan.links_to("console")] == ["builder"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=6, max_size=6),
    st.permutations(range(6)),
)
def test_every_server_is_up_before_its_clients(samples, check, wanted, names):
    """Random dependencies without a circle: shard i may use those before it in a shuffled order."""
    texts = {"bootstrapper": samples["bootstrapper"].split("[[rights]]")[0]}
    for position, name in enumerate(names):
        text = samples["xenstore"].replace("xenstore", f"s{name}")
        for earlier in range(position):
            if wanted[position][earlier]:
                text += f"\n[uses.s{names[earlier]}]\n"
        texts[f"s{name}"] = text
    plan = bootplan.plan(check(texts))
    wave = {name: number for number, names in enumerate(plan.waves) for name in names}
    assert [shard.domid for shard in plan.shards] == list(range(1, 7))
    assert [shard.manifest.name for shard in plan.shards] == [name for names in plan.waves for name in names]
    for shard in plan.shards:
        assert all(wave[link.server] < wave[link.client] for link in shard.links)
        grefs = [link.gref for link in shard.links]
        assert len(set(grefs)) == len(grefs) and all(2 <= gref <= 7 for gref in grefs)


def test_bootstrapper_reads_the_script_as_it_was_meant(samples, check):
    samples["toolstack"] = samples["xenstore"].replace("xenstore", "toolstack")
    samples["toolstack"] += '[uses.xenstore]\nrole = "backend"\n'
    planned = bootplan.plan(check(samples))
    read = bootstrapper.parse(plan_text(planned, "guest_label", 0))
    assert [(s.name, s.domid, s.memory_kib, s.vcpus, s.label, s.image) for s in read.shards] == [
        (s.manifest.name, s.domid, 8192, 1, s.manifest.label, s.manifest.name) for s in planned.shards
    ]
    assert [(link.client.name, link.server.name, link.name, link.gref) for link in read.links] == [
        (link.client, link.server, link.name, link.gref) for shard in planned.shards for link in shard.links
    ]
    by_name = {shard.name: shard for shard in read.shards}
    assert by_name["xenstore"].words == [f"backend={by_name['toolstack'].domid}"]
    assert by_name["console"].ports == [(0x2F8, 8)]
    assert read.library == read.exceptions == [by_name["builder"]]


def test_driver_domains_follow_the_shards_and_come_before_guests(device_samples, check):
    drivers = [Driver("outside"), Driver("disk", "blkback", "0000:03:00.1", 4096), Driver("inside")]
    plan = bootplan.plan(check(device_samples), drivers)
    assert [(shard.domid, shard.manifest.name) for shard in plan.late] == [(4, "pciback")]
    assert [(d.domid, d.name, d.manifest.name, d.memory_kib, d.bdf) for d in plan.drivers] == [
        (5, "outside", "netback", 64 << 10, 0x0100),
        (6, "disk", "blkback", 4096, 0x0301),
        (7, "inside", "netback", 64 << 10, 0x0300),
    ]


def test_without_driver_domains_nothing_is_built_on_request(device_samples, check):
    plan = bootplan.plan(check(device_samples))
    assert (plan.late, plan.drivers) == ((), ())
    read = bootstrapper.parse(plan_text(plan, "guest_label", 0))
    assert not (read.late or read.late_links or read.drivers or read.hardware)
    assert "first_guest=32" in next(shard.words for shard in read.shards if shard.name == "builder")


@pytest.mark.parametrize(
    ("drivers", "said"),
    [
        ([Driver(f"d{n}") for n in range(28)], "28 driver domains; a host has 27 at most"),
        ([Driver("a", "guest")], 'driver a: kind "guest" is not one of: blkback, netback'),
        ([Driver("a", device="3.0")], 'driver a: "3.0" is no PCI address'),
        ([Driver("a", device="02:00.0"), Driver("b")], "driver b: its device is a's already"),
    ],
)
def test_drivers_that_can_not_be_are_refused(device_samples, check, drivers, said):
    with pytest.raises(PlanError, match=said):
        bootplan.plan(check(device_samples), drivers)


def test_the_plan_of_this_host_is_the_one_of_the_architecture():
    plan = bootplan.plan(shardset.load_all())
    assert [shard.manifest.name for shard in plan.shards] == [
        "xenstore",
        "console",
        "builder",
        "logic",
        "toolstack",
        "restorer",
    ]


def test_pciback_has_the_domid_after_the_shards_and_driver_domains_have_those_up_to_31():
    plan = bootplan.plan(shardset.load_all(), [Driver(f"d{n}") for n in range(24)])
    assert [(shard.domid, shard.manifest.name) for shard in plan.late] == [(7, "pciback")]
    assert [driver.domid for driver in plan.drivers] == list(range(8, 32))
    with pytest.raises(PlanError):
        bootplan.plan(shardset.load_all(), [Driver(f"d{n}") for n in range(25)])
    assert len(plan.drivers) == devices.MAX_DRIVERS


@dataclass(frozen=True)
class Declared:
    """A tenant in a host's configuration."""

    name: str
    memory_kib: int = 1 << 20
    vcpus: int = 8
    guests: int = 8
    devices: int = 16
    key: bytes = bytes(32)


def test_each_tenant_has_a_shard_of_its_own_and_as_many_as_there_may_be_fit_a_command_line():
    shards = shardset.load_all()
    most = [Declared(f"tenant-number-{number:02}"[-16:]) for number in range(bootplan.MAX_TENANTS)]
    drivers = [Driver(f"net{number}") for number in range(16)]
    planned = bootplan.plan(shards, drivers, most)
    assert [shard.domid for shard in planned.tenants] == list(range(32512, 32612))
    read = bootstrapper.parse(plan_text(planned, shards.guests[0].label, 5000))
    (toolstack,) = (shard for shard in read.shards if shard.name == "toolstack")
    assert len(" ".join(toolstack.words)) < 4096 - 256
    assert len(read.quotas) == len(most) and read.ecam == [read.late[0]]
    last = read.late[-1]
    assert (last.name, last.image, last.label) == (
        f"tenant-{most[-1].name}",
        "tenant",
        "system_u:system_r:tenant_t",
    )
    assert [(link.server.name, link.name) for link in read.late_links if link.client is last] == [
        ("xenstore", "xenstore"), ("builder", "builder"), ("console", "operator"),
    ]  # fmt: skip
    with pytest.raises(PlanError, match="100 at most"):
        bootplan.plan(shards, (), [*most, Declared("one-more")])
