"""Finds the way to a guest's SSH server in the emulated host: a port of this machine that leads there.

On a bridged network QEMU's user network forwards to the guest's address; on a nat network to NetBack's, which
forwards on, if the network has a forwarded port for it.
"""

from __future__ import annotations

import time
from typing import Any

from xoar.host import ssh_socket
from xoar.host.client import Client, TimedOut
from xoar.host.errors import HostError

SSH = 22
_LOOK = 2.0  # seconds between two attempts: each costs the guest that boots some rollbacks of shards
_OUTER = "-"  # the first address that QEMU's DHCP gives: the network card's own


def ssh_port(client: Client, guest: str, timeout: float) -> int:
    """A port on 127.0.0.1 where a guest's SSH server answers. Waits for it up to `timeout` seconds.

    Raises HostError if there is no way, TimedOut.
    """
    deadline = time.monotonic() + timeout
    while True:
        target = _target(client, guest)
        if target is not None:
            port = int(client.keeper("forward", *target))
            if (connection := ssh_socket.connected(port)) is not None:
                connection.close()
                return port
        if time.monotonic() > deadline:
            what = "does not answer SSH" if target else "has no address"
            raise TimedOut(
                f"guest {guest} {what} after {timeout:.0f} s",
                hint=f"See: xoar logs {guest}, xoar guest show {guest}",
            )
        time.sleep(_LOOK)


def _target(client: Client, guest: str) -> tuple[str, str, str] | None:
    """(network card, address, port) to forward to; None as long as the guest has no address."""
    shown = client.request("guest_show", name=guest).fields
    if not shown.domid:
        raise HostError(f"guest {guest} does not run ({shown.state})", hint=f"See: xoar logs {guest}")
    if not shown.nics:
        raise HostError(f"guest {guest} has no network interface", hint=f"See: xoar console {guest}")
    networks = {network.name: network for network in client.networks()}
    closed = None
    for nic in shown.nics:
        network, address = networks.get(nic.network), nic.seen_address or nic.address
        if network is None or not address:
            continue
        if network.mode == "bridge" and not network.vlan:
            return network.driver, address, str(SSH)
        if (port := _forwarded(network, address)) and not network.vlan:
            return network.driver, _OUTER, str(port)
        closed = closed or (network, address)
    if closed is None:
        return None
    network, address = closed
    if network.vlan:
        raise HostError(f"guest {guest} is on network {network.name}, whose VLAN this machine is not in")
    raise HostError(
        f"guest {guest} ({address}) is on network {network.name}, which has no forwarded port for it",
        hint=f'Add one in xoar.toml: forwards = [{{ port = 2222, to = "{address}:{SSH}" }}]',
    )


def _forwarded(network: Any, address: str) -> int:
    for forward in network.forwards:
        if (forward.address, forward.port) == (address, SSH):
            return int(forward.outer_port)
    return 0
