"""`xoar image`: the library that guests are built from, and images of disks on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xoar.cli import options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="The images that guests are made from.")

DEBIAN = "debian"


@app.callback()
def images() -> None:
    """The images that guests are made from.

    Kernels are declared in xoar.toml and fixed while the host runs. Images of disks are files on this
    machine, which all hosts can use; volumes are made from them.
    """


@app.command("list")
def list_images(host: options.Host = None, json: options.Json = False) -> None:
    """List the running host's library (kernels, ramdisks, shards) and the images of disks.

    If the host does not run, only the images of disks, with exit code 4.

    Examples:

    - `xoar image list`
    - `xoar image list --json`
    """
    from xoar.cli import output
    from xoar.host import images
    from xoar.host.client import Client, NotRunning

    entries = [
        {
            "name": entry.name,
            "kind": "disk",
            "sha256": entry.sha256,
            "size": entry.size_kib << 10,
            "stored_size": entry.size,
        }
        for entry in images.added()
    ]
    failure = None
    try:
        with Client.connect(options.host_name(host)) as client:
            entries += [
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "sha256": entry.digest.hex(),
                    "size": entry.size,
                    "stored_size": entry.stored_size,
                }
                for entry in client.images()
            ]
    except NotRunning as error:
        failure = error
    if json:
        output.print_json(entries)
    else:
        sizes = [
            (
                output.size(-(-int(str(e["size"])) // 1024)),
                output.size(-(-int(str(e["stored_size"])) // 1024)),
            )
            for e in entries
        ]
        rows = [
            (str(entry["name"]), str(entry["kind"]), *size, str(entry["sha256"])[:16])
            for entry, size in zip(entries, sizes, strict=True)
        ]
        output.print_table(("name", "kind", "size", "stored", "sha256"), rows, right=("size", "stored"))
    if failure is not None:
        raise failure


@app.command()
def add(
    file: Annotated[
        Path, typer.Argument(help="An image of a disk: raw or qcow2.", exists=True, dir_okay=False)
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="What to call it; one of that name is replaced.")],
    sha256: options.Sha256 = "",
) -> None:
    """Keep an image of a disk on this machine, for guests and volumes to be made from.

    Examples:

    - `xoar image add debian-12-genericcloud-amd64.qcow2 --name bookworm`
    """
    _add(file, name, options.checked_sha256(sha256))


@app.command()
def build(
    what: Annotated[str, typer.Argument(metavar="debian", help="What to build.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="What to call it.")] = "debian-disk",
) -> None:
    """Build the image of a disk, and keep it as `xoar image add` does.

    Examples:

    - `xoar image build debian`
    """
    from xoar.host import images
    from xoar.host.progress import Reporter

    if what != DEBIAN:
        raise typer.BadParameter(f'"{what}" is not one of {DEBIAN}', param_hint="WHAT")
    _add(images.build_debian(Reporter()), name, "")


@app.command()
def remove(name: options.AddedName) -> None:
    """Remove an image of a disk from this machine; volumes that were made from it stay.

    Examples:

    - `xoar image remove bookworm`
    """
    from xoar.cli import names
    from xoar.host import images

    try:
        images.remove(name)
    except KeyError as error:
        raise names.unknown("image", name, [entry.name for entry in images.added()]) from error
    say(f"image {name} is gone")


def _add(file: Path, name: str, sha256: str) -> None:
    from xoar.cli import output
    from xoar.host import images
    from xoar.host.progress import Reporter

    added = images.add(file, name, sha256, Reporter())
    say(f"image {name}: {added.format}, a disk of {output.size(added.size_kib)}, SHA-256 {added.sha256}")
