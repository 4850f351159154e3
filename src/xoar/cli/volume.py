"""`xoar volume`: what guests' disks are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Volumes: what guests' disks are made of.")

NewName = Annotated[str, typer.Argument(help="A new name.")]
Size = Annotated[str, typer.Option(metavar="SIZE", help="As in 10GiB.")]


@app.callback()
def volumes() -> None:
    """Volumes: what guests' disks are made of. They are kept by driver domains of kind blkback."""


@app.command()
def create(name: NewName, size: Size, driver: options.BlkBack = "", host: options.Host = None) -> None:
    """Make a blank volume. It takes space as it is written to.

    Examples:

    - `xoar volume create data --size 10GiB`
    """
    from xoar.host import volumes
    from xoar.host.client import Client
    from xoar.host.values import parse_volume_size

    size_kib = devices.value(size, "--size", parse_volume_size)
    with Client.connect(options.host_name(host)) as client:
        volumes.change(client, volumes.only_driver(client, driver), "create", name, size_kib=size_kib)
    say(f"volume {name} is there")


@app.command("list")
def list_volumes(host: options.Host = None, json: options.Json = False) -> None:
    """List the volumes, and the space that there is for them.

    Examples:

    - `xoar volume list`
    - `xoar volume list --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries, pools = client.volumes(), client.pools()
        guests = {str(guest.domid): guest.name for guest in client.guests()}
    users = {
        (entry.driver, entry.name): [guests.get(user, user) for user in entry.users.split(",") if user]
        for entry in entries
    }
    if json:
        output.print_json(
            {
                "volumes": [
                    {
                        "name": entry.name,
                        "driver": entry.driver,
                        "size_kib": entry.size_kib,
                        "used_kib": entry.used_kib,
                        "origin": entry.origin or None,
                        "users": users[entry.driver, entry.name],
                        "state": entry.state,
                    }
                    for entry in entries
                ],
                "pools": [
                    {"driver": pool.driver, "size_kib": pool.size_kib, "used_kib": pool.used_kib}
                    for pool in pools
                ],
            }
        )
        return
    rows = [
        (
            entry.name,
            entry.driver,
            output.size(entry.size_kib),
            output.size(entry.used_kib),
            entry.origin or "-",
            " ".join(users[entry.driver, entry.name]) or "-",
            entry.state,
        )
        for entry in entries
    ]
    output.print_table(
        ("name", "driver", "size", "used", "origin", "used by", "state"), rows, right=("size", "used")
    )
    for pool in pools:
        say(f"{pool.driver}: {output.size(pool.used_kib)} of {output.size(pool.size_kib)} used")


@app.command()
def clone(
    source: options.VolumeName, name: NewName, driver: options.BlkBack = "", host: options.Host = None
) -> None:
    """Make a volume with the contents of another one, at once. Later both change by themselves.

    Examples:

    - `xoar volume clone web web-before-upgrade`
    """
    from xoar.host import volumes
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        # a tenant can clone volumes that it does not see: images that the host's operator delegates
        where = driver if client.tenant else volumes.find(client, source, driver).driver
        volumes.change(client, volumes.only_driver(client, where), "clone", name, source=source)
    say(f"volume {name} is there")


@app.command()
def grow(
    name: options.VolumeName, size: Size, driver: options.BlkBack = "", host: options.Host = None
) -> None:
    """Make a volume larger. A running guest sees it after its disk is plugged anew, or after a reboot.

    Examples:

    - `xoar volume grow data --size 20GiB`
    """
    from xoar.cli import output
    from xoar.host import volumes
    from xoar.host.client import Client
    from xoar.host.errors import HostError
    from xoar.host.values import parse_volume_size

    size_kib = devices.value(size, "--size", parse_volume_size)
    with Client.connect(options.host_name(host)) as client:
        found = volumes.find(client, name, driver)
        if size_kib < found.size_kib:
            raise HostError(f"volume {name} has {output.size(found.size_kib)}; volumes can't shrink")
        volumes.change(client, found.driver, "grow", name, size_kib=size_kib)
    say(f"volume {name} has {output.size(size_kib)}")


@app.command()
def delete(name: options.VolumeName, driver: options.BlkBack = "", host: options.Host = None) -> None:
    """Remove a volume that no guest uses, with all that is on it.

    Examples:

    - `xoar volume delete data`
    """
    from xoar.host import volumes
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        volumes.change(client, volumes.find(client, name, driver).driver, "delete", name)
    say(f"volume {name} is gone")


@app.command("import")
def import_volume(
    name: NewName,
    file: Annotated[
        Path, typer.Argument(help="An image of a disk: raw or qcow2.", exists=True, dir_okay=False)
    ],
    sha256: options.Sha256 = "",
    driver: options.BlkBack = "",
    host: options.Host = None,
) -> None:
    """Make a volume of an image's file.

    Examples:

    - `xoar volume import data data.qcow2`
    """
    from xoar.host import images, volumes
    from xoar.host.client import Client
    from xoar.host.progress import Reporter

    kind = images.inspect(file)
    with Client.connect(options.host_name(host)) as client:
        where = volumes.only_driver(client, driver)
        volumes.import_file(client, where, name, file, kind, Reporter(), options.checked_sha256(sha256))


@app.command()
def export(
    name: options.VolumeName,
    file: Annotated[Path, typer.Argument(help="A new file.")],
    driver: options.BlkBack = "",
    host: options.Host = None,
) -> None:
    """Copy a volume that no guest uses into a new file (raw, with holes for what is blank).

    Examples:

    - `xoar volume export data data.raw`
    """
    from xoar.host import volumes
    from xoar.host.client import Client
    from xoar.host.progress import Reporter

    with Client.connect(options.host_name(host)) as client:
        volumes.export_file(client, volumes.find(client, name, driver), file, Reporter())
