"""A layout's nftables rules, as one text that replaces all earlier rules at once (nft -f).

What a guest may send, whatever its vif is plugged into:
- untagged frames of ARP, IPv4 and IPv6 from its own MAC address; ARP in the name of that address;
- never answers of a DHCP server, router advertisements or redirects.

If its address is given: IPv4 and ARP from that address alone (0.0.0.0 for DHCP and for ARP's probes), and no
IPv6, where nobody has given it an address. If not: any but addresses given to others and NetBack's own;
behind NAT, IPv4 of the subnet alone. Neighbour advertisements of IPv6 are not looked into.

The bridge family's `meta ibrname` and `reject` are not used: kernels differ in having them.
"""

from ipaddress import IPv4Address

from xoar.netback.layout import Bridge, Layout, Port

_ANY = "0.0.0.0"


def render(layout: Layout) -> str:
    """The text for nft."""
    return "\n".join([*_table("bridge", _bridge(layout)), *_table("ip", _ip(layout)), ""])


def _table(family: str, chains: dict[str, list[str]]) -> list[str]:
    """Replaces a table, whether there is one or not; a chain's first line may be its hook."""
    lines = [f"table {family} xoar", f"delete table {family} xoar", f"table {family} xoar {{"]
    for name, rules in chains.items():
        lines += [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    return [*lines, "}"]


def _bridge(layout: Layout) -> dict[str, list[str]]:
    ports = [port for _, port in sorted(layout.ports.items())]
    chains = {port.vif.name: _guest(port) for port in ports}
    rules = ["type filter hook prerouting priority 0; policy accept;"]
    if any(bridge.port == layout.nic for bridge in layout.bridges.values() if bridge.port):
        # the untagged network's bridge would hand on the tagged frames of VLANs that nobody declared
        rules.append(f'iifname "{layout.nic}" ether type {{ 8021q, 8021ad }} drop')
    rules += [
        'iifname != "vif*" accept',
        "ether type != { arp, ip, ip6 } drop",
        "udp sport { 67, 547 } drop",
        "icmp type redirect drop",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
    ]
    if ports:
        jumps = ", ".join(f'"{port.vif.name}" : jump {port.vif.name}' for port in ports)
        rules.append(f"iifname vmap {{ {jumps} }}")
    return {**chains, "guests": [*rules, "drop"]}


def _guest(port: Port) -> list[str]:
    """What this guest alone may send; what comes to the end is dropped."""
    vif, subnet = port.vif, port.bridge.network.subnet
    rules = [f"ether saddr != {vif.mac} drop", f"arp saddr ether != {vif.mac} drop"]
    if vif.address is not None:
        rules += [f"arp saddr ip != {{ {_ANY}, {vif.address} }} drop", "ether type arp accept"]
        rules += [f"ip saddr {vif.address} accept", f"ip saddr {_ANY} udp dport 67 accept"]
        return [*rules, "drop"]
    if port.taken:
        rules += [f"{field} {_set(port.taken)} drop" for field in ("arp saddr ip", "ip saddr")]
    if subnet is None:
        return [*rules, "accept"]
    rules += [f"arp saddr ip {_ANY} accept", f"arp saddr ip {subnet} accept"]
    rules += [f"ip saddr {subnet} accept", f"ip saddr {_ANY} udp dport 67 accept"]
    return [*rules, "drop"]


def _ip(layout: Layout) -> dict[str, list[str]]:
    nats = sorted(layout.nats)
    uplink = f'"{layout.uplink}"'
    arriving = ["type filter hook input priority 0; policy drop;", 'iifname "lo" accept']
    passing = ["type filter hook forward priority 0; policy drop;"]
    if not nats:  # and no connection is tracked
        return {"arriving": arriving, "passing": passing}
    arriving.append("ct state established,related accept")
    passing.append("ct state established,related accept")
    inwards = ["type nat hook prerouting priority -100;"]
    outwards = ["type nat hook postrouting priority 100;"]
    for bridge in nats:
        arriving += _services(bridge)
    if layout.uplink:
        # the answer to the DHCP client's renewal may come from another address than it asked
        arriving.append(f"iifname {uplink} udp sport 67 udp dport 68 accept")
        passing.append(f"iifname {uplink} ct status dnat accept")
        for bridge in nats:
            subnet = bridge.network.subnet
            passing.append(f'iifname "{bridge.name}" ip saddr {subnet} oifname {uplink} accept')
            outwards.append(f"oifname {uplink} ip saddr {subnet} masquerade")
            inwards += [
                f"iifname {uplink} tcp dport {forward.outer_port} dnat to {forward.address}:{forward.port}"
                for forward in bridge.network.forwards
            ]
    return {"arriving": arriving, "passing": passing, "inwards": inwards, "outwards": outwards}


def _services(bridge: Bridge) -> list[str]:
    """What guests behind NAT may ask of NetBack itself: an address, names, and whether it is there."""
    inside = f'iifname "{bridge.name}"'
    here = f"{inside} ip daddr {bridge.network.gateway}"
    return [
        f"{inside} udp dport 67 accept",
        f"{here} udp dport 53 accept",
        f"{here} tcp dport 53 accept",
        f"{here} icmp type echo-request accept",
    ]


def _set(addresses: tuple[IPv4Address, ...]) -> str:
    return "{ " + ", ".join(str(address) for address in addresses) + " }"
