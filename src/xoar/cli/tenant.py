"""`xoar tenant`: who shares the host, each with a Toolstack of its own."""

from __future__ import annotations

import typer

from xoar.cli import options

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
            str(entry.restarts),
            output.age(entry.age_ms),
            entry.note or "-",
        )
        for entry in entries
    ]
    columns = ("name", "id", "state", "guests", "memory", "vcpus", "restarts", "age", "note")
    output.print_table(columns, rows, right=("id", "guests", "memory", "vcpus", "restarts"))


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
