"""`xoar driver`: the domains that own devices."""

from __future__ import annotations

from typing import Annotated

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Driver domains: each owns one device.")


@app.callback()
def drivers() -> None:
    """Driver domains: each owns one device. They are declared in xoar.toml, with or without a device.

    Which one has which device can be changed while the host runs; when it starts again, xoar.toml says so.
    """


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


@app.command("devices")
def list_devices(host: options.Host = None, json: options.Json = False) -> None:
    """List the host's PCI devices, and whose they are: as PCIBack found them when it was there last.

    Examples:

    - `xoar driver devices`
    - `xoar driver devices --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.devices()
    if json:
        output.print_json(
            [
                {
                    "device": devices.bdf(entry.bdf),
                    "class": f"{entry.class_code:06x}",
                    "id": f"{entry.vendor:04x}:{entry.device:04x}",
                    "driver": entry.driver or None,
                }
                for entry in entries
            ]
        )
        return
    rows = [
        (
            devices.bdf(entry.bdf),
            devices.class_name(entry.class_code),
            f"{entry.vendor:04x}:{entry.device:04x}",
            entry.driver or "-",
        )
        for entry in entries
    ]
    output.print_table(("device", "class", "id", "driver"), rows)


@app.command()
def assign(
    name: options.DriverName,
    device: options.Device,
    timeout: Annotated[float, typer.Option(min=1, max=86400, help="Seconds to wait until it serves.")] = 240,
    host: options.Host = None,
) -> None:
    """Give a driver domain that has none a device that is nobody's, and start it.

    Examples:

    - `xoar driver assign net1 0000:03:00.0`
    """
    from xoar.cli import names
    from xoar.host.client import Client
    from xoar.privilege.pci import bdf_number

    bdf = devices.value(device, "DEVICE", bdf_number)
    with Client.connect(options.host_name(host)) as client, names.known(client.drivers, name):
        milliseconds = round(timeout * 1000)
        client.request("driver_assign", timeout + options.SLACK, name=name, bdf=bdf, timeout_ms=milliseconds)
    say(f"driver domain {name} has {devices.bdf(bdf)}, and serves")


@app.command()
def withdraw(
    name: options.DriverName,
    timeout: Annotated[
        float, typer.Option(min=1, max=86400, help="Seconds to wait until it has ended.")
    ] = 60,
    host: options.Host = None,
) -> None:
    """End a driver domain and take its device back; guests lose what it serves. Another one may have it then.

    Examples:

    - `xoar driver withdraw net1`
    """
    from xoar.cli import names
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client, names.known(client.drivers, name):
        client.request(
            "driver_withdraw", timeout + options.SLACK, name=name, timeout_ms=round(timeout * 1000)
        )
    say(f"driver domain {name} has no device any more")
