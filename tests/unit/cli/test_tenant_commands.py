"""Tenants in xoar.toml and on the command line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from fake_host import FakeHost, Run

from xoar.cli.failures import ERROR
from xoar.host import config, state, tenants
from xoar.host.config import ConfigError
from xoar.host.tenancy import Tenant
from xoar.messages.records import TENANT
from xoar.messages.seal import KEY_SIZE

ACME = Tenant("acme", 98304, 3, 2)


def test_tenants_are_listed_with_what_they_have_and_may_have(host: FakeHost, run: Run) -> None:
    host.tenants = [
        TENANT.value("acme", 32512, "ready", 1, 32768, 1, 4, 2, 98304, 3, 16, 65_000, 1, "it crashed")
    ]
    result = run("tenant", "list")
    for said in ("acme", "32512", "1 of 2", "32MiB of 96MiB", "1 of 3", "it crashed"):
        assert said in result.stdout
    (row,) = json.loads(run("tenant", "list", "--json").stdout)
    assert (row["name"], row["guests"], row["max_vcpus"]) == ("acme", 1, 3)


def test_a_key_is_made_once_for_each_tenant_and_only_its_owner_reads_it(
    host: FakeHost, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tenants.KEY_VARIABLE, raising=False)
    assert "can't read the key of tenant acme" in run("tenant", "key", "acme").stderr
    (made,) = tenants.keyed([ACME], "xoar")
    assert (made.name, made.guests, len(made.key)) == ("acme", 2, KEY_SIZE)
    assert tenants.keyed([ACME], "xoar") == [made] != tenants.keyed([ACME], "other")
    path = Path(run("tenant", "key", "acme").stdout.strip())
    assert path.is_relative_to(state.root())
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert tenants.key("acme", "xoar") == made.key


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31])
def test_a_file_without_a_key_is_named(
    host: FakeHost, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    monkeypatch.setenv(tenants.KEY_VARIABLE, str(path))
    result = run("guest", "list", "--host", "acme@xoar")
    assert result.exit_code == ERROR
    assert str(path) in result.stderr


def test_names_of_tenants_and_hosts() -> None:
    assert tenants.split("acme@lab") == ("acme", "lab")
    assert tenants.split("lab") == ("", "lab")


def test_what_xoar_toml_says_of_tenants() -> None:
    text = '[tenants.acme]\nmemory = "96MiB"\nvcpus = 3\nguests = 2\n[tenants.other-one]\n'
    found = config.parse(text, Path("xoar.toml")).tenants
    assert found["acme"] == ACME
    assert found["other-one"] == Tenant("other-one", 1 << 20, 8, 8)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[tenants.Acme]", 1, "no name for a tenant"),
        ('[tenants.acme]\nmemory = "1MB"', 2, "memory"),
        ("[tenants.acme]\nguests = 0", 2, "guests"),
        ("[tenants.acme]\nvcpu = 1", 2, "vcpus"),
        ("".join(f"[tenants.t{number}]\n" for number in range(101)), 1, "at most 100"),
    ],
)
def test_mistakes_about_tenants_are_named_with_their_line(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, Path("xoar.toml"))
    assert f"xoar.toml:{line}" in str(caught.value) and said in str(caught.value)
