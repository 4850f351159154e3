"""Questions about rights: the answers agree with the policy, and what they advise has the effect."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.privilege import explain, flask, rules, shardset
from xoar.privilege.errors import ManifestError, UnknownName
from xoar.privilege.rules import Rule

SHARDS = shardset.load_all()
ALLOWED = rules.derive(SHARDS)


def permissions(groups):
    return {
        Rule(group.source, group.target, group.security_class, permission)
        for group in groups
        for permission in group.permissions
    }


def test_groups_hold_all_rules_with_their_origins():
    groups = rules.grouped(ALLOWED)
    assert permissions(groups) == set(ALLOWED)
    for group in groups:
        for rule in permissions([group]):
            assert group.origins == tuple(ALLOWED[rule])


def test_every_rule_of_a_manifest_is_held_by_one_and_none_is_lost():
    held = [permissions(explain.held_by(manifest, ALLOWED)) for manifest in SHARDS.manifests.values()]
    assert sum(map(len, held)) == len(set().union(*held))
    assert set(ALLOWED) - set().union(*held) == {
        Rule("xenboot_t", "bootstrapper_t", "domain", "create")  # Xen's own
    }


def test_what_others_may_do_is_what_they_hold(samples, check):
    shards = check(samples)
    over = permissions(explain.held_over(shards.manifests["guest"], rules.derive(shards)))
    assert Rule("builder_t", "guest_t", "mmu", "map_read") in over
    assert Rule("builder_t", "guest_t_channel", "event", "create") in over
    assert Rule("xenstore_t_channel", "guest_t", "event", "bind") in over
    assert {rule.source for rule in over} & {"guest_t", "guest_t_channel"} == set()


def test_the_owner_of_a_serial_line_shows_who_gives_out_its_ports(samples, check):
    shards = check(samples)
    over = permissions(explain.held_over(shards.manifests["console"], rules.derive(shards)))
    assert Rule("bootstrapper_t", "console_ioport_t", "resource", "add_ioport") in over


@given(rule=st.sampled_from(sorted(ALLOWED)))
def test_each_rule_is_found_by_its_types_and_contexts_with_the_lines_it_comes_from(access_vectors, rule):
    right = f"{rule.security_class}:{rule.permission}"
    for form in ("{}", "system_u:system_r:{}"):
        answer = explain.explain(
            SHARDS, access_vectors, form.format(rule.source), form.format(rule.target), right
        )
        assert (answer.rule, answer.origins, answer.broken) == (rule, tuple(ALLOWED[rule]), ())
        assert answer.allowed == (rule in rules.at_boot(ALLOWED)) != answer.optional


def test_an_optional_right_is_not_allowed_but_can_be_permitted(access_vectors):
    answer = explain.explain(SHARDS, access_vectors, "console", "xen", "debug")
    assert (answer.allowed, answer.optional, answer.broken) == (False, True, ())
    assert answer.remedy == "xoar right permit console xen.debug permits it"
    assert str(answer.origins[0]).endswith("for xoar debug-keys (optional, off by default)")


@pytest.mark.parametrize(
    ("asker", "asked", "right", "rule"),
    [
        ("builder", "guest", "mmu:map_read", Rule("builder_t", "guest_t", "mmu", "map_read")),
        ("guest", "self", "physmap", Rule("guest_t", "guest_t_self", "mmu", "physmap")),
        ("guest", "guest", "physmap", Rule("guest_t", "guest_t", "mmu", "physmap")),
        ("builder", "guest", "event:create", Rule("builder_t", "guest_t_channel", "event", "create")),
        ("console", "self", "event:create", Rule("console_t", "console_t_channel", "event", "create")),
        ("guest", "xenstore", "event:bind", Rule("guest_t_channel", "xenstore_t", "event", "bind")),
        ("bootstrapper", "xen", "writeconsole", Rule("bootstrapper_t", "xen_t", "xen", "writeconsole")),
        ("builder", "iomem", "add_iomem", Rule("builder_t", "iomem_t", "resource", "add_iomem")),
    ],
)
def test_names_mean_what_they_mean_in_manifests(samples, check, access_vectors, asker, asked, right, rule):
    assert explain.explain(check(samples), access_vectors, asker, asked, right).rule == rule


def test_a_right_that_a_promise_forbids_is_answered_with_the_promise(access_vectors):
    answer = explain.explain(SHARDS, access_vectors, "toolstack_t", "guest_t", "domain:pause")
    assert not answer.allowed
    (promise,) = answer.broken
    assert promise.startswith("only Bootstrapper and Builder control other domains")
    assert answer.remedy == ""


@pytest.mark.parametrize(
    ("asker", "asked", "right", "wanted"),
    [
        ("xenstore", "xen", "writeconsole", 'on = "xen", class = "xen", permissions = ["writeconsole"]'),
        ("guest", "self", "mmu:adjust", 'on = "self", class = "mmu", permissions = ["adjust"]'),
        ("builder", "guest", "event:send", 'on = "guest", class = "event", permissions = ["send"]'),
    ],
)
def test_a_right_that_a_manifest_could_state_has_the_effect_when_it_is_stated(
    samples, check, access_vectors, asker, asked, right, wanted
):
    answer = explain.explain(check(samples), access_vectors, asker, asked, right)
    assert not answer.allowed
    assert answer.remedy == f"{asker}/manifest.toml would have to state it: {wanted}"
    table = wanted.replace('", ', '"\n')
    samples[asker] += f'\n[[rights]]\n{table}\nwhy = "for a test"\n'
    assert explain.explain(check(samples), access_vectors, asker, asked, right).allowed


@pytest.mark.parametrize(
    ("asker", "asked", "right", "table", "client"),
    [
        ("xenstore", "console", "grant:map_read", "uses.xenstore", "console"),
        ("console_t_channel", "xenstore_t", "event:bind", "uses.xenstore", "console"),
    ],
)
def test_a_link_that_would_give_the_right_has_the_effect_when_it_is_declared(
    samples, check, access_vectors, asker, asked, right, table, client
):
    answer = explain.explain(check(samples), access_vectors, asker, asked, right)
    assert not answer.allowed
    assert f"[{table}] in {client}/manifest.toml" in answer.remedy
    samples[client] += f"\n[{table}]\n"
    assert explain.explain(check(samples), access_vectors, asker, asked, right).allowed


@pytest.mark.parametrize(
    ("asker", "asked", "right"),
    [("guest", "guest", "event:bind"), ("guest", "xenstore", "grant:map_read")],
)
def test_no_link_is_advised_where_none_can_be_declared(samples, check, access_vectors, asker, asked, right):
    answer = explain.explain(check(samples), access_vectors, asker, asked, right)
    assert answer.broken
    assert answer.remedy == ""


@pytest.mark.parametrize(
    ("asker", "asked", "right"),
    [("unlabeled_t", "xen_t", "writeconsole"), ("builder", "unlabeled", "domain:pause")],
)
def test_what_no_manifest_can_state_is_said_to_be_out_of_reach(access_vectors, asker, asked, right):
    assert "nothing can allow it" in explain.explain(SHARDS, access_vectors, asker, asked, right).remedy


@pytest.mark.parametrize(
    ("asker", "asked", "right", "told"),
    [
        ("tolstack", "guest", "pause", "toolstack"),
        ("guest_t_self", "guest", "pause", "guest_t"),
        ("toolstack", "gest", "pause", "guest_t_self"),
        ("xen", "self", "pause", "guest"),
        ("toolstack", "guest", "pauze", "pause"),
        ("toolstack", "guest", "create", "domain:create, event:create"),
        ("toolstack", "guest", "domian:pause", "domain"),
        ("toolstack", "guest", "domain:pauze", "unpause"),
    ],
)
def test_an_unknown_word_is_answered_with_those_that_are_known(access_vectors, asker, asked, right, told):
    with pytest.raises(UnknownName, match=told):
        explain.explain(SHARDS, access_vectors, asker, asked, right)


def test_a_difference_is_the_rules_that_only_one_side_has(samples, check):
    old = rules.derive(check(samples))
    samples["builder"] = samples["builder"].replace('"map_read", "map_write"', '"map_read", "adjust"')
    removed, added = explain.diff(old, rules.derive(check(samples)))
    assert permissions(removed) == {Rule("builder_t", "guest_t", "mmu", "map_write")}
    assert permissions(added) == {Rule("builder_t", "guest_t", "mmu", "adjust")}
    assert [str(origin) for group in added for origin in group.origins] == [
        "builder/manifest.toml:20: loads kernels"
    ]


def test_a_right_that_becomes_optional_is_a_difference(samples, check):
    old = rules.derive(check(samples))
    stated = 'why = "loads kernels"\n'
    assert stated in samples["builder"]
    samples["builder"] = samples["builder"].replace(stated, stated + "optional = true\n")
    removed, added = explain.diff(old, rules.derive(check(samples)))
    assert permissions(removed) == permissions(added) != set()
    assert [group.condition for group in removed] == [""]
    assert {group.condition for group in added} == {"builder_mmu_map_read", "builder_mmu_map_write"}


def test_a_rule_that_is_only_stated_elsewhere_is_no_difference(samples, check):
    old = rules.derive(check(samples))
    samples["builder"] = "# a line more\n" + samples["builder"]
    assert explain.diff(old, rules.derive(check(samples))) == ([], [])


def test_netback_that_asks_for_foreign_mappings_fails_the_build(tmp_path, access_vectors):
    for path in shardset.SHARDS_FOLDER.glob("*/manifest.toml"):
        copy = tmp_path / path.parent.name / path.name
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes())
    copy = tmp_path / "netback/manifest.toml"
    right = '\n[[rights]]\non = "guest"\nclass = "mmu"\npermissions = ["map_read"]\nwhy = "faster"\n'
    copy.write_text(copy.read_text() + right)
    line = len(copy.read_text().splitlines()) - 1
    with pytest.raises(ManifestError, match="breaks the promise"):
        explain.explain(shardset.load_all(tmp_path), access_vectors, "netback", "guest", "mmu:map_read")
    with pytest.raises(ManifestError) as caught:
        flask.generate(shardset.load_all(tmp_path), access_vectors)
    assert str(caught.value) == (
        f'{copy}:{line}: "allow netback_t guest_t:mmu map_read;" breaks the promise: '
        "only Bootstrapper and Builder reach into the memory of other domains, and Restorer into that of "
        "those that it rolls back"
    )
