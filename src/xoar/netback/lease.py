"""The uplink's address: what busybox's DHCP client (udhcpc) tells of it.

udhcpc runs a script at each event, with what it knows in the environment (busybox, networking/udhcp/dhcpc.c);
ours only prints that on the client's output, as `lease|<event>|<address>/<prefix>|<routers>|<name servers>`.
"""

from ipaddress import IPv4Address, IPv4Interface
from typing import NamedTuple

SCRIPT = '#!/bin/sh\necho "lease|$1|$ip/$mask|$router|$dns"\n'


class Lease(NamedTuple):
    """What the DHCP server has given."""

    address: IPv4Interface
    gateway: IPv4Address | None
    servers: tuple[IPv4Address, ...]


def arguments(interface: str, script: str) -> list[str]:
    """udhcpc's command line: in the foreground, asking again after 5 s if nobody has answered three times."""
    return ["busybox", "udhcpc", "-f", "-i", interface, "-s", script, "-t", "3", "-T", "2", "-A", "5"]


def parse(untrusted_line: str, lease: Lease | None) -> Lease | None:
    """The lease after this line of output, `lease` being the one before; nonsense changes nothing."""
    fields = untrusted_line.split("|")
    if len(fields) != 5 or fields[0] != "lease":
        return lease
    if fields[1] == "deconfig":
        return None
    if fields[1] not in ("bound", "renew"):
        return lease
    try:
        address = IPv4Interface(fields[2])
        routers, servers = (tuple(IPv4Address(word) for word in field.split()) for field in fields[3:])
    except ValueError:
        return lease
    host = address.ip
    if host.is_multicast or host.is_loopback or host.is_unspecified or not address.network.prefixlen:
        return lease
    return Lease(address, routers[0] if routers else None, servers)
