"""Volumes of a running host: changing them, and getting images into and out of them."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xoar.host import disks, images
from xoar.host.client import BUILD_SECONDS, Client, TimedOut
from xoar.host.config import Image
from xoar.host.devices import BLKBACK
from xoar.host.errors import HostError, NotFound
from xoar.host.exchange import Exchange
from xoar.host.images import DiskFile
from xoar.host.progress import Reporter
from xoar.host.tables import nearest
from xoar.messages.records import NO_IMAGE

OK = "ok"
_LOOK = 0.5  # seconds between two looks at the progress of a long change
_STALLED = 600.0  # seconds without any progress after which a command gives up


def change(client: Client, driver: str, action: str, name: str, **fields: Any) -> Any:
    """Has a BlkBack do something (docs/devices.md); the fields of `volume_changed`. Raises HostError."""
    return client.request("volume_change", BUILD_SECONDS, **_fields(driver, action, name, fields)).fields


def _fields(driver: str, action: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    unused = {"source": "", "size_kib": 0, "offset": 0, "length": 0, "format": "raw", "sha256": NO_IMAGE}
    return {"driver": driver, "action": action, "name": name, **unused, **given}


def change_slowly(
    client: Client, driver: str, action: str, name: str, show: Reporter, title: str, **fields: Any
) -> Any:
    """As `change`, for what takes long: shows how far it is. Raises TimedOut if it does not go on."""
    number = client.ask("volume_change", **_fields(driver, action, name, fields))
    with show.step(title, 100) as step:
        moved = time.monotonic()
        while (reply := client.reply(number, _LOOK)) is None:
            percent = client.request("volume_progress", driver=driver).fields.percent
            if percent != step.done:
                moved = time.monotonic()
            elif time.monotonic() - moved > _STALLED:
                raise TimedOut(f"{driver} does not go on with volume {name}: {percent} %")
            step.at(percent)
    return reply.fields


def find(client: Client, name: str, driver: str = "") -> Any:
    """The volume of that name, as the schema's `volume`. Raises NotFound, HostError if several have it."""
    entries = client.volumes()
    matching = [entry for entry in entries if entry.name == name and driver in ("", entry.driver)]
    if len(matching) > 1:
        where = ", ".join(entry.driver for entry in matching)
        raise HostError(f"there are several volumes {name}, on {where}", hint="Say which: --driver NAME")
    if not matching:
        raise NotFound(f"there is no volume {name}.{nearest(name, [entry.name for entry in entries])}")
    return matching[0]


def only_driver(client: Client, given: str, kind: str = BLKBACK) -> str:
    """The driver domain that is meant: the given one, else the only one of its kind. Raises HostError."""
    names = [driver.name for driver in client.drivers() if driver.kind == kind]
    if given and given not in names:
        raise NotFound(f"there is no {kind} {given}.{nearest(given, names)}")
    if given or len(names) == 1:
        return given or names[0]
    if not names and client.tenant:
        raise HostError(
            f"tenant {client.tenant} has no driver domain of kind {kind}, or it is not there yet",
            hint="The host's operator delegates one: delegated = [...] in xoar.toml. See: xoar driver list",
        )
    if not names:
        raise HostError(
            f"host {client.host.name} has no driver domain of kind {kind}",
            hint=f'Add one to xoar.toml: [drivers.NAME] with kind = "{kind}"; then xoar down, xoar up.',
        )
    raise HostError(
        f"there are several of kind {kind}: {', '.join(names)}",
        hint='Say which: --driver NAME, or driver = "NAME" in xoar.toml.',
    )


def import_file(
    client: Client, driver: str, name: str, file: Path, kind: DiskFile, show: Reporter, sha256: str = ""
) -> None:
    """Makes a volume of an image's file, which must have that `sha256` if one is given. Raises HostError."""
    with Exchange(disks.of(client.host, driver).exchange) as exchange:
        with show.step(f"copying {file.name}", file.stat().st_size) as step:
            area = exchange.put(file, step.advance)
        if sha256 and area.source != sha256:
            raise HostError(f"{file} has the SHA-256 {area.source}, not {sha256}", hint="Load it down again.")
        change_slowly(
            client, driver, "import", name, show, f"importing volume {name}",
            size_kib=kind.size_kib, offset=area.offset, length=area.length, format=kind.format,
            sha256=area.sha256,
        )  # fmt: skip


def import_bytes(client: Client, driver: str, name: str, data: bytes, show: Reporter) -> None:
    """Makes a small volume that holds `data`. Raises HostError."""
    with tempfile.NamedTemporaryFile(prefix="xoar-") as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        import_file(client, driver, name, path, images.inspect(path), show)


def export_file(client: Client, volume: Any, file: Path, show: Reporter) -> int:
    """Copies a volume into a new file, raw; its bytes. Raises HostError, FileExistsError."""
    if file.exists():
        raise HostError(f"{file} is there already", hint="Remove it, or choose another name.")
    with Exchange(disks.of(client.host, volume.driver).exchange) as exchange:
        written = change_slowly(
            client, volume.driver, "export", volume.name, show, f"exporting volume {volume.name}",
            offset=disks.EXCHANGE_START, length=disks.EXCHANGE_SIZE - disks.EXCHANGE_START,
        )  # fmt: skip
        with show.step(f"writing {file.name}", written.length) as step:
            exchange.get(file, written.length, written.sha256, step.advance)
    length: int = written.length
    return length


def of_image(client: Client, driver: str, image: Image, known: Iterable[Any], show: Reporter) -> Any:
    """(name, KiB) of the volume that an image was imported to, which is done first if it is not there.

    `known` are the host's volumes. One that was made from other contents of the image is removed.
    """
    file = images.file(image, show)
    kind = images.inspect(file)
    name = f"image.{image.name}.{images.digest(image, file, show)[:8]}"
    ours = re.compile(rf"image\.{re.escape(image.name)}\.[0-9a-f]{{8}}")
    old = {entry.name: entry for entry in known if entry.driver == driver and ours.fullmatch(entry.name)}
    if name in old and old[name].state != OK:
        change(client, driver, "delete", name)  # what a command left that was killed
        del old[name]
    if name not in old:
        import_file(client, driver, name, file, kind, show, image.sha256)
    for other in old.keys() - {name}:
        change(client, driver, "delete", other)
    return name, kind.size_kib
