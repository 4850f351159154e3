"""`xoar nic`: network interfaces of running guests."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Plug network interfaces into running guests, and unplug them.")


@app.callback()
def nics() -> None:
    """Plug network interfaces into running guests, and unplug them."""


@app.command()
def attach(
    guest: options.GuestName,
    network: options.NetworkName,
    mac: Annotated[str, typer.Option(metavar="MAC", help="Default: one of its own.")] = "",
    address: Annotated[str, typer.Option(metavar="IPV4", help="The only one that the guest may use.")] = "",
    rate: Annotated[str, typer.Option(metavar="SIZE", help="A second, from the guest, as in 10MiB.")] = "",
    timeout: options.PlugTimeout = 60,
    host: options.Host = None,
) -> None:
    """Plug a network interface into a running guest.

    Examples:

    - `xoar nic attach web lan`
    - `xoar nic attach web lan --rate 10MiB`
    """
    from xoar.cli import names
    from xoar.host import provision
    from xoar.host.client import Client
    from xoar.host.devices import Nic
    from xoar.host.values import generated_mac, parse_address, parse_mac, parse_rate

    wanted = Nic(
        network,
        devices.value(mac, "--mac", parse_mac) if mac else None,
        devices.value(address, "--address", parse_address) if address else "",
        rate_kib=devices.value(rate, "--rate", parse_rate) if rate else 0,
    )
    with Client.connect(options.host_name(host)) as client, names.known_guest(client, guest):
        shown = client.request("guest_show", name=guest).fields
        taken = {nic.mac for nic in shown.nics}
        own = (generated_mac(client.host.name, guest, index) for index in range(256))
        wanted = replace(wanted, mac=wanted.mac or next(made for made in own if made not in taken))
        with names.known(client.networks, network):
            client.request(
                "nic_attach", timeout + options.SLACK, guest=guest, nic=provision.nic_record(wanted),
                timeout_ms=round(timeout * 1000),
            )  # fmt: skip
    say(f"guest {guest} has an interface on network {network}, {(wanted.mac or b'').hex(':')}")


@app.command()
def detach(
    guest: options.GuestName,
    handle: Annotated[int, typer.Argument(min=0, max=255, help="Its number in xoar guest show.")],
    timeout: options.PlugTimeout = 60,
    host: options.Host = None,
) -> None:
    """Unplug a network interface from a running guest.

    Examples:

    - `xoar nic detach web 1`
    """
    from xoar.cli import names
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client, names.known_guest(client, guest):
        client.request(
            "nic_detach", timeout + options.SLACK, guest=guest, handle=handle,
            timeout_ms=round(timeout * 1000),
        )  # fmt: skip
    say(f"guest {guest} has no interface {handle} any more")
