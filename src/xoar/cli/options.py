"""Options that commands share, which host they mean, and the completion of names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from xoar.host import config

HOST_VARIABLE = "XOAR_HOST"
CONFIG_VARIABLE = "XOAR_CONFIG"


def host_name(given: str | None) -> str:
    """The host that a command is about: --host, else xoar.toml's, else "xoar". Raises ConfigError."""
    if given:
        return given
    return load_config(None).host.name


def config_path(given: Path | None) -> Path | None:
    """The configuration to read: --config, else ./xoar.toml if there is one."""
    named = os.environ.get(CONFIG_VARIABLE)
    return config.find(given or (Path(named) if named else None))


def load_config(given: Path | None) -> config.Config:
    """The configuration, an empty one if there is no file. Raises ConfigError, HostError."""
    from xoar.host import images

    path, added = config_path(given), images.as_configured()
    return config.load(path, added) if path else config.Config(images=added)


def _completer(names: Callable[[str | None], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Completes the names that `names` gives for the host that the command line names so far."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        # whatever goes wrong: a shell that completes must not show errors
        try:
            given = ctx.params.get("host") or os.environ.get(HOST_VARIABLE)
            return sorted(name for name in names(given) if name.startswith(incomplete))
        except Exception:
            return []

    return complete


def _hosts(host: str | None) -> Iterable[str]:
    from xoar.host import state

    return [found.name for found in state.hosts()]


def _guests(host: str | None) -> Iterable[str]:
    from xoar.host.client import Client

    with Client.connect(host_name(host), 2) as client:
        return [guest.name for guest in client.guests()]


def _loggable(host: str | None) -> Iterable[str]:
    from xoar.cli import logs, names
    from xoar.host.errors import HostError

    known = [logs.XEN, *names.shard_domids()]
    try:
        return [*known, *_guests(host)]
    except HostError:
        return known  # these logs can be read after a crash, too


def _manifests(host: str | None) -> Iterable[str]:
    from xoar.privilege import shardset

    return shardset.load_all().manifests


def _unowned_devices(host: str | None) -> Iterable[str]:
    from xoar.cli import devices
    from xoar.host.client import Client

    with Client.connect(host_name(host), 2) as client:
        return [devices.bdf(entry.bdf) for entry in client.devices() if not entry.driver]


def _optional_shards(host: str | None) -> Iterable[str]:
    from xoar.privilege import rules, shardset

    manifests = shardset.load_all().manifests
    return [name for name, manifest in manifests.items() if rules.optional(manifest)]


def _optional_rights(ctx: typer.Context, incomplete: str) -> list[str]:
    """Those of the shard that the command line names so far."""
    from xoar.privilege import rules, shardset

    try:
        manifest = shardset.load_all().manifests[ctx.params.get("shard", "")]
        names = [f"{right.security_class}.{right.permission}" for right in rules.optional(manifest)]
        return sorted(name for name in names if name.startswith(incomplete))
    except Exception:  # as in _completer
        return []


def _subjects(host: str | None) -> Iterable[str]:
    from xoar.privilege import explain, shardset

    return explain.subjects(shardset.load_all())


def _restarted(host: str | None) -> Iterable[str]:
    from xoar.host.client import Client

    with Client.connect(host_name(host), 2) as client:
        return [entry.name for entry in client.restarted()]


def _images(host: str | None) -> Iterable[str]:
    from xoar.host import guests, images
    from xoar.host.client import Client

    with Client.connect(host_name(host), 2) as client:
        kernels = [name for name in guests.library(client) if name != guests.GRUB]
    return [*kernels, *(entry.name for entry in images.added())]


def _added(host: str | None) -> Iterable[str]:
    from xoar.host import images

    return [entry.name for entry in images.added()]


def _listed(what: str) -> Callable[[str | None], Iterable[str]]:
    """The names in one of the lists that the client gets."""

    def names(host: str | None) -> Iterable[str]:
        from xoar.host.client import Client

        with Client.connect(host_name(host), 2) as client:
            return [entry.name for entry in getattr(client, what)()]

    return names


def checked_sha256(text: str) -> str:
    """The value of --sha256. Raises BadParameter."""
    from xoar.host.config import parse_sha256

    try:
        return parse_sha256(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sha256") from error


SLACK = 20.0
"""Seconds for the Toolstack's own work on top of what a guest or a driver domain is given."""

Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="The host's name; else the one in ./xoar.toml, else xoar.",
        envvar=HOST_VARIABLE,
        show_default=False,
        autocompletion=_completer(_hosts),
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="A file instead of ./xoar.toml.", envvar=CONFIG_VARIABLE, show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
GuestName = Annotated[str, typer.Argument(help="The guest's name.", autocompletion=_completer(_guests))]
LogName = Annotated[
    str, typer.Argument(help="A guest, a shard, or xen.", autocompletion=_completer(_loggable))
]
ManifestName = Annotated[
    str,
    typer.Argument(
        metavar="SHARD", help="A shard, netback, blkback or guest.", autocompletion=_completer(_manifests)
    ),
]
RebootedName = Annotated[
    str | None,
    typer.Argument(
        metavar="SHARD",
        help="The shard's name.",
        autocompletion=_completer(_restarted),
        show_default=False,
    ),
]
Asker = Annotated[
    str,
    typer.Argument(
        metavar="A",
        help="Who: its manifest's name, or scontext of a denial.",
        autocompletion=_completer(_manifests),
    ),
]
Asked = Annotated[
    str,
    typer.Argument(
        metavar="B",
        help="On whom or what: as A, self, xen, device ..., or tcontext.",
        autocompletion=_completer(_subjects),
    ),
]
ImageName = Annotated[
    str | None,
    typer.Option("--image", help="An image of the library.", autocompletion=_completer(_images)),
]
AddedName = Annotated[
    str, typer.Argument(help="The image's name.", autocompletion=_completer(_added), show_default=False)
]
VolumeName = Annotated[
    str, typer.Argument(help="The volume's name.", autocompletion=_completer(_listed("volumes")))
]
NetworkName = Annotated[
    str, typer.Argument(help="The network's name.", autocompletion=_completer(_listed("networks")))
]
DriverName = Annotated[
    str, typer.Argument(help="The driver domain's name.", autocompletion=_completer(_listed("drivers")))
]
TenantName = Annotated[
    str, typer.Argument(help="The tenant's name.", autocompletion=_completer(_listed("tenants")))
]
Device = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE", help="Its address, as 0000:03:00.0.", autocompletion=_completer(_unowned_devices)
    ),
]
BlkBack = Annotated[
    str,
    typer.Option(
        "--driver",
        help="The driver domain, if there are several of kind blkback.",
        autocompletion=_completer(_listed("drivers")),
        show_default=False,
    ),
]
NetBack = Annotated[
    str,
    typer.Option(
        "--driver",
        help="The driver domain, if there are several of kind netback.",
        autocompletion=_completer(_listed("drivers")),
        show_default=False,
    ),
]
Sha256 = Annotated[
    str, typer.Option("--sha256", metavar="HEX", help="What the file must have.", show_default=False)
]
PlugTimeout = Annotated[float, typer.Option("--timeout", min=1, max=3600, help="Seconds to wait.")]
PermitShard = Annotated[
    str,
    typer.Argument(
        metavar="SHARD",
        help="A manifest that states optional rights.",
        autocompletion=_completer(_optional_shards),
    ),
]
PermitRight = Annotated[
    str,
    typer.Argument(
        metavar="RIGHT", help="Class and permission, as xen.debug.", autocompletion=_optional_rights
    ),
]
