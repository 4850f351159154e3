from ipaddress import IPv4Address, IPv4Network

import pytest

from xoar.netback.declared import Forward, Network, Vif
from xoar.netback.layout import NO_NIC, Layout, Nic, bridge_name, is_physical, plan
from xoar.netback.names import configuration, hosts

NIC = Nic("eth0", "52:54:00:00:00:01")
LAN = Network("lan")
INSIDE = Network("inside", 0, IPv4Network("10.9.0.0/24"), (Forward(2222, IPv4Address("10.9.0.5"), 22),))


def vif(guest: int, network: str, address: str = "", mac: str = "") -> Vif:
    return Vif(
        (guest, 0), mac or f"00:16:3e:00:00:{guest:02x}", network, IPv4Address(address) if address else None
    )


def layout(*declared: Network | Vif, nic: Nic | None = NIC, leased: str = "") -> Layout:
    return plan(
        {each.name: each for each in declared if isinstance(each, Network)},
        {each.place: each for each in declared if isinstance(each, Vif)},
        nic,
        IPv4Network(leased) if leased else None,
    )


def test_the_untagged_network_has_the_card_and_its_mac():
    bridge = layout(LAN).bridges[bridge_name("lan")]
    assert (bridge.port, bridge.mac, bridge.address) == ("eth0", NIC.mac, "")


def test_a_tagged_network_has_the_cards_vlan():
    made = layout(LAN, Network("tagged", 100))
    assert made.vlans == {"vlan100": 100}
    assert made.bridges[bridge_name("tagged")].port == "vlan100"


def test_a_network_behind_nat_has_the_first_address_and_no_port():
    bridge = layout(INSIDE).bridges[bridge_name("inside")]
    assert (bridge.port, bridge.address) == ("", "10.9.0.1/24")


@pytest.mark.parametrize(
    ("device", "physical"),
    [
        ("/sys/devices/pci0000:00/0000:00:03.0", True),
        ("/sys/devices/pci-0/pci0000:00/0000:00:00.0/virtio0", True),
        ("/sys/devices/vif-5-0", False),
        ("/sys/class/net/lo/device", False),
    ],
)
def test_the_card_is_what_a_pci_function_is_or_carries(device: str, physical: bool):
    assert is_physical(device) == physical


def test_an_interfaces_name_fits_into_fifteen_characters():
    assert len(bridge_name("x" * 64)) <= 15


def test_the_uplink_is_the_card_or_the_bridge_that_has_it():
    assert layout(LAN).uplink == ""
    assert layout(INSIDE).uplink == "eth0"
    assert layout(INSIDE, LAN).uplink == bridge_name("lan")
    assert layout(INSIDE, Network("tagged", 100)).uplink == "eth0"


def test_without_a_card_there_are_bridges_and_a_fault():
    made = layout(LAN, INSIDE, vif(5, "lan"), nic=None)
    assert made.network_faults == {"lan": NO_NIC, "inside": NO_NIC}
    assert made.uplink == ""
    assert "vif5.0" in made.ports


def test_of_two_networks_that_contradict_each_other_the_second_is_left_out():
    for other, why in (
        (Network("zz"), "the untagged network"),
        (Network("zz", 0, IPv4Network("10.9.0.0/16")), "overlaps network inside's"),
        (Network("zz", 0, IPv4Network("10.1.0.0/24"), INSIDE.forwards), "port 2222"),
    ):
        made = layout(LAN, INSIDE, other, vif(5, "zz"))
        assert why in made.network_faults["zz"]
        assert bridge_name("zz") not in made.bridges
        assert why in made.vif_faults[(5, 0)]


def test_two_networks_whose_bridges_would_have_one_name_are_not_joined(monkeypatch):
    monkeypatch.setattr("xoar.netback.layout.bridge_name", lambda network: "br-00000000")
    made = layout(LAN, Network("lan2", 5), vif(5, "lan2"))
    assert "choose another name" in made.network_faults["lan2"]
    assert (5, 0) in made.vif_faults


def test_a_subnet_that_the_uplink_is_in_is_left_out_and_the_uplink_stays():
    made = layout(INSIDE, leased="10.9.0.0/16")
    assert "overlaps 10.9.0.0/16" in made.network_faults["inside"]
    assert made.uplink == "eth0"


def test_a_vif_that_does_not_fit_is_left_out():
    for wrong, why in (
        (vif(6, "nowhere"), "no network nowhere"),
        (vif(6, "lan", mac=NIC.mac), "NetBack's own"),
        (vif(6, "lan", mac=vif(5, "lan").mac), "vif5.0 has the MAC"),
        (vif(6, "lan", "192.0.2.5"), "vif5.0 has the address"),
        (vif(6, "inside", "192.0.2.6"), "no guest's in network inside"),
        (vif(6, "inside", "10.9.0.1"), "no guest's in network inside"),
    ):
        made = layout(LAN, INSIDE, vif(5, "lan", "192.0.2.5"), wrong)
        assert why in made.vif_faults[(6, 0)]
        assert set(made.ports) == {"vif5.0"}


def test_the_same_mac_on_two_networks_is_no_fault():
    assert not layout(LAN, INSIDE, vif(5, "lan"), vif(6, "inside", mac=vif(5, "lan").mac)).vif_faults


def test_what_is_given_to_others_is_taken():
    made = layout(LAN, INSIDE, vif(5, "inside", "10.9.0.5"), vif(6, "inside"), vif(7, "lan", "192.0.2.7"))
    assert made.ports["vif6.0"].taken == (IPv4Address("10.9.0.1"), IPv4Address("10.9.0.5"))
    assert made.ports["vif5.0"].taken == (IPv4Address("10.9.0.1"),)
    assert made.ports["vif7.0"].taken == ()


def test_dnsmasq_serves_networks_behind_nat_and_asks_the_uplinks_servers():
    made = layout(LAN, INSIDE, vif(5, "inside", "10.9.0.5"), vif(6, "inside"), vif(7, "lan", "192.0.2.7"))
    lines = configuration(made, [IPv4Address("192.0.2.1")], "/run/x", "nobody").splitlines()
    assert f"interface={bridge_name('inside')}" in lines
    assert f"interface={bridge_name('lan')}" not in lines
    assert "dhcp-range=10.9.0.2,10.9.0.254,255.255.255.0,12h" in lines
    assert "server=192.0.2.1" in lines
    assert "user=nobody" in lines
    assert hosts(made) == "00:16:3e:00:00:05,10.9.0.5\n"
