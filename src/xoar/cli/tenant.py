"""`xoar tenant`: who shares the host, each with a Toolstack of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Tenants: each has a Toolstack of its own.")


@app.callback()
def tenants() -> None:
    """Tenants: each has a Toolstack of its own, and a quota. They are declared in xoar.toml.

    Every other command speaks for a tenant if the host is given as TENANT@HOST: `xoar guest list --host
    acme@xoar`.
    """


@app.command("list")
def list_tenants(host: options.Host = None, json: options.Json = False) -> None:
    """List the tenants, what their guests have together, and what they may have.

    Examples:

    - `xoar tenant list`
    - `xoar tenant list --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.tenants()
    if json:
        output.print_json([entry._asdict() for entry in entries])
        return
    rows = [
        (
            entry.name,
            str(entry.domid),
            entry.state,
            f"{entry.guests} of {entry.max_guests}",
            f"{output.size(entry.memory_kib)} of {output.size(entry.max_memory_kib)}",
            f"{entry.vcpus} of {entry.max_vcpus}",
            f"{entry.devices} of {entry.max_devices}",
            str(entry.restarts),
            output.age(entry.age_ms),
            entry.note or "-",
        )
        for entry in entries
    ]
    columns = ("name", "id", "state", "guests", "memory", "vcpus", "devices", "restarts", "age", "note")
    output.print_table(columns, rows, right=("id", "guests", "memory", "vcpus", "devices", "restarts"))


@app.command()
def key(name: str, host: options.Host = None) -> None:
    """Print which file has a tenant's key. Who manages the tenant's guests needs a copy, named in XOAR_KEY.

    Examples:

    - `xoar tenant key acme`
    """
    from xoar.host import tenants as keys

    where = options.host_name(host)
    keys.key(name, where)
    print(keys.key_file(name, where))


@app.command()
def delegate(
    tenant: options.TenantName,
    driver: options.DriverName,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK", help="A network of it that the tenant's guests may use. May be repeated."
        ),
    ] = None,
    volumes: Annotated[
        str, typer.Option(metavar="SIZE", help="What the tenant's volumes may have together.")
    ] = "0",
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="VOLUME", help="A volume of the host that it may clone. May be repeated."),
    ] = None,
    host: options.Host = None,
) -> None:
    """Delegate a driver domain to a tenant: its guests may have devices of it.
    Said again, it replaces what was said before.

    It lasts until it is withdrawn or the host goes down; xoar.toml says what it is at the start.

    Examples:

    - `xoar tenant delegate acme net0 --network lan`
    - `xoar tenant delegate acme disk0 --volumes 20GiB --image debian`
    """
    from xoar.host.client import Client
    from xoar.host.provision import delegation_record
    from xoar.host.tenancy import Delegated, volumes_kib

    wanted = Delegated(
        tuple(network or ()), devices.value(volumes, "--volumes", volumes_kib), tuple(image or ())
    )
    with Client.connect(options.host_name(host)) as client:
        client.request("delegate", **delegation_record(tenant, driver, wanted)._asdict())
    say(f"{driver} is delegated to tenant {tenant}")


@app.command()
def withdraw(tenant: options.TenantName, driver: options.DriverName, host: options.Host = None) -> None:
    """Take a delegation back. The tenant's guests get no further device of that driver domain; their
    interfaces are taken off its networks at once, their disks go when they are unplugged or the guest ends.

    Examples:

    - `xoar tenant withdraw acme net0`
    """
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        client.request("withdraw", driver=driver, tenant=tenant)
    say(f"{driver} is not delegated to tenant {tenant} any more")


@app.command()
def delegations(host: options.Host = None, json: options.Json = False) -> None:
    """List which driver domains are delegated to whom.

    Examples:

    - `xoar tenant delegations`
    - `xoar tenant delegations --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.delegations()
    found = [
        {
            **entry._asdict(),
            "networks": [named.name for named in entry.networks],
            "images": [named.name for named in entry.images],
        }
        for entry in entries
    ]
    if json:
        output.print_json(found)
        return
    rows = [
        (
            entry["tenant"],
            entry["driver"],
            " ".join(entry["networks"]) or "-",
            output.size(entry["volumes_kib"]) if entry["volumes_kib"] else "-",
            " ".join(entry["images"]) or "-",
        )
        for entry in found
    ]
    output.print_table(("tenant", "driver", "networks", "volumes", "images"), rows, right=("volumes",))
