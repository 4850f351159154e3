"""`xoar guest`: one guest at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xoar.cli import devices, options
from xoar.cli.failures import say

if TYPE_CHECKING:
    from xoar.host.config import Config, Guest
    from xoar.host.devices import CloudInit

app = typer.Typer(no_args_is_help=True, help="Create guests, look at them, end them.")

Timeout = Annotated[float, typer.Option(min=1, max=86400, help="Seconds to wait for the guest.")]


@app.callback()
def guests() -> None:
    """Create guests, look at them, end them."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A new name, or one from xoar.toml.")],
    image: options.ImageName = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="As in 128MiB or 2GiB.")] = None,
    vcpus: Annotated[int | None, typer.Option(min=1, max=128)] = None,
    command_line: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Follows the image's on the kernel's command line.")
    ] = None,
    on_reboot: Annotated[str | None, typer.Option(metavar="restart|destroy|keep")] = None,
    on_crash: Annotated[str | None, typer.Option(metavar="restart|destroy|keep")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help='Share driver domains only with this group; "": with those of none.'
        ),
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option(metavar="VOLUME[,mode=r][,device=xvdb]", help="A disk; the first one is xvda."),
    ] = None,
    nic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK[,mac=..][,address=..]",
            help="A network interface; more keys: gateway, dns, rate.",
        ),
    ] = None,
    cloud_init_user: Annotated[
        str | None, typer.Option(metavar="USER", help="Who cloud-init makes; default: xoar.")
    ] = None,
    ssh_key: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A public key for that user, besides xoar's own.")
    ] = None,
    user_data: Annotated[Path | None, typer.Option(metavar="FILE", help="More for cloud-init.")] = None,
    host: options.Host = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Build and start a guest. What is not said here is as in xoar.toml, if the guest stands there.

    Examples:

    - `xoar guest create web --image debian --memory 256MiB`
    - `xoar guest create debian`
    - `xoar guest create mail --image bookworm --nic lan --disk mail --disk archive,mode=r`
    - `xoar guest create shop --image debian --nic lan --group red`
    """
    from xoar.cli import output
    from xoar.host import config as configuration
    from xoar.host import guests, values
    from xoar.host.client import Client
    from xoar.messages.records import ON_CRASH, ON_REBOOT

    known = options.load_config(config)
    guest = known.guests.get(name) or _new(known, name, image or configuration.BUILTIN[0])
    if memory is not None:
        kib = devices.value(memory, "--memory", values.guest_memory_kib)
        guest = replace(guest, memory_kib=kib)
    if group is not None:
        guest = replace(guest, group=devices.value(group, "--group", configuration.group_name))
    for option, choices, value in (
        ("--on-reboot", ON_REBOOT.words, on_reboot),
        ("--on-crash", ON_CRASH.words, on_crash),
    ):
        if value is not None and value not in choices:
            text = f'"{value}" is not one of {", ".join(choices)}.{configuration.nearest(value, choices)}'
            raise typer.BadParameter(text, param_hint=option)
    guest = replace(
        guest,
        image=image or guest.image,
        vcpus=vcpus or guest.vcpus,
        command_line=guest.command_line if command_line is None else command_line,
        on_reboot=on_reboot or guest.on_reboot,
        on_crash=on_crash or guest.on_crash,
        disks=tuple(devices.disk(words) for words in disk) if disk else guest.disks,
        nics=tuple(devices.nic(words) for words in nic) if nic else guest.nics,
        cloud_init=_cloud_init(guest.cloud_init, cloud_init_user, ssh_key or [], user_data),
    )
    with Client.connect(options.host_name(host)) as client:
        domid = guests.create(client, known, guest)
    if json:
        output.print_json({"name": name, "id": domid})
    else:
        say(f"guest {name} runs as domain {domid}")


def _new(known: Config, name: str, image: str) -> Guest:
    """A guest that stands in no file."""
    from xoar.host import config as configuration
    from xoar.host import values

    found = known.images.get(image)
    memory = configuration.DISK_MEMORY if found and found.is_disk else configuration.DEFAULT_MEMORY
    return configuration.Guest(name, image, values.guest_memory_kib(memory))


def _cloud_init(
    told: CloudInit | None, user: str | None, keys: list[str], user_data: Path | None
) -> CloudInit | None:
    """What the options make of what the file says."""
    from xoar.host.devices import CloudInit
    from xoar.host.values import is_key

    if user is None and not keys and user_data is None:
        return told
    told = told or CloudInit()
    more = tuple(key if is_key(key) else Path(key) for key in keys)
    return replace(
        told, user=user or told.user, ssh_keys=told.ssh_keys + more, user_data=user_data or told.user_data
    )


@app.command("list")
def list_guests(host: options.Host = None, json: options.Json = False) -> None:
    """List the guests in the order of their creation.

    Examples:

    - `xoar guest list`
    - `xoar guest list --json`
    """
    from xoar.cli import output
    from xoar.host import guests
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries = guests.shown(client)
    if json:
        output.print_json(
            [
                {
                    "name": entry.name,
                    "id": entry.domid or None,
                    "state": entry.state,
                    "reason": entry.reason,
                    "memory_kib": entry.memory_kib,
                    "vcpus": entry.vcpus,
                    "age_s": entry.age_ms // 1000,
                    "restarts": entry.restarts,
                    "group": entry.group or None,
                    "disks": [devices.disk_facts(disk) for disk in entry.disks],
                    "nics": [devices.nic_facts(nic) for nic in entry.nics],
                }
                for entry in entries
            ]
        )
        return
    rows = [
        (
            entry.name,
            str(entry.domid or "-"),
            entry.state,
            output.size(entry.memory_kib),
            str(entry.vcpus),
            output.age(entry.age_ms),
            str(entry.restarts),
            entry.group or "-",
            " ".join(disk.volume for disk in entry.disks) or "-",
            devices.addresses(entry.nics) or "-",
        )
        for entry in entries
    ]
    columns = ("name", "id", "state", "memory", "vcpus", "age", "restarts", "group", "disks", "addresses")
    output.print_table(columns, rows, right=("id", "memory", "vcpus", "restarts"))


@app.command()
def show(name: options.GuestName, host: options.Host = None, json: options.Json = False) -> None:
    """Show one guest, also one that ended lately, with the reason.

    Examples:

    - `xoar guest show debian`
    - `xoar guest show debian --json`
    """
    from xoar.cli import names, output
    from xoar.host import guests
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        with names.known_guest(client, name):
            shown = client.request("guest_show", name=name).fields
        library = guests.library(client)
    facts = _facts(shown, library)
    if json:
        output.print_json(facts)
        return
    del facts["disks"], facts["nics"]
    facts["memory_kib"] = output.size(shown.memory_kib)
    facts["age_s"] = output.age(shown.age_ms)
    labels = {"id": "domain", "previous_id": "domain before", "memory_kib": "memory", "age_s": "age"}
    output.print_facts(
        (labels.get(key, key.replace("_", " ")), "-" if value in (None, "") else str(value))
        for key, value in (*facts.items(), *_device_lines(shown))
    )


def _device_lines(shown: Any) -> list[tuple[str, object]]:
    disks = [(f"disk {disk.device}", devices.disk_line(disk)) for disk in shown.disks]
    return [*disks, *((f"nic {nic.handle}", devices.nic_line(nic)) for nic in shown.nics)]


def _facts(shown: Any, library: Any) -> dict[str, object]:
    from uuid import UUID

    pair = (shown.kernel, shown.ramdisk)
    return {
        "name": shown.name,
        "uuid": str(UUID(bytes=shown.uuid)),
        "id": shown.domid or None,
        "previous_id": shown.previous_domid or None,
        "state": shown.state,
        "reason": shown.reason,
        "note": shown.note,
        "image": next((name for name, digests in library.items() if digests == pair), None),
        "kernel": shown.kernel.hex(),
        "ramdisk": shown.ramdisk.hex() if any(shown.ramdisk) else None,
        "command_line": shown.command_line,
        "memory_kib": shown.memory_kib,
        "vcpus": shown.vcpus,
        "on_reboot": shown.on_reboot,
        "on_crash": shown.on_crash,
        "group": shown.group or None,
        "age_s": shown.age_ms // 1000,
        "restarts": shown.restarts,
        "disks": [devices.disk_facts(disk) for disk in shown.disks],
        "nics": [devices.nic_facts(nic) for nic in shown.nics],
    }


@app.command()
def shutdown(name: options.GuestName, timeout: Timeout = 60, host: options.Host = None) -> None:
    """Ask a guest to power off, and wait until it is gone. Exit code 5 if it does not in time.

    Examples:

    - `xoar guest shutdown debian --timeout 120`
    """
    _ask("guest_shutdown", name, host, timeout + options.SLACK, timeout_ms=round(timeout * 1000))
    say(f"guest {name} has shut down")


@app.command()
def reboot(name: options.GuestName, timeout: Timeout = 60, host: options.Host = None) -> None:
    """Ask a guest to reboot, and wait until it runs again. Exit code 5 if it does not in time.

    Examples:

    - `xoar guest reboot debian`
    """
    reply = _ask("guest_reboot", name, host, timeout + options.SLACK, timeout_ms=round(timeout * 1000))
    say(f"guest {name} runs again as domain {reply.domid}")


@app.command()
def destroy(name: options.GuestName, host: options.Host = None) -> None:
    """End a guest at once, as if its power were cut.

    Examples:

    - `xoar guest destroy debian`
    """
    from xoar.host.client import BUILD_SECONDS

    _ask("guest_destroy", name, host, BUILD_SECONDS)
    say(f"guest {name} is gone")


def _ask(kind: str, name: str, host: str | None, seconds: float, **fields: object) -> Any:
    from xoar.cli import names
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client, names.known_guest(client, name):
        return client.request(kind, seconds, name=name, **fields).fields
