"""`xoar right`: optional rights of shards, which are off until an operator permits them."""

from __future__ import annotations

import typer

from xoar.cli import options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Optional rights: permitted while the host runs, or not.")


@app.callback()
def rights() -> None:
    """Optional rights, which manifests state and operators permit while the host runs.

    They are off when a host starts. `xoar policy show` has all rights, `xoar journal` who changed what.
    """


@app.command("list")
def list_rights(host: options.Host = None, json: options.Json = False) -> None:
    """List the optional rights, and which are permitted.

    Examples:

    - `xoar right list`
    - `xoar right list --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.permits()
    if json:
        output.print_json(
            [
                {
                    "shard": entry.shard,
                    "class": entry.security_class,
                    "permission": entry.permission,
                    "permitted": bool(entry.on),
                }
                for entry in entries
            ]
        )
        return
    rows = [
        (entry.shard, f"{entry.security_class}.{entry.permission}", "yes" if entry.on else "no")
        for entry in entries
    ]
    output.print_table(("shard", "right", "permitted"), rows)


@app.command()
def permit(shard: options.PermitShard, right: options.PermitRight, host: options.Host = None) -> None:
    """Permit an optional right, until it is withdrawn or the host ends. No harm if it is permitted already.

    Examples:

    - `xoar right permit console xen.debug`
    """
    _change(shard, right, host, 1)
    say(f"{shard} may {right}")


@app.command()
def withdraw(shard: options.PermitShard, right: options.PermitRight, host: options.Host = None) -> None:
    """Take an optional right away again; at once, since Xen asks the policy each time.

    Examples:

    - `xoar right withdraw console xen.debug`
    """
    _change(shard, right, host, 0)
    say(f"{shard} may not {right} any more")


def _change(shard: str, right: str, host: str | None, on: int) -> None:
    from xoar.cli import names
    from xoar.host.client import Client

    security_class, dot, permission = right.partition(".")
    if not dot:
        raise typer.BadParameter("write class and permission, as xen.debug", param_hint="RIGHT")
    with Client.connect(options.host_name(host)) as client:
        known = [(e.shard, f"{e.security_class}.{e.permission}") for e in client.permits()]
        if (shard, right) not in known:
            raise names.unknown("optional right", f"{shard} {right}", [" ".join(each) for each in known])
        client.request(
            "permit_change", shard=shard, security_class=security_class, permission=permission, on=on
        )
