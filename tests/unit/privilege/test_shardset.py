import pytest

from xoar.privilege import shardset
from xoar.privilege.errors import ManifestError


def test_samples_are_accepted(samples, check):
    shards = check(samples)
    names = [m.name for m in shards.in_boot_order()]
    assert names == ["bootstrapper", "console", "xenstore", "builder", "guest"]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("builder", "[uses.xenstore]", "[uses.xenstored]", "there is no such shard; there are: bootstrapper"),
        ("builder", "[uses.xenstore]", "[uses.guest]", "there is no such shard"),
        ("builder", "[uses.xenstore]", "[uses.builder]", "link to itself"),
        ("builder", "[uses.xenstore]", "[uses.bootstrapper]", "does not live for ever"),
        ("builder", 'parent = "bootstrapper"', 'parent = "init"', "there is no such shard"),
        ("guest", 'parent = "builder"', 'parent = "guests"', "there is no such shard"),
        (
            "console",
            "[serial]",
            "[uses.builder]\n[serial]",
            "uses form a circle: builder -> console -> builder",
        ),
        ("builder", "[uses.xenstore]\nlink = ", '[uses.xenstore]\nlink = "console" #', "is kept for"),
        ("builder", "[uses.xenstore]", '[uses.xenstore]\nrole = "backend"', "to XenStore only"),
        ("builder", 'on = "guest"\nclass = "mmu"', 'on = "guests"\nclass = "mmu"', "nothing of that name"),
        ("builder", 'on = "guest"\nclass = "mmu"', 'on = "builder"\nclass = "mmu"', 'write on = "self"'),
        ("xenstore", 'restart = "none"', 'restart = "none"\n[serial]\nports = "0x2ff-0x300"', "belong to"),
        ("bootstrapper", 'lives = "boot"', 'lives = "forever"', "is started by Xen"),
        ("bootstrapper", 'lives = "boot"', 'lives = "boot"\nparent = "builder"', "parents form a circle"),
        ("xenstore", 'parent = "bootstrapper"', "", "only one shard has none"),
        (
            "xenstore",
            'restart = "none"',
            'restart = "none"\nreceives = "exceptions"',
            'can have "exceptions"',
        ),
    ],
)
def test_a_contradiction_names_a_file_a_line_and_the_reason(samples, check, name, old, new, said):
    assert samples[name].count(old) == 1
    samples[name] = samples[name].replace(old, new)
    with pytest.raises(ManifestError) as caught:
        check(samples)
    assert said in str(caught.value)
    assert 1 <= caught.value.line <= len(samples[caught.value.path.parent.name].splitlines())


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("guest", "[frontends.blkback]", "[frontends.blockback]", 'of protocol "vbd" is a driver domain'),
        ("guest", "[frontends.blkback]", "[frontends.xenstore]", 'of protocol "vbd" is a driver domain'),
        ("guest", 'protocol = "vif"', 'protocol = "pci"', 'for kind = "driver"'),
        ("netback", "[frontends.pciback]", "[frontends.builder]", "a shard that is built on request"),
        ("netback", 'protocol = "pci"', 'protocol = "vbd"', 'for kind = "guest"'),
        ("netback", 'parent = "builder"', 'parent = "blkback"', "there is no such shard"),
        ("netback", 'parent = "builder"', 'parent = "bootstrapper"', "is built while the host runs"),
        ("netback", "[uses.xenstore]", "[uses.blkback]", "there is no such shard"),
        ("netback", "[uses.xenstore]", "[uses.pciback]", "does not live for ever"),
        ("pciback", 'parent = "builder"', 'parent = "bootstrapper"', "is built while the host runs"),
    ],
)
def test_a_contradiction_about_devices_is_named_too(device_samples, check, name, old, new, said):
    assert device_samples[name].count(old) == 1
    device_samples[name] = device_samples[name].replace(old, new)
    with pytest.raises(ManifestError) as caught:
        check(device_samples)
    assert said in str(caught.value)
    assert caught.value.path.parent.name == name


def test_who_comes_and_goes_is_no_part_of_the_boot(device_samples, check):
    shards = check(device_samples)
    assert [m.name for level in shards.levels for m in level] == ["xenstore", "console", "builder"]
    order = ["pciback", "netback", "blkback", "guest"]
    assert sorted(m.name for m in shards.in_boot_order()[4:]) == sorted(order)
    assert [m.kind for m in shards.in_boot_order()[4:]] == ["shard", "driver", "driver", "guest"]


def test_the_line_named_is_the_one_to_change(samples, check):
    samples["builder"] = samples["builder"].replace("[uses.console]", "[uses.cnosole]")
    with pytest.raises(ManifestError) as caught:
        check(samples)
    line = samples["builder"].splitlines()[caught.value.line - 1]
    assert (caught.value.path.parent.name, line) == ("builder", "[uses.cnosole]")


def test_a_name_is_used_once(samples, check):
    samples["other"] = samples["xenstore"]
    with pytest.raises(ManifestError, match="already describes xenstore"):
        check(samples)


def test_a_seventh_request_link_is_refused(samples, check):
    samples["many"] = samples["xenstore"].replace("xenstore", "many")
    for number in range(7):
        samples[f"s{number}"] = samples["xenstore"].replace("xenstore", f"s{number}")
        samples["many"] += f"\n[uses.s{number}]\n"
    with pytest.raises(ManifestError, match="opens 7 request links"):
        check(samples)


def test_a_manifest_in_the_folder_of_another_is_refused(tmp_path, samples):
    for name, text in samples.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.toml").write_text(text)
    assert len(shardset.load_all(tmp_path).manifests) == len(samples)
    (tmp_path / "builder").rename(tmp_path / "biulder")
    with pytest.raises(ManifestError, match="its folder is biulder"):
        shardset.load_all(tmp_path)
