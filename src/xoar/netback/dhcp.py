"""The IPv4 addresses that guests ask DHCP servers for (RFC 2131): the first thing that they say.

Heard like ARP: what guests broadcast, on the bridges, after the rules have taken out what is not theirs. The
kernel passes on nothing but UDP to port 67, so the guests' other packets cost nothing here.
"""

import socket
import struct
from array import array
from ipaddress import IPv4Address

from xoar.netback.arp import Sighting, received

_ETH_P_IP = 0x0800
_LENGTH = 600  # bytes of a packet that are looked at; a client's message is smaller
_SERVER = 67  # its UDP port
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# Classic BPF (linux/filter.h), (code, if true, if false, value); the packet begins with the IP header.
_FILTER = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 6, 17),  # is UDP
    (0x28, 0, 0, 6),  # the fragment's offset
    (0x45, 4, 0, 0x1FFF),  # is 0
    (0xB1, 0, 0, 0),  # behind the IP header:
    (0x48, 0, 0, 2),  # the port
    (0x15, 0, 1, _SERVER),  # is the DHCP server's
    (0x06, 0, 0, _LENGTH),
    (0x06, 0, 0, 0),
)
_BOOTP = struct.Struct(">BBBB4xHH4s4s4s4s6s10x64s128s4s")
_REQUEST, _ETHERNET, _COOKIE = 1, 1, bytes.fromhex("63825363")
_PAD, _REQUESTED, _KIND, _END, _DHCPREQUEST = 0, 50, 53, 255, 3


def parse(untrusted_packet: bytes) -> tuple[str, str] | None:
    """(MAC, address) of the client of a DHCPREQUEST, None if the IP packet is none or names no address."""
    header = (untrusted_packet[0] & 0xF) * 4 if untrusted_packet else 0
    message = untrusted_packet[header + 8 :]
    if len(message) < _BOOTP.size or untrusted_packet[9] != socket.IPPROTO_UDP:
        return None
    if struct.unpack_from(">H", untrusted_packet, header + 2)[0] != _SERVER:
        return None
    operation, hardware, length, _, _, _, current, _, _, _, mac, _, _, cookie = _BOOTP.unpack_from(message)
    if (operation, hardware, length, cookie) != (_REQUEST, _ETHERNET, 6, _COOKIE):
        return None
    options = _options(message[_BOOTP.size :])
    if options.get(_KIND) != bytes([_DHCPREQUEST]):
        return None
    wanted = options.get(_REQUESTED, current)
    address = IPv4Address(wanted) if len(wanted) == 4 else IPv4Address(0)
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved:
        return None
    return mac.hex(":"), str(address)


def _options(data: bytes) -> dict[int, bytes]:
    """Options by number; what comes behind a broken one is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        value = data[at + 2 : at + 2 + data[at + 1]] if at + 1 < len(data) else b""
        if at + 1 >= len(data) or len(value) < data[at + 1]:
            break
        found[data[at]] = value
        at += 2 + len(value)
    return found


class Listener:
    """Hears DHCP clients on all interfaces of this network namespace. Raises OSError if it can't."""

    def __init__(self) -> None:
        program = array("B", b"".join(struct.pack("=HBBI", *step) for step in _FILTER))
        described = struct.pack("@HP", len(_FILTER), program.buffer_info()[0])
        # what comes before the filter is there, parse() sorts out
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
        self._socket.setblocking(False)

    def take(self) -> list[Sighting]:
        """What was heard since the last call, at most so much; the oldest first."""
        found = []
        for packet, interface, sender in received(self._socket, _LENGTH):
            client = parse(packet)
            # the rules have checked the frame's own sender, not what is in it
            if client is not None and sender == client[0]:
                found.append(Sighting(interface, *client))
        return found
