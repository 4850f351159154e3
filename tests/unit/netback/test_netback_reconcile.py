import errno
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_netback_layout import INSIDE, LAN, NIC, layout, vif

from xoar.netback.declared import Network
from xoar.netback.layout import Layout, bridge_name
from xoar.netback.reconcile import Interface, Outcome, UplinkAddress, converge

LEASE = UplinkAddress("192.0.2.9/24", "192.0.2.1")
BR_LAN, BR_INSIDE = bridge_name("lan"), bridge_name("inside")


class FakeKernel:
    """Interfaces in a dictionary. `log` has what was changed; calls on names in `broken` fail."""

    def __init__(self, *names: str) -> None:
        self._numbers = itertools.count(1)
        self._interfaces: dict[int, Interface] = {}
        self._addresses: dict[int, set[str]] = {}
        self.routes: list[tuple[str, str]] = []
        self.log: list[str] = []
        self.broken: set[str] = set()
        for name in names:
            self._add(name, "", "52:54:00:00:00:01" if name == NIC.name else "fe:ff:ff:ff:ff:ff")

    def shown(self) -> dict[str, tuple[str, bool, frozenset[str]]]:
        """Each interface's bridge, whether it is up, and its addresses."""
        found = {}
        for each in self._interfaces.values():
            master = self._interfaces[each.master].name if each.master else ""
            found[each.name] = (master, each.up, frozenset(self._addresses.get(each.number, set())))
        return found

    def vanish(self, name: str) -> None:
        number = self.interfaces()[name].number
        del self._interfaces[number]
        for each in list(self._interfaces.values()):
            if each.master == number:
                self._interfaces[each.number] = each._replace(master=0)

    def interfaces(self) -> dict[str, Interface]:
        return {each.name: each for each in self._interfaces.values()}

    def addresses(self) -> dict[int, set[str]]:
        return {number: set(each) for number, each in self._addresses.items()}

    def add_bridge(self, name: str, mac: str) -> None:
        self._fail(name)
        self._add(name, "bridge", mac)

    def add_vlan(self, name: str, lower: int, vlan: int) -> None:
        self._fail(name)
        assert name == f"vlan{vlan}" and self._interfaces[lower].name == NIC.name
        self._add(name, "vlan", self._interfaces[lower].mac)

    def delete(self, number: int) -> None:
        name = self._get(number).name
        self.log.append(f"delete {name}")
        self.vanish(name)

    def set_mac(self, number: int, mac: str) -> None:
        self._set(self._get(number)._replace(mac=mac))

    def set_master(self, number: int, master: int) -> None:
        self._set(self._get(number)._replace(master=master))

    def set_up(self, number: int) -> None:
        self._set(self._get(number)._replace(up=True))

    def add_address(self, number: int, address: str) -> None:
        self.log.append(f"{self._get(number).name} has {address}")
        self._addresses.setdefault(number, set()).add(address)

    def delete_address(self, number: int, address: str) -> None:
        self.log.append(f"{self._get(number).name} has {address} no more")
        self._addresses[number].remove(address)

    def default_route(self, number: int, gateway: str) -> None:
        self.routes.append((self._get(number).name, gateway))

    def _add(self, name: str, kind: str, mac: str) -> None:
        number = next(self._numbers)
        self._interfaces[number] = Interface(number, name, kind, mac, 0, False)
        self.log.append(f"add {name}")

    def _set(self, interface: Interface) -> None:
        self.log.append(f"set {interface.name}")
        self._interfaces[interface.number] = interface

    def _get(self, number: int) -> Interface:
        if number not in self._interfaces:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self._fail(self._interfaces[number].name)
        return self._interfaces[number]

    def _fail(self, name: str) -> None:
        if name in self.broken:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def run(kernel: FakeKernel, made: Layout, uplink: UplinkAddress | None = None) -> Outcome:
    return converge(kernel, made, lambda: None, uplink)


def test_interfaces_are_made_plugged_and_up():
    kernel = FakeKernel("eth0", "vif5.0", "vif6.0")
    made = layout(LAN, INSIDE, Network("tagged", 7), vif(5, "lan"), vif(6, "inside"))
    outcome = run(kernel, made, LEASE)
    assert kernel.shown() == {
        "eth0": (BR_LAN, True, frozenset()),
        "vlan7": (bridge_name("tagged"), True, frozenset()),
        "vif5.0": (BR_LAN, True, frozenset()),
        "vif6.0": (BR_INSIDE, True, frozenset()),
        BR_LAN: ("", True, frozenset({"192.0.2.9/24"})),
        BR_INSIDE: ("", True, frozenset({"10.9.0.1/24"})),
        bridge_name("tagged"): ("", True, frozenset()),
    }
    assert kernel.routes == [(BR_LAN, "192.0.2.1")]
    assert {"vif5.0", "vif6.0"} <= outcome.plugged
    assert not outcome.network_faults and not outcome.vif_faults


def test_the_rules_are_there_before_a_vif_is_plugged():
    kernel = FakeKernel("eth0", "vif5.0")

    def load() -> None:
        assert kernel.interfaces()["vif5.0"].master == 0
        raise RuntimeError

    with pytest.raises(RuntimeError):
        converge(kernel, layout(LAN, vif(5, "lan")), load, None)
    assert kernel.interfaces()["vif5.0"].master == 0


networks = st.sets(st.sampled_from([LAN, INSIDE, Network("tagged", 7), Network("more", 8)]))
vifs = st.sets(st.sampled_from([vif(5, "lan"), vif(6, "inside"), vif(7, "tagged"), vif(5, "inside")]))
states = st.tuples(networks, vifs, st.booleans())


@given(st.lists(states, min_size=1, max_size=4))
def test_it_comes_to_the_same_whatever_was_before_and_then_changes_nothing(history):
    kernel = FakeKernel("eth0", "vif5.0", "vif6.0", "vif7.0", "other")
    for declared, plugged, leased in history:
        made = layout(*declared, *plugged)
        run(kernel, made, LEASE if leased else UplinkAddress("", ""))
    fresh = FakeKernel("eth0", "vif5.0", "vif6.0", "vif7.0", "other")
    run(fresh, made, LEASE if leased else UplinkAddress("", ""))
    ours, theirs = kernel.shown(), fresh.shown()
    for shown in (ours, theirs):  # an interface without a network is left as it is, but in no bridge
        shown.update(
            {name: (shown[name][0], True, shown[name][2]) for name in shown if name.startswith("vif")}
        )
    assert ours == theirs
    kernel.log.clear()
    run(kernel, made, LEASE if leased else UplinkAddress("", ""))
    assert kernel.log == []


def test_what_is_not_ours_is_left_alone():
    kernel = FakeKernel("eth0", "eth1", "lo", "vif5.0")
    kernel.add_bridge("docker0", "02:00:00:00:00:01")
    before = {name: each for name, each in kernel.shown().items() if name != "eth0"}
    run(kernel, layout())
    assert {name: each for name, each in kernel.shown().items() if name != "eth0"} == before


def test_the_uplink_keeps_its_address_until_there_is_a_lease():
    kernel = FakeKernel("eth0")
    run(kernel, layout(INSIDE), LEASE)
    run(kernel, layout(INSIDE), None)
    assert kernel.shown()["eth0"][2] == {"192.0.2.9/24"}
    run(kernel, layout(INSIDE), UplinkAddress("", ""))
    assert kernel.shown()["eth0"][2] == frozenset()


def test_a_vif_that_vanishes_meanwhile_is_a_fault_of_that_vif_alone():
    kernel = FakeKernel("eth0", "vif5.0", "vif6.0")
    kernel.broken = {"vif5.0"}
    outcome = run(kernel, layout(LAN, vif(5, "lan"), vif(6, "lan")))
    assert list(outcome.vif_faults) == [(5, 0)]
    assert "vif6.0" in outcome.plugged and "vif5.0" not in outcome.plugged
    assert not outcome.network_faults


def test_a_bridge_that_cannot_be_made_is_a_fault_of_its_network_and_vifs_alone():
    kernel = FakeKernel("eth0", "vif5.0", "vif6.0")
    kernel.broken = {BR_INSIDE}
    outcome = run(kernel, layout(LAN, INSIDE, vif(5, "lan"), vif(6, "inside")))
    assert list(outcome.network_faults) == ["inside"]
    assert list(outcome.vif_faults) == [(6, 0)]
    assert "vif5.0" in outcome.plugged


def test_a_vlan_that_cannot_be_made_is_a_fault_of_its_network():
    kernel = FakeKernel("eth0")
    kernel.broken = {"vlan7"}
    outcome = run(kernel, layout(LAN, Network("tagged", 7)))
    assert list(outcome.network_faults) == ["tagged"]


def test_a_bridge_takes_a_new_cards_mac():
    kernel = FakeKernel("eth0")
    run(kernel, layout(LAN, nic=None))
    assert kernel.interfaces()[BR_LAN].mac != NIC.mac
    run(kernel, layout(LAN))
    assert kernel.interfaces()[BR_LAN].mac == NIC.mac
