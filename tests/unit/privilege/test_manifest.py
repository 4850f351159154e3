from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xoar.privilege import document, shardset
from xoar.privilege.errors import ManifestError
from xoar.privilege.manifest import Frontend, Manifest, Restart, Right, Serial, Use, parse

PATH = Path("shards/web/manifest.toml")
TEXT = """\
name = "web"
summary = "serves pages"
kind = "shard"
main = "xoar.shards.web.main"
memory = "12MiB"
vcpus = 1
parent = "bootstrapper"
lives = "forever"
restart = "none"

[uses.xenstore]
role = "backend"

[uses.builder]
link = "build"

[serial]
ports = "0x3f8-0x3ff"

[[rights]]
on = ["xen", "self"]
class = "xen"
permissions = [
    "writeconsole",
    "physinfo",
]
why = "it writes"
"""


def test_all_that_a_manifest_states_is_read():
    web = parse(TEXT, PATH)
    assert (web.name, web.kind, web.main, web.memory_kib) == ("web", "shard", "xoar.shards.web.main", 12288)
    assert (web.parent, web.lives, web.vcpus) == ("bootstrapper", "forever", 1)
    assert web.restart == Restart("none")
    assert web.uses == (
        Use("xenstore", "xenstore", "backend", line=11),
        Use("builder", "build", None, line=14),
    )
    assert web.serial == Serial(0x3F8, 0x3FF, 18)
    assert web.rights == (
        Right("xen", "xen", "writeconsole", "it writes", 24, 22, 21),
        Right("xen", "xen", "physinfo", "it writes", 25, 22, 21),
        Right("self", "xen", "writeconsole", "it writes", 24, 22, 21),
        Right("self", "xen", "physinfo", "it writes", 25, 22, 21),
    )
    assert web.label == "system_u:system_r:web_t"


def test_a_right_is_optional_only_if_that_is_stated():
    web = parse(TEXT + "optional = true\n", PATH)
    assert [right.optional for right in web.rights] == [True] * 4
    assert not any(right.optional for right in parse(TEXT, PATH).rights)
    with pytest.raises(ManifestError, match="wrong type"):
        parse(TEXT + 'optional = "yes"\n', PATH)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('name = "web"', "", 1, "name is missing"),
        ('name = "web"', 'name = "Web server"', 1, "not a valid value"),
        ('name = "web"', 'name = "xen"', 1, "means something else"),
        ('name = "web"', "name = 7", 1, "wrong type"),
        ('summary = "serves pages"', 'summary = "two\\nlines"', 2, "one line"),
        ('kind = "shard"', 'kind = "pod"', 3, "not one of: shard, driver, guest"),
        ('main = "xoar.shards.web.main"', 'main = "os.system"', 4, "not a valid value"),
        ('memory = "12MiB"', 'memory = "12MB"', 5, 'memory = "12MiB"'),
        ('memory = "12MiB"', "memory = 12", 5, "wrong type"),
        ('memory = "12MiB"', 'memory = "13KiB"', 5, "whole pages"),
        ('memory = "12MiB"', 'memory = "65GiB"', 5, "64GiB at most"),
        ("vcpus = 1", "vcpus = 2", 6, "one vCPU"),
        ("vcpus = 1", "vcpus = 0", 6, "one vCPU"),
        ("vcpus = 1", "vcpus = true", 6, "wrong type"),
        ('parent = "bootstrapper"', 'parent = "web"', 7, "own parent"),
        ('lives = "forever"', 'lives = "long"', 8, "not one of"),
        ('restart = "none"', 'restart = "none"\ncolour = "red"', 10, '"colour" is not a key'),
        ('restart = "none"', 'restart = "none"\nreceives = ["mail"]', 10, "not one of: library, exceptions"),
        ('role = "backend"', 'role = "owner"', 12, "not one of: backend"),
        ('link = "build"', "link = 1", 15, "wrong type"),
        ('link = "build"', "weight = 1", 15, '"weight" is not a key of manifests in [uses.builder]'),
        ("[uses.builder]", "[uses.Builder]", 14, "not a shard's name"),
        ('ports = "0x3f8-0x3ff"', 'ports = "0x3ff-0x3f8"', 18, "ends before it begins"),
        ('ports = "0x3f8-0x3ff"', 'ports = "1016"', 18, "not a valid value"),
        ("[serial]", "[parallel]", 17, '"parallel" is not a key'),
        ('class = "xen"', "", 20, "class is missing"),
        ('why = "it writes"', "", 20, "why is missing"),
        ('why = "it writes"', 'why = " "', 27, "one line of text"),
        ('"physinfo",', '"writeconsole",', 23, "twice"),
        ('"physinfo",', "3,", 23, "holds 3"),
        ('on = ["xen", "self"]', "on = []", 21, "empty"),
        ("[[rights]]", "[rights]", 20, "written as [[rights]]"),
        ("kind = ", "kind ", 3, "not TOML"),
        ('kind = "shard"', 'kind = "guest"', 4, "a guest's configuration states it"),
    ],
)
def test_a_mistake_is_reported_with_file_line_and_reason(old, new, line, said):
    assert TEXT.count(old) == 1
    with pytest.raises(ManifestError) as caught:
        parse(TEXT.replace(old, new), PATH)
    assert str(caught.value).startswith(f"{PATH}:{line}: ")
    assert said in str(caught.value)


DRIVER = """\
name = "net"
summary = "a network card"
kind = "driver"
memory = "96MiB"
parent = "toolstack"
lives = "forever"
restart = "none"

[frontends.pciback]
protocol = "pci"
"""


RESTART = """\
[restart]
policy = "request"
requests = 3
patience_ms = 2000
by = ["xenstore", "toolstack"]
"""


def restarted(table: str) -> Manifest:
    """The manifest with this in place of restart = "none"; the table begins in line 22."""
    return parse(
        TEXT.replace('restart = "none"\n', "").replace("[uses.builder]", table + "\n[uses.builder]"), PATH
    )


def test_when_a_shard_is_rolled_back_is_read():
    read = restarted(RESTART).restart
    assert (read.policy, read.by, read.requests) == ("request", ("xenstore", "toolstack"), 3)
    assert (read.patience_ms, read.seconds) == (2000, 0)
    assert str(read) == "after 3 requests"
    timed = restarted('[restart]\npolicy = "timer"\nseconds = 60\n').restart
    assert (timed.policy, timed.by, timed.seconds, str(timed)) == ("timer", (), 60, "after 60 s")
    assert str(restarted('[restart]\npolicy = "demand"\nby = "toolstack"\n').restart) == "on demand"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('policy = "request"', 'policy = "often"', 2, "not one of: demand, request, timer"),
        ('policy = "request"\n', "", 1, "policy is missing"),
        ("requests = 3", "requests = 0", 3, "not between 1 and"),
        ("requests = 3", 'requests = "3"', 3, "wrong type"),
        ("requests = 3\n", "", 1, "requests is missing"),
        ("patience_ms = 2000", "patience_ms = 5", 4, "not between 100 and"),
        ("patience_ms = 2000", "seconds = 5", 4, "patience_ms is missing|is not a key"),
        ('by = ["xenstore", "toolstack"]', "by = []", 5, "empty"),
        ('by = ["xenstore", "toolstack"]', "", 1, "by is missing"),
        ('by = ["xenstore", "toolstack"]', 'by = "xenstore"\ncolour = 1', 6, "not a key"),
    ],
)
def test_a_wrong_restart_is_named_with_its_line(old, new, line, said):
    first = 1 + TEXT.replace('restart = "none"\n', "").split("[uses.builder]")[0].count("\n")
    with pytest.raises(ManifestError, match=said) as caught:
        restarted(RESTART.replace(old, new))
    assert caught.value.line in (first + line - 1, first)


def test_all_that_a_driver_domains_manifest_states_is_read():
    net = parse(DRIVER, PATH)
    assert (net.kind, net.main, net.memory_kib, net.vcpus) == ("driver", None, 96 << 10, 1)
    assert (net.parent, net.lives, net.restart.policy) == ("toolstack", "forever", "none")
    assert net.frontends == (Frontend("pciback", "pci", 9),)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('restart = "none"', 'restart = "none"\nmain = "xoar.a"', 8, "a driver domain runs Linux"),
        ('restart = "none"', 'restart = "none"\nvcpus = 2', 8, "a driver domain runs Linux"),
        ('restart = "none"', 'restart = "none"\nreceives = ["hardware"]', 8, "a driver domain runs Linux"),
        ('lives = "forever"', 'lives = "boot"', 6, "not one of: forever"),
        ('parent = "toolstack"', "", 1, "parent is missing"),
        ('memory = "96MiB"', "", 1, "memory is missing"),
        ('protocol = "pci"', 'protocol = "usb"', 10, "not one of: vif, vbd, pci"),
        ('protocol = "pci"', "", 9, "protocol is missing"),
        ('protocol = "pci"', 'protocol = "pci"\nlink = "a"', 11, '"link" is not a key'),
        ("[frontends.pciback]", "[frontends.PCIBack]", 9, "not a shard's name"),
    ],
)
def test_a_mistake_in_a_driver_domains_manifest_is_reported_with_its_line(old, new, line, said):
    assert DRIVER.count(old) == 1
    with pytest.raises(ManifestError) as caught:
        parse(DRIVER.replace(old, new), PATH)
    assert str(caught.value).startswith(f"{PATH}:{line}: ")
    assert said in str(caught.value)


@given(st.text())
def test_any_text_is_a_manifest_or_a_manifest_error(text):
    try:
        parse(text, PATH)
    except ManifestError as error:
        assert 1 <= error.line <= max(1, len(text.splitlines()))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, TEXT.count("\n") - 1),
            st.sampled_from(["", "x = 1", "[uses]", 'on = "a b"', "[[uses.a]]", "rights = 1", "[rights]"]),
        ),
        max_size=3,
    )
)
def test_a_manifest_with_damaged_lines_is_accepted_or_refused_with_a_line(changes):
    lines = TEXT.splitlines()
    for index, new in changes:
        lines[index] = new
    try:
        parse("\n".join(lines), PATH)
    except ManifestError as error:
        assert 1 <= error.line <= len(lines)


def test_an_unreadable_file_is_a_manifest_error(tmp_path):
    path = tmp_path / "manifest.toml"
    path.write_bytes(b"name = \xff")
    with pytest.raises(ManifestError, match="can't be read"):
        shardset.manifests.load(path)


def test_the_manifests_of_this_host_agree_with_each_other():
    shards = shardset.load_all()
    assert shards.root.name == "bootstrapper"
    assert {guest.name for guest in shards.guests} == {"guest"}


def test_the_table_in_the_documentation_is_the_one_of_the_manifests():
    text = (Path(__file__).parents[3] / "docs/manifests.md").read_text()
    assert text.endswith(f"\n\n{document.markdown()}\n"), (
        "put there what python -m xoar.privilege.document prints"
    )
