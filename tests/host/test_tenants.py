"""Two tenants on a host: each has its own guests and nothing else, whatever its Toolstack is made to try."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ATTACKS, SHARDS, HostUnderTest, running
from test_denials import check_refused, outcomes

from xoar.cli.failures import ERROR, NOT_FOUND
from xoar.host import tenants
from xoar.host.assembly import Replacement
from xoar.host.client import Client

TEXT = """
[host]
memory = "2GiB"

[tenants.acme]
memory = "96MiB"
vcpus = 3
guests = 2

[tenants.bolt]
memory = "64MiB"

[images.tiny]
builtin = "tiny"
"""


class Tenant:
    """The commands of a tenant's operator."""

    def __init__(self, host: HostUnderTest, name: str) -> None:
        self.host = host
        self.name = name

    def cli(self, *arguments: str, status: int = 0, input: str = "") -> str:
        return self.host.cli(*arguments, status=status, input=input, tenant=self.name)

    def create(self, guest: str, memory: str = "32MiB", status: int = 0) -> str:
        return self.cli("guest", "create", guest, "--image", "tiny", "--memory", memory, status=status)

    def guests(self) -> list[str]:
        return [row["name"] for row in self.host.json("guest", "list", tenant=self.name)]


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("tenants", TEXT, logs) as host:
        yield host


@pytest.fixture
def acme(host: HostUnderTest) -> Iterator[Tenant]:
    yield from used(Tenant(host, "acme"))


@pytest.fixture
def bolt(host: HostUnderTest) -> Iterator[Tenant]:
    yield from used(Tenant(host, "bolt"))


def used(tenant: Tenant) -> Iterator[Tenant]:
    yield tenant
    for guest in tenant.guests():
        tenant.cli("guest", "destroy", guest)


def test_each_lists_creates_and_reaches_its_own_guests(
    host: HostUnderTest, acme: Tenant, bolt: Tenant
) -> None:
    acme.create("web")
    bolt.create("web")
    assert (acme.guests(), bolt.guests()) == (["web"], ["web"])
    assert host.json("guest", "list") == []
    for tenant in (acme, bolt):
        said = tenant.cli("console", "web", "--login", "root", input="echo $((6*7))\n")
        assert "42" in said
        assert "login: " in tenant.cli("logs", "web")
    owners = {row["id"]: row["owner"] for row in host.json("ps") if row["kind"] == "guest"}
    assert sorted(owners.values()) == ["tenant-acme", "tenant-bolt"]
    bolt.cli("guest", "reboot", "web")
    bolt.cli("guest", "shutdown", "web")
    assert (acme.guests(), bolt.guests()) == (["web"], [])


@pytest.mark.parametrize("command", ["show", "shutdown", "reboot", "destroy"])
def test_guests_of_others_do_not_exist(acme: Tenant, bolt: Tenant, command: str) -> None:
    acme.create("secret")
    assert "there is no guest secret" in bolt.cli("guest", command, "secret", status=NOT_FOUND)
    assert acme.guests() == ["secret"]


def test_quotas_are_builders(host: HostUnderTest, acme: Tenant) -> None:
    acme.create("one", "48MiB")
    refusal = acme.create("two", "64MiB", status=ERROR)
    assert "the quota of tenant-acme is 98304 KiB: its guests have 49152" in refusal
    acme.create("two")
    assert "is 2 guests: its guests have 2" in acme.create("three", "8MiB", status=ERROR)
    (row,) = [row for row in host.json("tenant", "list") if row["name"] == "acme"]
    assert (row["guests"], row["vcpus"], row["state"]) == (2, 2, "ready")
    acme.cli("guest", "destroy", "one")
    acme.create("three", "48MiB")


def test_a_key_opens_the_toolstack_of_its_tenant_only(
    host: HostUnderTest, acme: Tenant, bolt: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = host.log_position()
    monkeypatch.setenv(tenants.KEY_VARIABLE, str(tenants.key_file("bolt", host.host.name)))
    assert "Is it the right key?" in acme.cli("guest", "list", status=ERROR)
    assert bolt.guests() == []
    monkeypatch.setenv(tenants.KEY_VARIABLE, "/nowhere")
    assert "can't read the key of tenant acme" in acme.cli("guest", "list", status=ERROR)
    host.wait_log(r"an operator's stream is ended: the message is not from who has the key", start)
    monkeypatch.delenv(tenants.KEY_VARIABLE)
    with Client.connect(host.host.name) as client:
        client.tenants_toolstack("acme").write(b"x" * 64)
    host.wait_log(r"an operator's stream is ended", start)
    assert acme.guests() == []


def test_a_tenants_toolstack_taken_over_gets_at_nothing_of_the_other(state: None, logs: Path) -> None:
    replaced = {"tenant": Replacement("hostile_tenant", ATTACKS)}
    with running("hostile-tenant", TEXT, logs, replaced) as host:
        acme = Tenant(host, "acme")
        acme.create("victim")
        shown = host.json("guest", "show", "victim", tenant="acme")
        domids = {row["name"]: row["domid"] for row in host.json("tenant", "list")}
        host.wait_log("hostile: ready", 0)
        start = host.log_position()
        with Client.connect(host.host.name) as client:
            stream = client.open("toolstack", "bolt")
            victim = f"{domids['acme']} {shown['id']} {shown['uuid']}"
            stream.write(victim.encode())
            host.wait_log("attempts done|Traceback", start, timeout=120)
        log = host.log_since(start)
        assert "Traceback" not in log

        check_refused(outcomes(log), [*range(1, len(SHARDS) + 1), domids["acme"], shown["id"]])
        for permission in ("create", "pause", "map_read|map_write", "destroy"):
            assert re.search(
                rf"avc:\s+denied\s+{{ ({permission}).*scontext=system_u:system_r:tenant_t", log
            ), permission

        forged = re.findall(r"forged (\w+) (\S+) (\d+)", log)
        assert len(forged) == 17 and {errno for _, _, errno in forged} == {"1"}
        assert f"sees [{domids['bolt']}]" in log
        recorded = re.findall(r"refused (\w+) to tenant-bolt: domain (\d+) is not tenant-bolt's", log)
        assert ("destroy", str(shown["id"])) in recorded and ("unpause", str(domids["acme"])) in recorded
        assert "tenant may not send build_shard" in log
        assert "Flask: committed booleans" not in log
        entries = [entry for entry in host.json("journal")["entries"] if entry["who"] == "tenant-bolt"]
        for kind in ("permit_hypercall", "assign_pci_device", "withdraw_pci_device", "allow_delegation"):
            assert any(f"may not send {kind}" in entry["outcome"] for entry in entries), kind

        searched = re.findall(r"xenstore (\d+) (\S+) (\w+)", log)
        assert len(searched) == 6 * 7 + 5 + 5
        assert {outcome for _, _, outcome in searched} == {"EACCES"}

        # nobody else has noticed
        assert acme.guests() == ["victim"]
        said = acme.cli("console", "victim", "--login", "root", input="echo $((6*7))\n")
        assert "42" in said and "lies" not in said
