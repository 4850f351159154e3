import re

import pytest

from xoar.host.build import policy
from xoar.host.errors import CommandError
from xoar.privilege import flask, promises, rules, shardset, vectors
from xoar.privilege.errors import ManifestError, PolicyError
from xoar.privilege.rules import Rule

MAGIC = bytes.fromhex("8cff7cf9")  # SELINUX_MAGIC, first word of a binary policy


def with_right(text: str, on: str, security_class: str, permission: str) -> str:
    table = f'on = "{on}"\nclass = "{security_class}"\npermissions = ["{permission}"]\nwhy = "for a test"'
    return f"{text}\n[[rights]]\n{table}\n"


def parsed_rules(text: str) -> set[Rule]:
    """The allow rules in a policy's text."""
    found = set()
    for source, target, cls, many in re.findall(r"\ballow (\w+) (\w+):(\w+) ([^;]+);", text):
        found |= {Rule(source, target, cls, one) for one in many.strip("{} ").split()}
    return found


def test_checkpolicy_compiles_the_policy_of_this_host(access_vectors):
    text = flask.generate(shardset.load_all(), access_vectors)
    assert policy.compile(text).startswith(MAGIC)


def test_the_text_allows_exactly_the_derived_rules(access_vectors):
    shards = shardset.load_all()
    text = flask.generate(shards, access_vectors)
    allowed = rules.derive(shards)
    code = re.sub(r"#.*", "", text)
    always = "".join(re.findall(r"^allow \w+ \w+:.*\n", code, re.MULTILINE))
    optional = "".join(re.findall(r"^if \(\w+\) \{ allow \w+ \w+:.* \}\n", code, re.MULTILINE))
    assert parsed_rules(always) == set(rules.at_boot(allowed))
    assert parsed_rules(optional) == set(allowed) - set(rules.at_boot(allowed)) != set()
    # nothing that is written in another way, as an attribute's rule
    assert len(re.findall(r"\ballow\b", code)) == len(re.findall(r"\ballow\b", always + optional))


def test_what_linux_tries_in_vain_is_denied_without_a_line(access_vectors):
    shards = shardset.load_all()
    lines = flask.generate(shards, access_vectors).splitlines()
    stated = {str(rule).rstrip(";") for rule in rules.derive(shards)}
    silent = {line.rstrip(";") for line in lines if line.startswith("dontaudit ")}
    assert not {line.replace("dontaudit", "allow") for line in silent} & stated
    assert {
        "dontaudit netback_t netback_t_self:grant query",
        "dontaudit guest_t xen_t:xen writeconsole",
    } <= silent
    # who may ask needs no such line; shards run no Linux
    assert "dontaudit guest_t guest_t_self:grant query" not in silent
    assert {line.split()[1] for line in silent} == {"netback_t", "blkback_t", "guest_t"}


def test_optional_rights_depend_on_a_boolean_that_is_off(samples, check, access_vectors):
    samples["console"] = with_right(samples["console"], "xen", "xen", "debug") + "optional = true\n"
    samples["console"] = with_right(samples["console"], "self", "domain", "pause") + "optional = true\n"
    text = flask.generate(check(samples), access_vectors)
    assert "\nbool console_xen_debug false;\nbool console_domain_pause false;\n" in text
    assert "\nif (console_xen_debug) { allow console_t xen_t:xen debug; }\n" in text
    assert text.count("xen_t:xen debug") == 2  # and the promise
    assert policy.compile(text).startswith(MAGIC)


def test_each_stated_right_stands_below_its_manifest_line(samples, check, access_vectors):
    lines = flask.generate(check(samples), access_vectors).splitlines()
    index = lines.index("# builder/manifest.toml:20: loads kernels")
    assert lines[index + 1] == "allow builder_t guest_t:mmu { map_read map_write };"


def test_the_first_domain_has_the_label_of_the_shard_without_parent(samples, check, access_vectors):
    assert "sid dom0 system_u:system_r:bootstrapper_t" in flask.generate(check(samples), access_vectors)


def test_the_ports_of_the_serial_line_are_labelled(samples, check, access_vectors):
    text = flask.generate(check(samples), access_vectors)
    assert "ioportcon 0x2f8-0x2ff system_u:object_r:console_ioport_t" in text


@pytest.mark.parametrize(
    ("security_class", "permission", "key"),
    [("domian", "create", "class"), ("domain", "creat", "permissions")],
)
def test_what_xen_does_not_know_is_refused_at_its_line(
    samples, check, access_vectors, security_class, permission, key
):
    samples["builder"] = with_right(samples["builder"], "guest", security_class, permission)
    with pytest.raises(ManifestError) as caught:
        flask.generate(check(samples), access_vectors)
    assert samples["builder"].splitlines()[caught.value.line - 1].startswith(f"{key} = ")


BROKEN = [
    ("xenstore", "guest", "domain", "create", "only Bootstrapper and Builder create domains"),
    ("xenstore", "guest", "mmu", "map_read", "only Bootstrapper and Builder reach into the memory"),
    ("console", "guest", "domain2", "resource_map", "only Bootstrapper and Builder reach into the memory"),
    ("console", "builder", "domain", "pause", "only Bootstrapper and Builder control other domains"),
    ("console", "guest", "event", "create", "only Bootstrapper and Builder control other domains"),
    ("guest", "xenstore", "hvm", "sethvmc", "only Bootstrapper and Builder control other domains"),
    ("console", "guest", "event", "reset", "only Bootstrapper and Builder control other domains"),
    ("xenstore", "guest", "grant", "setup", "only Bootstrapper and Builder control other domains"),
    ("console", "domxen", "mmu", "map_read", "only Bootstrapper and Builder reach into the memory"),
    ("xenstore", "domio", "mmu", "map_write", "only Bootstrapper and Builder reach into the memory"),
    ("builder", "guest", "grant", "map_read", "along declared links"),
    ("builder", "security", "security", "load_policy", "no domain changes the policy"),
    ("bootstrapper", "security", "security", "setenforce", "no domain changes the policy"),
    ("builder", "xen", "xen", "microcode", "no domain reprograms the machine"),
    ("console", "security", "security", "setbool", "only Builder switches optional rights"),
    ("builder", "xen", "xen", "debug", "only Console presses Xen's debug keys"),
    ("console", "xen", "xen", "debug", "Console presses Xen's debug keys only while that is permitted"),
]


BROKEN_WITH_DEVICES = [
    ("netback", "blkback", "grant", "map_read", "driver domains have no relation with one another"),
    ("netback", "guest", "mmu", "map_read", "only Bootstrapper and Builder reach into the memory"),
    ("netback", "blkback", "argo", "send", "driver domains have no relation with one another"),
    ("guest", "blkback", "grant", "copy", "along declared links"),
    ("guest", "netback", "grant", "map_read", "along declared links"),
    ("pciback", "device", "resource", "add_device", "hand out devices, memory of devices and I/O ports"),
    ("pciback", "iomem", "resource", "add_iomem", "hand out devices, memory of devices and I/O ports"),
    ("pciback", "guest", "resource", "add", "hand out devices, memory of devices and I/O ports"),
    ("netback", "self", "resource", "add", "hand out devices, memory of devices and I/O ports"),
    ("bootstrapper", "device", "resource", "add_device", "only Builder assigns devices"),
    ("builder", "device", "resource", "add_irq", "only PCIBack sets up devices"),
    ("netback", "device", "resource", "setup", "only PCIBack sets up devices"),
    ("guest", "device", "resource", "use_iommu", "used by driver domains only, behind the IOMMU"),
    ("builder", "device", "resource", "use_noiommu", "used by driver domains only, behind the IOMMU"),
    ("netback", "device", "resource", "use_noiommu", "used by driver domains only, behind the IOMMU"),
    ("netback", "iomem", "resource", "use_noiommu", "used by driver domains only, behind the IOMMU"),
    ("netback", "iomem", "resource", "use_iommu_nointremap", "used by driver domains only, behind the IOMMU"),
]


@pytest.mark.parametrize(("name", "on", "security_class", "permission", "promise"), BROKEN_WITH_DEVICES)
def test_a_manifest_that_breaks_a_promise_about_devices_is_named(
    device_samples, check, access_vectors, name, on, security_class, permission, promise
):
    flask.generate(check(device_samples), access_vectors)
    device_samples[name] = with_right(device_samples[name], on, security_class, permission)
    with pytest.raises(ManifestError, match=re.escape(promise)) as caught:
        flask.generate(check(device_samples), access_vectors)
    assert caught.value.line == len(device_samples[name].splitlines()) - 1


@pytest.mark.parametrize(("name", "on", "security_class", "permission", "promise"), BROKEN)
def test_a_manifest_that_breaks_a_promise_is_named_with_line_and_promise(
    samples, check, access_vectors, name, on, security_class, permission, promise
):
    samples[name] = with_right(samples[name], on, security_class, permission)
    with pytest.raises(ManifestError) as caught:
        flask.generate(check(samples), access_vectors)
    line = len(samples[name].splitlines()) - 1
    assert str(caught.value).startswith(f"shards/{name}/manifest.toml:{line}: ")
    assert "breaks the promise: " in str(caught.value) and promise in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("xenstore_t", "guest_t", "domain", "create"),
        Rule("console_t", "guest_t", "mmu", "map_read"),
        Rule("guest_t", "guest_t", "grant", "map_read"),
        Rule("guest_t_channel", "guest_t", "event", "bind"),
        Rule("builder_t", "console_ioport_t", "resource", "use_noiommu"),
        Rule("builder_t", "security_t", "security", "load_policy"),
        Rule("console_t", "security_t", "security", "setbool"),
    ],
    ids=str,
)
def test_checkpolicy_refuses_a_policy_that_breaks_a_promise_as_well(samples, check, access_vectors, rule):
    shards = check(samples)
    text = flask.generate(shards, access_vectors)
    promised = promises.promises(shards, access_vectors)
    with pytest.raises(CommandError, match="neverallow"):
        policy.compile(text.replace("# promise", f"{rule}\n# promise", 1))
    with pytest.raises(ManifestError):
        promises.check({rule: [rules.Origin(shards.root.path, 1, "")]}, promised)


def test_an_initial_sid_that_is_not_known_stops_the_build(samples, check, access_vectors):
    newer = vectors.AccessVectors(
        access_vectors.preamble, (*access_vectors.initial_sids, "domNew"), access_vectors.permissions
    )
    with pytest.raises(PolicyError, match="domNew"):
        flask.generate(check(samples), newer)


def test_a_folder_without_flask_files_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="does not hold the FLASK files"):
        vectors.load(tmp_path)


def test_classes_and_permissions_are_read_without_comments():
    sids = "sid x # y\nsid z\n"
    read = vectors.parse("class a\n# class c\nclass b\n", sids, "class a { p # q\n r }\nclass b\n{ s }")
    assert read.permissions == {"a": ("p", "r"), "b": ("s",)}
    assert read.initial_sids == ("x", "z")


def test_classes_without_access_vectors_are_refused():
    with pytest.raises(PolicyError, match="different classes"):
        vectors.parse("class a\n", "", "class b { p }")


def test_checkpolicy_holds_optional_rules_against_promises_as_well(access_vectors):
    text = flask.generate(shardset.load_all(), access_vectors)
    broken = "if (console_xen_debug) { allow console_t guest_t:mmu map_read; }\n# promise"
    with pytest.raises(CommandError, match="neverallow"):
        policy.compile(text.replace("# promise", broken, 1))
