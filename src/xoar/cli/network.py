"""`xoar network`: what guests' interfaces are connected to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Networks: what guests' interfaces are connected to.")


@app.callback()
def networks() -> None:
    """Networks: what guests' interfaces are connected to. Driver domains of kind netback serve them."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A new name.")],
    mode: Annotated[str, typer.Option(metavar="bridge|nat")] = "bridge",
    vlan: Annotated[int, typer.Option(min=0, max=4094, help="0: untagged.")] = 0,
    subnet: Annotated[str, typer.Option(metavar="SUBNET", help="For nat, as in 10.9.0.0/24.")] = "",
    forward: Annotated[
        list[str] | None,
        typer.Option(metavar="PORT:ADDRESS:PORT", help="For nat: a TCP port that leads to a guest."),
    ] = None,
    driver: options.NetBack = "",
    host: options.Host = None,
) -> None:
    """Make a network: a bridge to the one that the network card is in, or one of its own behind it (nat).

    Examples:

    - `xoar network create lan`
    - `xoar network create inner --mode nat --subnet 10.9.0.0/24 --forward 2222:10.9.0.10:22`
    """
    from xoar.host import volumes
    from xoar.host.client import Client
    from xoar.host.devices import NETBACK, Network, network_fault, network_record, parse_forward
    from xoar.host.tables import nearest
    from xoar.messages.records import NETWORK_MODE

    if mode not in NETWORK_MODE.words:
        text = f'"{mode}" is not one of {", ".join(NETWORK_MODE.words)}.{nearest(mode, NETWORK_MODE.words)}'
        raise typer.BadParameter(text, param_hint="--mode")
    forwards = tuple(devices.value(text, "--forward", parse_forward) for text in forward or ())
    network = Network(name, driver, mode, vlan, subnet, forwards)
    if fault := network_fault(network):
        raise typer.BadParameter(fault)
    with Client.connect(options.host_name(host)) as client:
        where = volumes.only_driver(client, driver, NETBACK)
        wanted: Any = network_record(network)
        client.request("network_create", network=wanted._replace(driver=where))
    say(f"network {name} is there")


@app.command("list")
def list_networks(host: options.Host = None, json: options.Json = False) -> None:
    """List the networks in the order of their creation.

    Examples:

    - `xoar network list`
    - `xoar network list --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.networks()
    if json:
        output.print_json(
            [
                {
                    "name": entry.name,
                    "driver": entry.driver,
                    "mode": entry.mode,
                    "vlan": entry.vlan,
                    "subnet": entry.subnet or None,
                    "forwards": [
                        {"port": item.outer_port, "to": f"{item.address}:{item.port}"}
                        for item in entry.forwards
                    ],
                    "state": entry.state,
                }
                for entry in entries
            ]
        )
        return
    rows = [
        (
            entry.name,
            entry.driver,
            entry.mode,
            str(entry.vlan or "-"),
            entry.subnet or "-",
            " ".join(f"{item.outer_port}:{item.address}:{item.port}" for item in entry.forwards) or "-",
            entry.state or "-",
        )
        for entry in entries
    ]
    columns = ("name", "driver", "mode", "vlan", "subnet", "forwards", "state")
    output.print_table(columns, rows, right=("vlan",))


@app.command()
def delete(name: options.NetworkName, host: options.Host = None) -> None:
    """Remove a network that no guest uses.

    Examples:

    - `xoar network delete inner`
    """
    from xoar.cli import names
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client, names.known(client.networks, name):
        client.request("network_delete", name=name)
    say(f"network {name} is gone")
