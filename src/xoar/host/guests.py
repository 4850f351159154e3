"""Guests of a running host: creating one, and converging to a configuration."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from xoar.builder.library import KERNEL, RAMDISK
from xoar.host.client import BUILD_SECONDS, Client
from xoar.host.config import Config, Guest, format_size, nearest
from xoar.host.errors import HostError
from xoar.host.state import LAUNCH, Host
from xoar.messages.schema import NO_IMAGE

Library = Mapping[str, tuple[bytes, bytes]]
"""Image name -> digests of its kernel and its ramdisk (NO_IMAGE: it has none)."""


class NotFound(HostError):
    """A name that nothing has; the message offers the nearest one."""


def library(client: Client) -> Library:
    """The guests' images in a running host's library."""
    entries = client.images()
    ramdisks = {entry.name: entry.digest for entry in entries if entry.kind == RAMDISK}
    return {
        entry.name: (entry.digest, ramdisks.get(entry.name, NO_IMAGE))
        for entry in entries
        if entry.kind == KERNEL
    }


def create(client: Client, config: Config, guest: Guest, images: Library | None = None) -> int:
    """Builds and starts a guest; its domid. Raises NotFound for an unknown image, HostError."""
    known = library(client) if images is None else images
    if guest.image not in known:
        raise NotFound(
            f"host {client.host.name} has no image {guest.image}.{nearest(guest.image, known)}",
            hint=f"It has: {', '.join(known) or 'none'}. New ones are added by: xoar down, xoar up",
        )
    kernel, ramdisk = known[guest.image]
    reply = client.request(
        "guest_create",
        BUILD_SECONDS,
        name=guest.name,
        uuid=uuid.uuid4().bytes,
        kernel=kernel,
        ramdisk=ramdisk,
        command_line=config.kernel_arguments(guest),
        memory_kib=guest.memory_kib,
        vcpus=guest.vcpus,
        on_reboot=guest.on_reboot,
        on_crash=guest.on_crash,
        disks=[],
        nics=[],
    )
    domid: int = reply.fields.domid
    return domid


def converge(client: Client, config: Config, say: Callable[[str], None]) -> bool:
    """Creates the configured guests that are missing, and says what else differs, changing nothing of it.

    Returns whether every guest that should run could be created; the reasons have been said.
    """
    existing = {guest.name: guest for guest in client.guests()}
    images = library(client)
    complete = True
    for name in config.images:
        if name not in images:
            say(f"image {name} is not in the running host's library (xoar down, then xoar up, adds it)")
    for guest in config.guests.values():
        if guest.name in existing:
            shown = client.request("guest_show", name=guest.name).fields
            if different := differences(config, guest, shown, images):
                say(
                    f"guest {guest.name} differs from {config.path}: {'; '.join(different)}"
                    f" (xoar guest destroy {guest.name}, then xoar up, applies it)"
                )
            if shown.state == "kept":
                say(f"guest {guest.name} does not run: {shown.note} (xoar guest reboot {guest.name})")
        elif guest.autostart:
            try:
                domid = create(client, config, guest, images)
            except HostError as error:
                say(f"guest {guest.name} could not be created: {error}")
                complete = False
            else:
                say(f"guest {guest.name} runs as domain {domid}")
    for name in existing:
        if name not in config.guests:
            say(f"guest {name} is not in {config.path}; it is left as it is")
    return complete


def machine_differences(host: Host, config: Config) -> list[str]:
    """How the machine of a running host is not as configured, in words."""
    # with the emulator's module comes all that builds, which only this needs
    from xoar.host.emulator import Launch

    machine = msgspec.json.decode((host.folder / LAUNCH).read_bytes(), type=Launch).machine
    wanted = config.host
    return [
        f"host {host.name}: {name} is {found}, not {value} (xoar down, then xoar up, applies it)"
        for name, found, value in (
            ("memory", f"{machine.memory_mib}MiB", f"{wanted.memory_mib}MiB"),
            ("cpus", machine.cpus, wanted.cpus),
        )
        if found != value
    ]


def differences(config: Config, guest: Guest, shown: Any, images: Library) -> list[str]:
    """What of a running guest (the message `guest`) is not as configured, in words."""
    different = []
    if (shown.kernel, shown.ramdisk) != images.get(guest.image, (shown.kernel, shown.ramdisk)):
        different.append(f"its image is not {guest.image}")
    if shown.memory_kib != guest.memory_kib:
        memory = format_size(shown.memory_kib)
        different.append(f"memory is {memory}, not {format_size(guest.memory_kib)}")
    for name, value in (
        ("vcpus", guest.vcpus),
        ("on_reboot", guest.on_reboot),
        ("on_crash", guest.on_crash),
        ("command_line", config.kernel_arguments(guest)),
    ):
        found = getattr(shown, name)
        if found != value:
            different.append(f'{name} is "{found}", not "{value}"')
    return different
