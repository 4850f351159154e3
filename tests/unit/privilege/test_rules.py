import re

import pytest

from xoar.privilege import manifest, rules, shardset
from xoar.privilege.errors import ManifestError
from xoar.privilege.rules import Rule


def replaced(shards, name, text):
    """The set with one manifest's text changed."""
    changed = manifest.parse(text, shards.manifests[name].path)
    return shardset.check([changed if m.name == name else m for m in shards.manifests.values()])


def test_a_link_gives_both_ends_what_they_need_and_no_more(samples, check):
    before = set(rules.derive(check(samples)))
    samples["xenstore"] += "\n[uses.extra]\n"
    samples["extra"] = samples["xenstore"].split("\n[uses")[0].replace("xenstore", "extra")
    after = set(rules.derive(check(samples)))
    every_shard = {
        Rule("extra_t", "extra_t", "mmu", "physmap"),
        Rule("extra_t", "extra_t", "hvm", "setparam"),
        # the way to tell Bootstrapper that it serves
        Rule("bootstrapper_t_channel", "extra_t", "event", "bind"),
        Rule("extra_t_channel", "bootstrapper_t", "event", "bind"),
    }
    assert after - before - every_shard == {
        Rule("extra_t", "xenstore_t", "grant", "map_read"),
        Rule("extra_t", "xenstore_t", "grant", "map_write"),
        # no unmap: xenstore is there for ever
        Rule("xenstore_t_channel", "extra_t", "event", "bind"),
        Rule("extra_t_channel", "xenstore_t", "event", "bind"),
        Rule("extra_t", "extra_t_channel", "event", "create"),
        Rule("extra_t", "extra_t_channel", "event", "send"),
        # xenstore could already send on its own ends: it serves others
    }


def test_without_manifests_that_ask_nothing_is_allowed(samples, check):
    bare = {name: re.split(r"\n\[", samples[name])[0] for name in ("bootstrapper", "xenstore")}
    assert set(rules.derive(check(bare))) == {
        Rule("xenboot_t", "bootstrapper_t", "domain", "create"),
        Rule("bootstrapper_t", "bootstrapper_t", "mmu", "physmap"),
        Rule("bootstrapper_t", "bootstrapper_t", "hvm", "setparam"),
        Rule("xenstore_t", "xenstore_t", "mmu", "physmap"),
        Rule("xenstore_t", "xenstore_t", "hvm", "setparam"),
        Rule("bootstrapper_t", "bootstrapper_t_channel", "event", "create"),
        Rule("bootstrapper_t_channel", "xenstore_t", "event", "bind"),
        Rule("xenstore_t_channel", "bootstrapper_t", "event", "bind"),
        Rule("xenstore_t", "xenstore_t_channel", "event", "create"),
        Rule("xenstore_t", "xenstore_t_channel", "event", "send"),
    }


def test_what_guests_do_to_themselves_says_nothing_about_other_guests(samples, check):
    found = rules.derive(check(samples))
    assert Rule("guest_t", "guest_t_self", "mmu", "physmap") in found
    assert not any(rule.source == "guest_t" and rule.target == "guest_t" for rule in found)


def test_the_serial_port_has_one_owner(samples, check):
    found = rules.derive(check(samples))
    users = {rule.source for rule in found if rule.target == "console_ioport_t" and "use" in rule.permission}
    assert users == {"console_t"}


def test_event_channels_are_created_under_the_label_of_their_holder(samples, check):
    assert Rule("builder_t", "guest_t_channel", "event", "create") in rules.derive(check(samples))


def test_a_front_end_gives_both_ends_what_they_need_and_no_more(device_samples, check):
    after = set(rules.derive(check(device_samples)))
    device_samples["guest"] = device_samples["guest"].split("\n[frontends.blkback]")[0]
    before = set(rules.derive(check(device_samples)))
    assert after - before == {
        Rule("blkback_t", "guest_t", "grant", "map_read"),
        Rule("blkback_t", "guest_t", "grant", "map_write"),
        Rule("blkback_t", "guest_t", "grant", "unmap"),
        Rule("guest_t_channel", "blkback_t", "event", "bind"),
        Rule("blkback_t_channel", "guest_t", "event", "bind"),
        # the guest may allocate its own end for the vif, and blkback binds its own for pciback, anyway
    }


def test_pages_of_a_vif_are_copied_in_both_directions(device_samples, check):
    copies = {rule for rule in rules.derive(check(device_samples)) if rule.permission == "copy"}
    assert copies == {
        Rule("guest_t", "netback_t", "grant", "copy"),
        Rule("netback_t", "guest_t", "grant", "copy"),
    }


def test_who_receives_the_hardware_can_be_given_device_memory(device_samples, check):
    about = {r for r in rules.derive(check(device_samples)) if r.security_class == "resource"}
    assert {rule for rule in about if "ioport" not in rule.target} == {
        Rule("bootstrapper_t", "builder_t", "resource", "add"),
        Rule("bootstrapper_t", "console_t", "resource", "add"),
        Rule("bootstrapper_t", "iomem_t", "resource", "add_iomem"),
        Rule("builder_t", "iomem_t", "resource", "use_noiommu"),
        Rule("pciback_t", "netback_t", "resource", "add"),  # stated
    }


def test_a_shard_that_is_built_on_request_tells_nobody_that_it_serves(device_samples, check):
    found = rules.derive(check(device_samples))
    assert not any(rule.source == "pciback_t_channel" and "bootstrapper" in rule.target for rule in found)


def stated_permissions():
    for path in sorted(shardset.SHARDS_FOLDER.glob("*/manifest.toml")):
        for right in manifest.load(path).rights:
            name = f"{path.parent.name}-{right.on}-{right.permission}-{right.line}"
            yield pytest.param(path, right, id=name)


@pytest.mark.parametrize(("path", "right"), list(stated_permissions()))
def test_taking_a_permission_out_of_a_manifest_takes_exactly_its_rules_out(path, right):
    shards = shardset.load_all()
    lines = path.read_text().splitlines()
    line = lines[right.line - 1]
    assert f'"{right.permission}"' in line
    stated = manifest.load(path).rights
    same_table = [r for r in stated if (r.class_line, r.on) == (right.class_line, right.on)]
    if len(same_table) == 1:  # the table goes with it: a right without permissions is an error
        start = max(index for index in range(right.line) if lines[index] == "[[rights]]")
        end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("[")), len(lines))
        del lines[start:end]
    else:
        lines[right.line - 1] = re.sub(f'"{right.permission}"(, ?)?', "", line, count=1)
    name = path.parent.name
    before = rules.derive(shards)
    after = rules.derive(replaced(shards, name, "\n".join(lines)))
    targets = [r.on for r in stated if (r.line, r.permission) == (right.line, right.permission)]
    gone = set(before) - set(after)
    assert not set(after) - set(before)
    assert len(gone) == len(targets)
    assert {(rule.source, rule.security_class, rule.permission) for rule in gone} == {
        (f"{name}_t", right.security_class, right.permission)
    }


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ('on = "guest"\nclass = "mmu"\npermissions = ["map_read"]', "stated twice, first in line 20"),
        ('on = "self"\nclass = "mmu"\npermissions = ["physmap"]', "a right of every shard"),
        ('on = "guest"\nclass = "event"\npermissions = ["bind"]', "bound along links"),
        ('on = "self"\nclass = "event"\npermissions = ["send"]', "a right of every shard"),
    ],
)
def test_a_right_that_is_there_anyway_is_refused(samples, check, right, said):
    samples["builder"] += f'\n[[rights]]\n{right}\nwhy = "again"\n'
    with pytest.raises(ManifestError) as caught:
        rules.derive(check(samples))
    assert said in str(caught.value)
    assert "permissions" in samples["builder"].splitlines()[caught.value.line - 1]
