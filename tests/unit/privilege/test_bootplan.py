from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xoar.builder import plan as bootstrapper
from xoar.host.bundle import plan_text
from xoar.privilege import bootplan, shardset


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
    assert [link.client for link in plan.links_to("builder")] == ["console"]


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
    samples["toolstack"] += '[uses.xenstore]\nrole = "manager"\n'
    planned = bootplan.plan(check(samples))
    read = bootstrapper.parse(plan_text(planned, "guest_label", 0))
    assert [(s.name, s.domid, s.memory_kib, s.vcpus, s.label, s.image) for s in read.shards] == [
        (s.manifest.name, s.domid, 8192, 1, s.manifest.label, s.manifest.name) for s in planned.shards
    ]
    assert [(link.client.name, link.server.name, link.name, link.gref) for link in read.links] == [
        (link.client, link.server, link.name, link.gref) for shard in planned.shards for link in shard.links
    ]
    by_name = {shard.name: shard for shard in read.shards}
    assert by_name["xenstore"].words == [f"manager={by_name['toolstack'].domid}"]
    assert by_name["console"].ports == [(0x2F8, 8)]
    assert read.library == read.exceptions == [by_name["builder"]]


def test_the_plan_of_this_host_is_the_one_of_the_architecture():
    plan = bootplan.plan(shardset.load_all())
    assert [shard.manifest.name for shard in plan.shards] == ["xenstore", "console", "builder", "toolstack"]
