"""Networks: what may be declared, and how NetBack gets to know of it."""

from __future__ import annotations

import ipaddress
from collections import namedtuple
from typing import Any

import pytest
from driver_domains import NET, DriverHost, nic
from hypothesis import given
from hypothesis import strategies as st

from xoar.toolstack import ipv4
from xoar.toolstack.networks import MAX_NETWORKS, shape

HOME = f"/local/domain/{NET}/networks"
NAT = {"mode": "nat", "subnet": "10.9.0.0/24"}


def test_a_network_is_written_for_its_driver_domain_at_once() -> None:
    host = DriverHost()
    forwards = [(2222, "10.9.0.5", 22), (8080, "10.9.0.6", 80)]
    assert host.ask("network_create", **host.network("inner", **NAT, forwards=forwards)).kind == "done"
    host.lan()
    values = {
        "inner/mode": "nat", "inner/vlan": "0", "inner/subnet": "10.9.0.0/24",
        "inner/forwards": "tcp:2222:10.9.0.5:22 tcp:8080:10.9.0.6:80", "lan/mode": "bridge", "lan/vlan": "0",
    }  # fmt: skip
    for path, value in values.items():
        assert host.read(f"{HOME}/{path}", NET) == value, path


def test_networks_declared_early_and_kept_over_a_restart_are_there_before_netback_runs() -> None:
    host = DriverHost(start=False)
    host.claims = {"disk0"}
    host.run()
    host.lan()
    assert host.read(f"{HOME}/lan/mode") is None
    for _ in range(2):
        host.claims = {"net0", "disk0"}
        host.fake.hold = {"unpause"}
        id = host.send("driver_restart", name="net0", timeout_ms=1)
        host.run()
        assert host.read(f"{HOME}/lan/mode", NET) == "bridge" or host.fake.built.get(NET) is None
        host.fake.answer_held()
        host.run()
        assert host.answers[1, id].kind in ("done", "error")
        assert host.read(f"{HOME}/lan/mode", NET) == "bridge"


def test_the_agents_word_on_a_network_is_shown() -> None:
    host = DriverHost()
    host.lan()
    client = host.client(NET)
    client.write(f"/local/domain/{NET}/service/networks/lan", "failed no \x07 carrier" + "x" * 200)
    client.write(f"/local/domain/{NET}/service/networks/other", "up")
    host.run()
    (row,) = host.ask("network_list", start=0).fields.networks
    assert row.state.startswith("failed no ? carrierxx") and len(row.state) == 128
    client.write(f"/local/domain/{NET}/service/networks/lan", "up")
    host.run()
    assert host.ask("network_list", start=0).fields.networks[0].state == "up"
    host.fake.channel.send("stopped", 0, domid=NET, reason="crash")
    host.run()
    assert host.ask("network_list", start=0).fields.networks[0].state == ""


def test_a_network_in_use_is_not_deleted() -> None:
    host = DriverHost()
    host.lan()
    host.create(nics=[nic()])
    assert host.ask("network_delete", name="lan").fields.text == "network lan is used by web"
    host.ask("guest_destroy", name="web")
    assert host.ask("network_delete", name="lan").kind == "done"
    assert host.read(f"{HOME}/lan/mode") is None
    assert host.ask("network_delete", name="lan").fields.errno == 2


def test_networks_are_bounded_and_listed_in_pages() -> None:
    host = DriverHost()
    names = [f"n{number}" for number in range(MAX_NETWORKS)]
    for vlan, name in enumerate(names):
        assert host.ask("network_create", **host.network(name, vlan=vlan)).kind == "done"
    assert host.ask("network_create", **host.network("more", vlan=99)).fields.errno == 28
    found: list[str] = []
    more = 1
    while more:
        fields = host.ask("network_list", start=len(found)).fields
        found += [row.name for row in fields.networks]
        more = fields.more
    assert found == names


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "lan", "vlan": 7}, "there is a network lan already"),
        ({"driver": "net9"}, "there is no driver domain net9"),
        ({"driver": "disk0"}, "disk0 is a blkback, not a netback"),
        ({}, "network lan on net0 is a bridge of the same VLAN (0"),
        ({"vlan": 4095}, "VLAN 4095: 1 to 4094"),
        ({"subnet": "10.0.0.0/24"}, "a bridge has no subnet"),
        ({**NAT, "subnet": "10.8.0.0/15"}, "is no private IPv4 subnet"),
        ({**NAT, "subnet": "10.8.0.128/24"}, "is no private IPv4 subnet"),
        ({**NAT, "subnet": "8.8.8.0/24"}, "is no private IPv4 subnet"),
        ({**NAT, "subnet": "10.8.4.0/22"}, "inner on net0 has the overlapping subnet 10.8.0.0/16"),
        ({**NAT, "vlan": 3}, "a nat network has no VLAN"),
        ({**NAT, "forwards": [(22, "10.9.0.5", 22)]}, "inner on net0 forwards port 22 already"),
        ({**NAT, "forwards": [(80, "10.9.0.1", 22)]}, "no guest's address in 10.9.0.0/24"),
        ({**NAT, "forwards": [(80, "10.8.0.5", 22)]}, "no guest's address in 10.9.0.0/24"),
        ({**NAT, "forwards": [(80, "x", 22)]}, "no guest's address in 10.9.0.0/24"),
        ({**NAT, "forwards": [(0, "10.9.0.5", 22)]}, "a forwarded port is 0"),
        ({**NAT, "forwards": [(80, "10.9.0.5", 1), (80, "10.9.0.6", 2)]}, "port 80 is forwarded twice"),
    ],
)
def test_a_bad_network_is_refused(changes: dict[str, Any], text: str) -> None:
    host = DriverHost()
    host.lan()
    inner = host.network("inner", mode="nat", subnet="10.8.0.0/16", forwards=[(22, "10.8.0.9", 22)])
    assert host.ask("network_create", **inner).kind == "done"
    reply = host.ask("network_create", **host.network(**{"name": "new", **changes}))
    assert reply.kind == "error" and text in reply.fields.text
    assert host.read(f"{HOME}/new/mode") is None


@given(
    st.from_regex(r"[0-9./ ]{0,24}", fullmatch=True) | st.ip_addresses(v=4).map(str) | st.text(max_size=20)
)
def test_addresses_are_those_that_a_host_can_have(text: str) -> None:
    number = ipv4.address(text)
    try:
        known = ipaddress.IPv4Address(text)
    except ValueError:
        assert number is None
        return
    if number is None:
        assert known.is_loopback or known.is_multicast or known.is_reserved or known.packed[0] == 0
    else:
        assert number == int(known)


@given(st.ip_addresses(v=4), st.integers(0, 40), st.booleans())
def test_subnets_are_private_networks_of_a_sensible_size(
    address: ipaddress.IPv4Address, prefix: int, masked: bool
) -> None:
    base = int(address) & ~((1 << max(32 - prefix, 0)) - 1) if masked else int(address)
    text = f"{ipaddress.IPv4Address(base)}/{prefix}"
    found = ipv4.subnet(text)
    if found is not None:
        known = ipaddress.IPv4Network(text)
        assert found == (int(known.network_address), known.prefixlen)
        assert 16 <= prefix <= 29 and not known.is_global
        hosts = list(known.hosts())
        assert not ipv4.for_guests(int(hosts[0]), found) and ipv4.for_guests(int(hosts[1]), found)
        assert ipv4.for_guests(int(hosts[-1]), found) and not ipv4.for_guests(int(hosts[-1]) + 1, found)
        assert ipv4.overlap(found, found)


Fields = namedtuple("Fields", ("mode", "vlan", "subnet", "forwards"))


@given(
    st.sampled_from(["nat", "bridge"]), st.integers(0, 0xFFFF), st.text(max_size=18),
    st.lists(st.tuples(st.integers(0, 0xFFFF), st.text(max_size=15), st.integers(0, 0xFFFF)), max_size=3),
)  # fmt: skip
def test_any_fields_are_judged(mode: str, vlan: int, subnet: str, forwards: list[Any]) -> None:
    assert isinstance(shape(Fields(mode, vlan, subnet, forwards)), str)
