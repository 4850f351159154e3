"""`xoar image`: the library of images that guests are built from."""

from __future__ import annotations

import typer

from xoar.cli import options

app = typer.Typer(no_args_is_help=True, help="The images that guests are built from.")


@app.callback()
def images() -> None:
    """The images that guests are built from. They are declared in xoar.toml and fixed while the host runs."""


@app.command("list")
def list_images(host: options.Host = None, json: options.Json = False) -> None:
    """List the running host's library: kernels and ramdisks of guests, and the shards' own images.

    Examples:

    - `xoar image list`
    - `xoar image list --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = client.images()
    if json:
        output.print_json(
            [
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "sha256": entry.digest.hex(),
                    "size": entry.size,
                    "stored_size": entry.stored_size,
                }
                for entry in entries
            ]
        )
        return
    rows = [
        (
            entry.name,
            entry.kind,
            output.size(-(-entry.size // 1024)),
            output.size(-(-entry.stored_size // 1024)),
            entry.digest.hex()[:16],
        )
        for entry in entries
    ]
    output.print_table(("name", "kind", "size", "stored", "sha256"), rows, right=("size", "stored"))
