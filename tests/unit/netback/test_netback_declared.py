from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xoar.netback.declared import Forward, Network, Vif, parse_network, parse_place, parse_vif
from xoar.netback.errors import Malformed

MAC = "00:16:3e:00:00:05"
SUBNET = IPv4Network("10.9.0.0/24")
words = st.text(st.characters(max_codepoint=0x7F), max_size=30)
decimals = st.integers(0, 1 << 17).map(str)
values = (
    words | decimals | st.sampled_from(["bridge", "nat", "10.9.0.0/24", "tcp:1:10.9.0.2:2", "10.9.0.2", MAC])
)


def test_a_bridge_network():
    assert parse_network("lan", {"mode": "bridge", "vlan": "100"}) == Network("lan", 100)


def test_a_network_behind_nat():
    nodes = {
        "mode": "nat",
        "vlan": "0",
        "subnet": "10.9.0.0/24",
        "forwards": "tcp:2222:10.9.0.5:22 tcp:80:10.9.0.6:80",
    }
    forwards = (Forward(2222, IPv4Address("10.9.0.5"), 22), Forward(80, IPv4Address("10.9.0.6"), 80))
    assert parse_network("inside", nodes) == Network("inside", 0, SUBNET, forwards)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mode": "route"}, "there are bridge and nat"),
        ({"vlan": "1"}, "leave vlan out"),
        ({"vlan": "-1"}, "from 0 to 4094"),
        ({"vlan": "4095"}, "from 0 to 4094"),
        ({"subnet": ""}, "no IPv4 address"),
        ({"subnet": "10.9.0.1/24"}, "such as 10.9.0.0/24"),
        ({"subnet": "10.9.0.0/30"}, "/16 to /29"),
        ({"subnet": "10.9.0.0/024"}, "/16 to /29"),
        ({"subnet": "127.0.0.0/24"}, "no host can have"),
        ({"forwards": "udp:1:10.9.0.5:1"}, "tcp:<outer port>"),
        ({"forwards": "tcp:0:10.9.0.5:1"}, "from 1 to 65535"),
        ({"forwards": "tcp:1:10.9.0.5:65536"}, "from 1 to 65535"),
        ({"forwards": "tcp:1:10.9.1.5:1"}, "no guest's address in 10.9.0.0/24"),
        ({"forwards": "tcp:1:10.9.0.1:1"}, "no guest's address"),
        ({"forwards": "tcp:1:10.9.0.5:1 tcp:1:10.9.0.6:1"}, "twice"),
    ],
)
def test_a_network_that_makes_no_sense(change: dict[str, str], complaint: str):
    with pytest.raises(Malformed, match=complaint):
        parse_network("inside", {"mode": "nat", "subnet": "10.9.0.0/24", **change})


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a\n", "-a", "A", "a" * 65])
def test_a_name_that_is_none(name: str):
    with pytest.raises(Malformed):
        parse_network(name, {"mode": "bridge"})


def test_a_vif():
    nodes = {"mac": MAC.upper(), "network": "lan", "address": "192.0.2.5"}
    assert parse_vif((5, 0), nodes) == Vif((5, 0), MAC, "lan", IPv4Address("192.0.2.5"))
    assert parse_vif((5, 1), {"mac": MAC, "network": "lan"}) == Vif((5, 1), MAC, "lan", None)
    assert parse_vif((5, 1), {"mac": MAC, "network": "lan", "address": ""}).name == "vif5.1"


@pytest.mark.parametrize(
    "change",
    [
        {"mac": ""},
        {"mac": "00:16:3e:00:00"},
        {"mac": "01:16:3e:00:00:05"},
        {"mac": "00:00:00:00:00:00"},
        {"mac": "fe:ff:ff:ff:ff:ff"},
        {"mac": MAC + "\n"},
        {"network": ""},
        {"network": "a b"},
        {"address": "192.0.2"},
        {"address": "192.0.2.05"},
        {"address": "224.0.0.1"},
        {"address": "255.255.255.255"},
        {"address": "0.0.0.0"},
    ],
)
def test_a_vif_that_makes_no_sense(change: dict[str, str]):
    with pytest.raises(Malformed):
        parse_vif((5, 0), {"mac": MAC, "network": "lan", **change})


@given(st.dictionaries(st.sampled_from(["mode", "vlan", "subnet", "forwards"]), values))
@example({"mode": "nat", "subnet": "10.9.0.0/24", "forwards": "tcp:1:10.9.0.2:2"})
def test_whatever_a_network_is_it_is_sound_or_malformed(nodes: dict[str, str]):
    try:
        network = parse_network("lan", nodes)
    except Malformed:
        return
    assert 0 <= network.vlan <= 4094
    assert (network.subnet is None) == (nodes["mode"] == "bridge")
    assert all(network.hosts(forward.address) and 0 < forward.port <= 65535 for forward in network.forwards)


@given(st.dictionaries(st.sampled_from(["mac", "network", "address"]), values))
@example({"mac": MAC, "network": "lan", "address": "10.9.0.2"})
def test_whatever_a_vif_is_it_is_sound_or_malformed(nodes: dict[str, str]):
    try:
        vif = parse_vif((5, 0), nodes)
    except Malformed:
        return
    assert vif.mac == nodes["mac"].lower()
    assert str(vif.address or "") == nodes.get("address", "")


@given(st.integers(0, 0x7FEF), st.integers(0, 255))
def test_a_place_is_two_numbers(guest: int, handle: int):
    assert parse_place(str(guest), str(handle)) == (guest, handle)


@given(words, words)
@example("05", "0")
@example("32752", "0")
@example("5", "256")
@example("\u0665", "0")
def test_other_names_of_nodes_are_no_place(guest: str, handle: str):
    place = parse_place(guest, handle)
    assert place is None or (str(place[0]), str(place[1])) == (guest, handle)
