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


def parse(untrusted_line: str) -> Lease | None:
    """The lease that a line of output tells of, None if it tells of none or makes no sense."""
    fields = untrusted_line.split("|")
    if len(fields) != 5 or fields[0] != "lease" or fields[1] not in ("bound", "renew"):
        return None
    try:
        address = IPv4Interface(fields[2])
        routers, servers = (tuple(IPv4Address(word) for word in field.split()) for field in fields[3:])
    except ValueError:
        return None
    host = address.ip
    if host.is_multicast or host.is_loopback or host.is_unspecified or not address.network.prefixlen:
        return None
    return Lease(address, routers[0] if routers else None, servers)


def is_lost(untrusted_line: str) -> bool:
    """Whether a line tells that there is no lease: any more, or, at a client's start, yet."""
    return untrusted_line.startswith("lease|deconfig|")
