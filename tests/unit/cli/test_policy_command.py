"""`xoar policy`: what it prints, its exit codes, and that it needs no host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_host import Run

from xoar.cli.failures import ERROR, NOT_FOUND, USAGE
from xoar.host.build.xen import Xen
from xoar.privilege import shardset


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A copy of this checkout's manifests that a test may change."""
    folder = tmp_path / "other/src/xoar/shards"
    for path in shardset.SHARDS_FOLDER.glob("*/manifest.toml"):
        (folder / path.parent.name).mkdir(parents=True)
        shutil.copy(path, folder / path.parent.name)
    return folder


@pytest.fixture
def _xen(built_xen: Xen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xoar.host.build.xen.build", lambda apt, show, tree: built_xen)


def line_of(text: str, name: str) -> int:
    lines = (shardset.SHARDS_FOLDER / name / "manifest.toml").read_text().splitlines()
    return lines.index(text) + 1


def test_show_lists_rights_with_their_lines_and_reasons(run: Run) -> None:
    result = run("policy", "show", "builder")
    assert result.exit_code == 0
    held, over = result.stdout.split("rights of others on builder")
    line = line_of('permissions = ["adjust", "map_read", "map_write"]', "builder")
    assert "  guest:\n" in held
    assert (
        "    allow builder_t guest_t:mmu { adjust map_read map_write };\n"
        f"      builder/manifest.toml:{line}: gives them their memory and loads their images\n"
    ) in held
    assert "  toolstack:\n" in over
    assert "allow toolstack_t_channel builder_t:event bind;" in over


@pytest.mark.parametrize("name", sorted(shardset.load_all().manifests))
def test_show_knows_every_manifest(run: Run, name: str) -> None:
    shown = json.loads(run("policy", "show", name, "--json").stdout)
    assert list(shown) == ["name", "may", "others_may"]
    for group in (*shown["may"], *shown["others_may"]):
        assert list(group) == ["source", "target", "class", "permissions", "optional", "because"]
        assert group["optional"] == (group["permissions"] == ["debug"])
        assert group["permissions"]
        for origin in group["because"]:
            assert list(origin) == ["manifest", "line", "why"]


def test_show_of_an_unknown_name_lists_the_known_ones(run: Run) -> None:
    result = run("policy", "show", "bilder")
    assert result.exit_code == NOT_FOUND
    assert 'Did you mean "builder"?' in result.stderr
    assert "guest" in result.stderr


@pytest.mark.usefixtures("_xen")
def test_explain_of_an_allowed_right_names_the_line(run: Run) -> None:
    result = run("policy", "explain", "builder", "guest", "mmu:map_write")
    line = line_of('permissions = ["adjust", "map_read", "map_write"]', "builder")
    assert result.exit_code == 0
    assert result.stdout == (
        "allowed: allow builder_t guest_t:mmu map_write;\n"
        f"  builder/manifest.toml:{line}: gives them their memory and loads their images\n"
    )


@pytest.mark.usefixtures("_xen")
def test_explain_of_a_denial_names_the_promise(run: Run) -> None:
    context = "system_u:system_r:"
    result = run("policy", "explain", f"{context}toolstack_t", f"{context}guest_t", "pause")
    assert result.exit_code == ERROR
    assert result.stdout.startswith("not allowed: allow toolstack_t guest_t:domain pause;\n")
    assert "only Bootstrapper and Builder control other domains" in result.stdout


@pytest.mark.usefixtures("_xen")
def test_explain_of_an_optional_right_says_what_permits_it(run: Run) -> None:
    result = run("policy", "explain", "console", "xen", "debug")
    assert result.exit_code == ERROR
    assert "optional, off by default: allow console_t xen_t:xen debug;" in result.stdout
    assert "xoar right permit console xen.debug" in result.stdout


@pytest.mark.usefixtures("_xen")
def test_explain_as_json(run: Run) -> None:
    result = run("policy", "explain", "xenstore", "xen", "physinfo", "--json")
    assert result.exit_code == ERROR
    told = json.loads(result.stdout)
    assert list(told) == [
        "allowed", "optional", "source", "target", "class", "permission", "because", "promises", "remedy",
    ]  # fmt: skip
    assert (told["allowed"], told["because"], told["promises"]) == (False, [], [])
    assert told["remedy"].startswith("xenstore/manifest.toml would have to state it")


@pytest.mark.usefixtures("_xen")
def test_explain_of_an_unknown_name_is_wrong_usage(run: Run) -> None:
    result = run("policy", "explain", "builder", "nobody", "pause")
    assert result.exit_code == USAGE
    assert "toolstack" in result.stderr


def test_diff_of_equal_manifests_is_silent(run: Run, other: Path) -> None:
    result = run("policy", "diff", str(other))
    assert (result.exit_code, result.stdout) == (0, "")
    assert run("policy", "diff", str(other.parents[2])).exit_code == 0  # the other checkout itself


def test_diff_shows_what_was_removed_and_added(run: Run, other: Path) -> None:
    path = other / "builder/manifest.toml"
    text = path.read_text()
    line = line_of('permissions = ["adjust", "map_read", "map_write"]', "builder")
    path.write_text(text.replace('["adjust", "map_read", "map_write"]', '["adjust", "map_read", "stat"]', 1))
    result = run("policy", "diff", str(other))
    assert result.exit_code == ERROR
    assert "- allow builder_t guest_t:mmu stat;\n" in result.stdout
    assert "+ allow builder_t guest_t:mmu map_write;\n" in result.stdout
    assert f"builder/manifest.toml:{line}: gives them their memory" in result.stdout
    told = json.loads(run("policy", "diff", str(other), "--json").stdout)
    assert {tuple(group["permissions"]) for group in told["removed"]} == {("stat",)}
    assert {group["target"] for group in told["added"]} == {"guest_t", "pciback_t", "tenant_t"}


def test_diff_with_a_folder_without_manifests_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run("policy", "diff", str(tmp_path))
    assert result.exit_code == USAGE
    assert "manifest.toml" in result.stderr


def test_a_bad_manifest_is_reported_with_file_and_line(run: Run, other: Path) -> None:
    path = other / "console/manifest.toml"
    path.write_text("nonsense = 1\n" + path.read_text())
    result = run("policy", "diff", str(other))
    assert result.exit_code == USAGE
    assert f"{path}:1: " in result.stderr
    assert "Traceback" not in result.stderr
