"""What the Toolstack declares in XenStore, checked: networks and vifs (docs/devices.md)."""

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NamedTuple

from xoar.netback.errors import Malformed

NETWORK_NODES = ("mode", "vlan", "subnet", "forwards")
VIF_NODES = ("mac", "network", "address")

# more than the names that messages allow, fewer than would disturb a configuration file
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,4}")
_PREFIX = range(16, 30)
_MAX_VLAN = 4094
_MAX_DOMID = 0x7FEF  # DOMID_FIRST_RESERVED - 1
_MAX_HANDLE = 255
# the MAC that xen-netback gives the backend's end
_VIF_MAC = "fe:ff:ff:ff:ff:ff"


Place = tuple[int, int]
"""Which vif: the guest's domid and the handle."""


class Forward(NamedTuple):
    """A TCP port of the uplink that leads to a guest's."""

    outer_port: int
    address: IPv4Address
    port: int


class Network(NamedTuple):
    """A network; `subnet` is there if it is behind NAT, and only then."""

    name: str
    vlan: int = 0
    subnet: IPv4Network | None = None
    forwards: tuple[Forward, ...] = ()

    @property
    def gateway(self) -> IPv4Address | None:
        """NetBack's own address in the subnet: its first."""
        return None if self.subnet is None else self.subnet[1]

    def hosts(self, address: IPv4Address) -> bool:
        """Whether a guest can have that address."""
        if self.subnet is None:
            return True
        return self.subnet[1] < address < self.subnet[-1]


class Vif(NamedTuple):
    """A guest's network interface. `address` is the only one that the guest may use, None: any."""

    place: Place
    mac: str
    network: str
    address: IPv4Address | None = None

    @property
    def name(self) -> str:
        """The name of its interface here."""
        return vif_name(self.place)


def vif_name(place: Place) -> str:
    """What xen-netback calls a vif's interface (drivers/net/xen-netback/interface.c)."""
    return f"vif{place[0]}.{place[1]}"


def parse_network(name: str, untrusted_nodes: Mapping[str, str]) -> Network:
    """A network from the values below its node. Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed(f"{name!r} is no name of a network")
    mode = untrusted_nodes.get("mode", "")
    vlan = _number(untrusted_nodes.get("vlan", "0"), "vlan", 0, _MAX_VLAN)
    if mode == "bridge":
        return Network(name, vlan)
    if mode != "nat":
        raise Malformed(f"mode is {mode!r}; there are bridge and nat")
    if vlan:
        raise Malformed(
            f"mode nat with VLAN {vlan}: a nat network's uplink is the untagged one; leave vlan out"
        )
    network = Network(name, 0, _subnet(untrusted_nodes.get("subnet", "")))
    forwards = tuple(_forward(word, network) for word in untrusted_nodes.get("forwards", "").split())
    ports = [forward.outer_port for forward in forwards]
    if len(set(ports)) != len(ports):
        raise Malformed("forwards has an outer port twice")
    return network._replace(forwards=forwards)


def parse_vif(place: Place, untrusted_nodes: Mapping[str, str]) -> Vif:
    """A vif from the values below its backend node. Raises Malformed."""
    mac = untrusted_nodes.get("mac", "").lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac in ("00:00:00:00:00:00", _VIF_MAC):
        raise Malformed(f"mac is {mac!r}, which is no MAC address of an interface")
    network = untrusted_nodes.get("network", "")
    if not _NAME.fullmatch(network):
        raise Malformed(f"network is {network!r}, which is no name of a network")
    address = untrusted_nodes.get("address", "")
    return Vif(place, mac, network, _address(address, "address") if address else None)


def parse_place(untrusted_guest: str, untrusted_handle: str) -> Place | None:
    """A place from the names of the nodes, None if a name is not such a number."""
    if not _DECIMAL.fullmatch(untrusted_guest) or not _DECIMAL.fullmatch(untrusted_handle):
        return None
    guest, handle = int(untrusted_guest), int(untrusted_handle)
    return (guest, handle) if guest <= _MAX_DOMID and handle <= _MAX_HANDLE else None


def _number(untrusted_text: str, what: str, lowest: int, highest: int) -> int:
    value = int(untrusted_text) if _DECIMAL.fullmatch(untrusted_text) else -1
    if not lowest <= value <= highest:
        raise Malformed(f"{what} is {untrusted_text!r}, not a number from {lowest} to {highest}")
    return value


def _address(untrusted_text: str, what: str) -> IPv4Address:
    try:
        address = IPv4Address(untrusted_text)
    except AddressValueError:
        raise Malformed(f"{what} is {untrusted_text!r}, which is no IPv4 address") from None
    if address.is_multicast or address.is_loopback or address.is_reserved or address.packed[0] == 0:
        raise Malformed(f"{what} is {untrusted_text!r}, which no host can have")
    return address


def _subnet(untrusted_text: str) -> IPv4Network:
    base, _, length = untrusted_text.partition("/")
    prefix = int(length) if _DECIMAL.fullmatch(length) else -1
    number = int(_address(base, "subnet"))
    if prefix not in _PREFIX or number & (0xFFFFFFFF >> prefix):
        raise Malformed(f"subnet is {untrusted_text!r}, not a network of /16 to /29 such as 10.9.0.0/24")
    return IPv4Network((number, prefix))


def _forward(untrusted_word: str, network: Network) -> Forward:
    parts = untrusted_word.split(":")
    if len(parts) != 4 or parts[0] != "tcp":
        raise Malformed(f"forwards has {untrusted_word!r}, not tcp:<outer port>:<address>:<port>")
    outer, port = (_number(part, "a forwarded port", 1, 65535) for part in (parts[1], parts[3]))
    address = _address(parts[2], "a forward's address")
    if not network.hosts(address):
        raise Malformed(f"forwards leads to {address}, which is no guest's address in {network.subnet}")
    return Forward(outer, address, port)
