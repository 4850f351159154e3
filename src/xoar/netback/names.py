"""DHCP and DNS for guests behind NAT: the configuration of dnsmasq, one process for all networks.

Two files: a change of the first restarts dnsmasq; the second, vifs with a given address, is read at SIGHUP.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address

from xoar.netback.layout import Layout

_LEASE_TIME = "12h"


def configuration(layout: Layout, servers: Sequence[IPv4Address], folder: str, user: str) -> str:
    """dnsmasq.conf. `servers`: where it asks for names; `folder`: its files; `user`: whom it runs as."""
    lines = [
        f"user={user}",
        "group=",
        "pid-file=",
        "log-facility=-",
        "quiet-dhcp",
        "no-hosts",
        "no-resolv",
        "bind-dynamic",
        "except-interface=lo",
        # the only DHCP server there (the ruleset sees to it), so it may speak for all, and at once
        "dhcp-authoritative",
        "no-ping",
        f"dhcp-hostsfile={folder}/hosts",
        f"dhcp-leasefile={folder}/leases",
        *(f"server={server}" for server in servers),
    ]
    for bridge in sorted(layout.nats):
        subnet = bridge.network.subnet
        assert subnet is not None
        lines.append(f"interface={bridge.name}")
        lines.append(f"dhcp-range={subnet[2]},{subnet[-2]},{subnet.netmask},{_LEASE_TIME}")
    return "\n".join(lines) + "\n"


def hosts(layout: Layout) -> str:
    """dhcp-hostsfile: the MAC and IP addresses of vifs with a given address."""
    lines = [
        f"{port.vif.mac},{port.vif.address}\n"
        for _, port in sorted(layout.ports.items())
        if port.vif.address is not None and port.bridge.network.subnet is not None
    ]
    return "".join(lines)
