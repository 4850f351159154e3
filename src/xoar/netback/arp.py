"""The IPv4 addresses that guests use, from their ARP packets (RFC 826).

One socket hears the ARP that bridges pass to this domain: what guests broadcast, after the rules have taken
out what is not theirs. It is read now and then, and never much at once: a guest that floods it costs little.
"""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

_ETH_P_ARP = 0x0806
_ETHERNET_IPV4 = bytes.fromhex("0001 0800 06 04")
_LENGTH = 28
_AT_ONCE = 64


class Sighting:
    """That an interface (a bridge) has heard of a MAC address with an IPv4 address."""

    __slots__ = ("address", "interface", "mac")

    def __init__(self, interface: str, mac: str, address: str) -> None:
        self.interface = interface
        self.mac = mac
        self.address = address


def parse(untrusted_packet: bytes) -> tuple[str, str] | None:
    """(MAC, address) of the sender, None if the packet names none."""
    if len(untrusted_packet) < _LENGTH or untrusted_packet[:6] != _ETHERNET_IPV4:
        return None
    mac, number = struct.unpack_from(">6sI", untrusted_packet, 8)
    address = IPv4Address(number)
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved:
        return None
    return mac.hex(":"), str(address)


def received(source: socket.socket, length: int) -> Iterator[tuple[bytes, str, str]]:
    """Packets that wait in a packet socket, at most so many, `length` bytes of each: (packet, interface,
    the frame's sender); the oldest first."""
    for _ in range(_AT_ONCE):
        try:
            packet, where = source.recvfrom(length)
        except OSError:  # nothing more, or the interface went down
            return
        yield packet, where[0], where[4].hex(":")


class Listener:
    """Hears ARP on all interfaces of this network namespace. Raises OSError if there is no such socket."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ARP))
        self._socket.setblocking(False)

    def take(self) -> list[Sighting]:
        """What was heard since the last call, at most so much; the oldest first."""
        found = []
        for packet, interface, _ in received(self._socket, _LENGTH):
            sender = parse(packet)
            if sender is not None:
                found.append(Sighting(interface, *sender))
        return found
