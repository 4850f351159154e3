"""`xoar disk`: disks of running guests."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

app = typer.Typer(no_args_is_help=True, help="Plug disks into running guests, and unplug them.")


@app.callback()
def disks() -> None:
    """Plug disks into running guests, and unplug them."""


@app.command()
def attach(
    guest: options.GuestName,
    volume: options.VolumeName,
    device: Annotated[str, typer.Option(metavar="xvdX", help="Default: the next free one.")] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Several guests may share it so.")] = False,
    driver: options.BlkBack = "",
    timeout: options.PlugTimeout = 60,
    host: options.Host = None,
) -> None:
    """Plug a volume into a running guest.

    Examples:

    - `xoar disk attach web data`
    - `xoar disk attach web data --device xvdc --read-only`
    """
    from xoar.cli import names
    from xoar.host import provision, volumes
    from xoar.host.client import Client
    from xoar.host.devices import Disk, lettered
    from xoar.host.values import parse_device

    wanted = Disk(
        volume, device and devices.value(device, "--device", parse_device), "r" if read_only else "w"
    )
    with Client.connect(options.host_name(host)) as client, names.known_guest(client, guest):
        shown = client.request("guest_show", name=guest).fields
        there = [Disk(disk.volume, disk.device) for disk in shown.disks]
        wanted = replace(wanted, driver=volumes.find(client, volume, driver).driver)
        wanted = lettered([*there, wanted])[-1]
        client.request(
            "disk_attach", timeout + options.SLACK, guest=guest, disk=provision.disk_record(wanted),
            timeout_ms=round(timeout * 1000),
        )  # fmt: skip
    say(f"guest {guest} has volume {volume} as {wanted.device}")


@app.command()
def detach(
    guest: options.GuestName,
    device: Annotated[str, typer.Argument(help="As in xvdb.")],
    timeout: options.PlugTimeout = 60,
    host: options.Host = None,
) -> None:
    """Unplug a disk from a running guest, which must let go of it. Exit code 5 if it does not in time.

    Examples:

    - `xoar disk detach web xvdb`
    """
    from xoar.cli import names
    from xoar.host.client import Client
    from xoar.host.values import parse_device

    parsed = devices.value(device, "DEVICE", parse_device)
    with Client.connect(options.host_name(host)) as client, names.known_guest(client, guest):
        client.request(
            "disk_detach", timeout + options.SLACK, guest=guest, device=parsed,
            timeout_ms=round(timeout * 1000),
        )  # fmt: skip
    say(f"guest {guest} has no disk {device} any more")
