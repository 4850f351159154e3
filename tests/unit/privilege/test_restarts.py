"""A shard that is rolled back: its rules, its place in the boot plan, and what can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from xoar.builder import plan as bootstrapper
from xoar.host.bundle import plan_text
from xoar.privilege import bootplan, flask, rules, shardset
from xoar.privilege.errors import ManifestError
from xoar.privilege.rules import RESTORING, Rule
from xoar.privilege.shardset import SHARDS_FOLDER, ShardSet

PROBE = Path(__file__).parents[2] / "host/lives/probe.toml"
RIGHT = '\n[[rights]]\non = "{}"\nclass = "{}"\npermissions = ["{}"]\nwhy = "it wants to"\n'


class Folder:
    """The manifests of this checkout and the probe's, to be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for manifest in [*SHARDS_FOLDER.glob("*/manifest.toml"), PROBE]:
            name = "probe" if manifest == PROBE else manifest.parent.name
            (path / name).mkdir()
            self.manifest(name).write_text(manifest.read_text())

    def manifest(self, name: str) -> Path:
        return self.path / name / "manifest.toml"

    def change(self, name: str, old: str, new: str) -> None:
        text = self.manifest(name).read_text()
        assert old in text
        self.manifest(name).write_text(text.replace(old, new))

    def state(self, name: str, on: str, security_class: str, permission: str) -> None:
        text = self.manifest(name).read_text() + RIGHT.format(on, security_class, permission)
        self.manifest(name).write_text(text)

    def load(self) -> ShardSet:
        return shardset.load_all(self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_one_who_rolls_back_has_what_that_takes_and_nothing_else(folder, access_vectors):
    allowed, _ = flask.judged(folder.load(), access_vectors)
    over_probe = {rule for rule in allowed if rule.target == "probe_t"}
    assert {rule for rule in over_probe if rule.source == "restorer_t"} == {
        Rule("restorer_t", "probe_t", *right) for right in RESTORING
    }
    over_others = {rule.target for rule in allowed if rule.source == "restorer_t"}
    assert over_others == {
        "probe_t", "logic_t", "builder_t", "toolstack_t", "console_t",
        "restorer_t", "restorer_t_channel", "xen_t",
    }  # fmt: skip
    assert not [rule for rule in allowed if rule.target == "restorer_t" and rule.source == "probe_t"]


def test_a_shard_that_is_rolled_back_can_not_change_its_memory_map(folder):
    allowed = rules.derive(folder.load())
    assert Rule("probe_t", "probe_t", "mmu", "physmap") not in allowed
    assert Rule("bootstrapper_t", "probe_t", "mmu", "physmap") in allowed
    assert Rule("xenstore_t", "xenstore_t", "mmu", "physmap") in allowed


@pytest.mark.parametrize(
    ("who", "on", "security_class", "permission"),
    [
        ("restorer", "xenstore", "domain", "pause"),
        ("restorer", "builder", "domain", "destroy"),
        ("restorer", "guest", "mmu", "map_read"),
        ("restorer", "guest", "shadow", "logdirty"),
        ("restorer", "xenstore", "hvm", "sethvmc"),
        ("restorer", "probe", "domain", "destroy"),
        ("restorer", "probe", "domain", "setvcpucontext"),
        ("restorer", "probe", "domain", "create"),
        ("restorer", "probe", "hvm", "setparam"),
        ("restorer", "probe", "mmu", "adjust"),
        ("restorer", "probe", "shadow", "disable"),
        ("restorer", "probe", "domain2", "resource_map"),
        ("restorer", "probe", "grant", "setup"),
        ("restorer", "domio", "mmu", "map_read"),
        ("toolstack", "probe", "domain", "pause"),
        ("xenstore", "probe", "mmu", "map_write"),
        ("xenstore", "restorer", "domain", "pause"),
    ],
)
def test_more_breaks_a_promise(folder, access_vectors, who, on, security_class, permission):
    folder.state(who, on, security_class, permission)
    with pytest.raises(ManifestError, match="breaks the promise"):
        flask.generate(folder.load(), access_vectors)


ANEW = 'policy = "anew"\nseconds = 3600\npause = 60\n'


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("xenstore", 'restart = "none"', '[restart]\npolicy = "timer"\nseconds = 9\n', "it maps pages of"),
        ("builder", 'policy = "idle"', 'policy = "timer"', "it maps pages of"),
        ("tenant", ANEW, 'policy = "timer"\nseconds = 9\n', "from boot to the end"),
        ("xenstore", 'restart = "none"', f"[restart]\n{ANEW}", "built while the host runs"),
        ("restorer", 'receives = ["restarts"]', "", "no shard rolls others back"),
        ("probe", 'by = ["toolstack"]', 'by = ["toolbox"]', 'by holds "toolbox"'),
        ("probe", 'by = ["toolstack"]', 'by = ["probe"]', 'by holds "probe"'),
        ("probe", 'by = ["toolstack"]', 'by = ["pciback"]', 'by holds "pciback"'),
        ("probe", 'by = ["toolstack"]', 'by = ["restorer"]', "rolls probe back itself"),
    ],
)
def test_who_can_not_be_rolled_back_or_ask_is_named(folder, name, old, new, said):
    folder.change(name, old, new)
    if name == "builder":
        folder.change(name, 'box = "1MiB"\n', "")
    with pytest.raises(ManifestError, match=said) as caught:
        folder.load()
    assert caught.value.path.parent.name == ("builder" if name == "restorer" else name)
    lines = caught.value.path.read_text().splitlines()
    assert "restart" in lines[caught.value.line - 1] or "by" in lines[caught.value.line - 1]


def test_the_boot_plan_has_who_is_rolled_back_who_asks_and_the_room(folder):
    folder.change("probe", 'by = ["toolstack"]', 'by = ["xenstore", "toolstack"]')
    plan = bootplan.plan(folder.load())
    read = bootstrapper.parse(plan_text(plan, "guest_label", 0))
    ((target, restorer, seconds, box_kib, ports),) = [
        row for row in read.restarts if row.target.name == "probe"
    ]
    assert (target.name, restorer.name, seconds, box_kib, ports) == ("probe", "restorer", 0, 0, 63)
    assert [
        (kick.who.name, kick.target.name, kick.requests, kick.patience_ms)
        for kick in read.kicks
        if kick.target.name == "probe"
    ] == [
        ("xenstore", "probe", 1, 1000),
        ("toolstack", "probe", 0, 0),
    ]
    assert read.rooms == {"restorer": (10 + 6 + 8 + 3 + 9) * 1024}
    (toolstack,) = [shard for shard in read.shards if shard.name == "toolstack"]
    assert "restarted=probe:after_each_request" in toolstack.words


def test_logic_builder_and_toolstack_are_rolled_back_after_each_request_by_default():
    plan = bootplan.plan(shardset.load_all())
    read = bootstrapper.parse(plan_text(plan, "guest_label", 0))
    assert [
        (restart.target.name, restart.seconds, restart.box_kib, restart.most_ports)
        for restart in read.restarts
    ] == [
        ("console", 120, 5632, 511),
        ("builder", 60, 1024, 63),
        ("logic", 0, 0, 63),
        ("toolstack", 600, 1024, 63),
    ]
    assert [(kick.who.name, kick.target.name, kick.requests) for kick in read.kicks] == [
        ("console", "console", 0),
        ("toolstack", "console", 0),
        ("builder", "console", 0),
        ("builder", "builder", 0),
        ("toolstack", "builder", 0),
        ("xenstore", "logic", 1),
        ("toolstack", "logic", 0),
        ("toolstack", "toolstack", 0),
        ("builder", "toolstack", 0),
    ]


def test_who_maps_others_pages_and_is_rolled_back_states_that_it_changes_its_memory_map(folder):
    assert Rule("builder_t", "builder_t", "mmu", "physmap") in rules.derive(folder.load())
    folder.change("builder", 'on = "self"\nclass = "mmu"', 'on = "xen"\nclass = "mmu"')
    assert Rule("builder_t", "builder_t", "mmu", "physmap") not in rules.derive(folder.load())


def test_builder_reaches_the_pages_of_those_that_it_builds_without_a_grant(folder):
    allowed = rules.derive(folder.load())
    for late in ("tenant_t", "pciback_t"):
        assert Rule("builder_t", late, "grant", "map_write") not in allowed
        assert Rule("xenstore_t", late, "grant", "map_write") in allowed
    assert Rule("builder_t", "toolstack_t", "grant", "map_write") in allowed
