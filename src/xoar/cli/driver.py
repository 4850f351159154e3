"""`xoar driver`: the domains that own devices."""

from __future__ import annotations

from typing import Annotated

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Driver domains: each owns one device.")


@app.callback()
def drivers() -> None:
    """Driver domains: each owns one device. They are declared in xoar.toml and fixed while the host runs."""


@app.command("list")
def list_drivers(host: options.Host = None, json: options.Json = False) -> None:
    """List the driver domains with their devices.

    Examples:

    - `xoar driver list`
    - `xoar driver list --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.drivers()
    if json:
        output.print_json([devices.driver_facts(entry) for entry in entries])
        return
    rows = [
        (
            entry.name,
            entry.kind,
            str(entry.domid),
            devices.bdf(entry.device),
            entry.state,
            str(entry.restarts),
            output.age(entry.age_ms),
            entry.note or "-",
        )
        for entry in entries
    ]
    columns = ("name", "kind", "id", "device", "state", "restarts", "age", "note")
    output.print_table(columns, rows, right=("id", "restarts"))


@app.command()
def restart(
    name: options.DriverName,
    timeout: Annotated[float, typer.Option(min=1, max=86400, help="Seconds to wait until it serves.")] = 240,
    host: options.Host = None,
) -> None:
    """End a driver domain and build it anew; guests keep the devices that it serves.

    Examples:

    - `xoar driver restart net0`
    """
    from xoar.cli import names
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client, names.known(client.drivers, name):
        client.request("driver_restart", timeout + options.SLACK, name=name, timeout_ms=round(timeout * 1000))
    say(f"driver domain {name} serves again")
