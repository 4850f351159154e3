"""From what is declared to what the domain's network looks like: interfaces, bridges and their ports.

A network is a bridge without address of its own. The bridge of a `bridge` network has the NIC as a port, or
the NIC's VLAN; that of a `nat` network has the subnet's first address, and its guests leave through the
*uplink*: the NIC itself, or its bridge if there is an untagged `bridge` network, which then carries the
uplink's address.

What contradicts something else is left out and named in `network_faults` and `vif_faults`; the rest goes on.
"""

import re
import zlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from xoar.netback.declared import Network, Place, Vif

_PCI_FUNCTION = re.compile(r"/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](/|$)")
NO_NIC = "there is no network card: it has no driver here, or was pulled"


class Bridge(NamedTuple):
    """The bridge of a network; `port` is the interface that leads outside ("": none)."""

    name: str
    network: Network
    port: str
    mac: str

    @property
    def address(self) -> str:
        """Its own address with prefix length, "" if it has none."""
        subnet = self.network.subnet
        return "" if subnet is None else f"{subnet[1]}/{subnet.prefixlen}"


class Port(NamedTuple):
    """A vif and the bridge that it belongs to; `taken` are addresses there that are not this vif's."""

    vif: Vif
    bridge: Bridge
    taken: tuple[IPv4Address, ...]


class Layout(NamedTuple):
    """What should be. `uplink` is an interface's name, "" if no network needs one or there is no NIC."""

    nic: str
    vlans: dict[str, int]
    bridges: dict[str, Bridge]
    ports: dict[str, Port]
    uplink: str
    network_faults: dict[str, str]
    vif_faults: dict[Place, str]

    @property
    def nats(self) -> list[Bridge]:
        """The bridges of networks behind NAT."""
        return [bridge for bridge in self.bridges.values() if bridge.network.subnet is not None]


class Nic(NamedTuple):
    """The physical interface."""

    name: str
    mac: str


def is_physical(device: str) -> bool:
    """Whether a device, a path in sysfs, is a PCI function or hangs on one, as virtio's do."""
    return _PCI_FUNCTION.search(device) is not None


def bridge_name(network: str) -> str:
    """An interface's name has at most 15 characters, a network's 64."""
    return f"br-{zlib.crc32(network.encode()):08x}"


def vlan_name(vlan: int) -> str:
    """The name of the NIC's interface for a VLAN."""
    return f"vlan{vlan}"


def plan(
    networks: Mapping[str, Network], vifs: Mapping[Place, Vif], nic: Nic | None, leased: IPv4Network | None
) -> Layout:
    """The layout for these networks and vifs; `leased` is the subnet that the uplink has its address in.

    Of two vifs that contradict each other the one that comes first is right.
    """
    layout = Layout(nic.name if nic else "", {}, {}, {}, "", {}, {})
    for _, network in sorted(networks.items()):
        fault = _conflict(network, layout, leased)
        if fault:
            layout.network_faults[network.name] = fault
            continue
        name = bridge_name(network.name)
        outside = nic is not None and network.subnet is None
        port = (vlan_name(network.vlan) if network.vlan else layout.nic) if outside else ""
        mac = nic.mac if nic and outside else _mac(network.name)
        layout.bridges[name] = Bridge(name, network, port, mac)
        if outside and network.vlan:
            layout.vlans[port] = network.vlan
        if nic is None:
            layout.network_faults[network.name] = NO_NIC
    for key, vif in vifs.items():
        fault = _unfit(vif, layout)
        if fault:
            layout.vif_faults[key] = fault
        else:
            layout.ports[vif.name] = Port(vif, layout.bridges[bridge_name(vif.network)], ())
    for name, plugged in layout.ports.items():
        layout.ports[name] = plugged._replace(taken=_taken(plugged, layout))
    if nic is not None and any(network.subnet is not None for network in networks.values()):
        return layout._replace(uplink=_uplink(layout))
    return layout


def _conflict(network: Network, layout: Layout, leased: IPv4Network | None) -> str:
    """Why a network can't be there besides those that are, "" if it can."""
    if bridge_name(network.name) in layout.bridges:
        return (
            f"its bridge would be {bridge_name(network.name)}, which another network has; choose another name"
        )
    if network.subnet is not None and leased is not None and network.subnet.overlaps(leased):
        return f"its subnet {network.subnet} overlaps {leased}, where the network card has its address"
    for bridge in layout.bridges.values():
        other = bridge.network
        if network.subnet is None and other.subnet is None and network.vlan == other.vlan:
            where = f"VLAN {network.vlan}" if network.vlan else "the untagged network"
            return f"{where} of this network card is network {other.name}'s"
        if network.subnet is None or other.subnet is None:
            continue
        if network.subnet.overlaps(other.subnet):
            return f"its subnet {network.subnet} overlaps network {other.name}'s, {other.subnet}"
        clash = {forward.outer_port for forward in network.forwards} & {
            forward.outer_port for forward in other.forwards
        }
        if clash:
            return f"it forwards port {min(clash)}, which network {other.name} does, too"
    return ""


def _unfit(vif: Vif, layout: Layout) -> str:
    """Why a vif can't be plugged, "" if it can."""
    bridge = layout.bridges.get(bridge_name(vif.network))
    if bridge is None or bridge.network.name != vif.network:
        why = layout.network_faults.get(vif.network)
        return f"network {vif.network}: {why}" if why else f"there is no network {vif.network}"
    if vif.mac == bridge.mac:
        return f"the MAC address {vif.mac} is NetBack's own"
    if vif.address is not None and not bridge.network.hosts(vif.address):
        return f"the address {vif.address} is no guest's in network {vif.network}, {bridge.network.subnet}"
    for other in layout.ports.values():
        if other.bridge is not bridge:
            continue
        if other.vif.mac == vif.mac:
            return f"{other.vif.name} has the MAC address {vif.mac}, too"
        if vif.address is not None and other.vif.address == vif.address:
            return f"{other.vif.name} has the address {vif.address}, too"
    return ""


def _taken(port: Port, layout: Layout) -> tuple[IPv4Address, ...]:
    gateway = port.bridge.network.gateway
    others = [
        other.vif.address
        for other in layout.ports.values()
        if other.bridge is port.bridge and other.vif is not port.vif and other.vif.address is not None
    ]
    return tuple(sorted([*others, gateway] if gateway is not None else others))


def _uplink(layout: Layout) -> str:
    for bridge in layout.bridges.values():
        if bridge.port == layout.nic:
            return bridge.name
    return layout.nic


def _mac(network: str) -> str:
    """A bridge's MAC where no NIC lends its own: locally administered, the same after a restart."""
    digits = f"{zlib.crc32(network.encode()):08x}"
    return ":".join(["02", "78", *(digits[i : i + 2] for i in range(0, 8, 2))])
