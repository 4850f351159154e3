"""Guests of a running host: creating one, and converging to a configuration."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from xoar.builder.library import KERNEL, RAMDISK
from xoar.host.client import BUILD_SECONDS, Client, RequestRefused
from xoar.host.config import Config, Guest, format_size, nearest
from xoar.host.errors import HostError, NotFound
from xoar.host.progress import Reporter
from xoar.host.provision import Plugged, Provision, addressed, root_and_others, seed_name
from xoar.host.state import LAUNCH, Host
from xoar.host.values import format_mac
from xoar.messages.records import NO_IMAGE

GRUB = "grub"
"""The image that boots a guest from its own disk."""

Library = Mapping[str, tuple[bytes, bytes]]
"""Image name -> digests of its kernel and its ramdisk (NO_IMAGE: it has none)."""


def library(client: Client) -> Library:
    """The guests' images in a running host's library."""
    entries = client.images()
    ramdisks = {entry.name: entry.digest for entry in entries if entry.kind == RAMDISK}
    return {
        entry.name: (entry.digest, ramdisks.get(entry.name, NO_IMAGE))
        for entry in entries
        if entry.kind == KERNEL
    }


def shown(client: Client) -> list[Any]:
    """All guests with their devices, as the message `guest`; without those that end meanwhile."""
    found = []
    for entry in client.guests():
        try:
            found.append(client.request("guest_show", name=entry.name).fields)
        except RequestRefused as error:
            if not error.absent:
                raise
    return found


def boot_image(config: Config, guest: Guest) -> str:
    """The image of the library that a guest is built from: its own, or the one that boots its disk."""
    image = config.images.get(guest.image)
    return GRUB if image is not None and image.is_disk else guest.image


def create(
    client: Client,
    config: Config,
    guest: Guest,
    images: Library | None = None,
    provision: Provision | None = None,
) -> int:
    """Builds and starts a guest; its domid. Makes networks and volumes that it needs and that are missing.

    `images` and `provision` are given where many guests are created. Raises NotFound for an unknown image,
    HostError.
    """
    known = library(client) if images is None else images
    image = boot_image(config, guest)
    if image not in known:
        raise NotFound(
            f"host {client.host.name} has no image {image}.{nearest(image, known)}",
            hint=f"It has: {', '.join(known) or 'none'}. New ones are added by: xoar down, xoar up",
        )
    plugged = Plugged([], [])
    if guest.disks or guest.nics or guest.cloud_init or image != guest.image:
        plugged = (provision or Provision(client, config, Reporter())).guest(guest)
    kernel, ramdisk = known[image]
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
        group=guest.group,
        disks=plugged.disks,
        nics=plugged.nics,
    )
    domid: int = reply.fields.domid
    return domid


def converge(client: Client, config: Config, show: Reporter) -> bool:
    """Creates the configured networks, volumes and guests that are missing; says what else differs, and
    changes nothing of it.

    Returns whether all could be created; the reasons have been said.
    """
    say = show.say
    provision = Provision(client, config, show)
    existing = {guest.name: guest for guest in client.guests()}
    images = library(client)
    complete = True
    for name, image in config.images.items():
        if name not in images and not image.is_disk:
            say(f"image {name} is not in the running host's library (xoar down, then xoar up, adds it)")
    there = {driver.name: driver.kind for driver in client.drivers()}
    for driver in config.drivers.values():
        if there.get(driver.name) != driver.kind:
            say(f"the running host has no {driver.kind} {driver.name} (xoar down, then xoar up, adds it)")
    for what, make in _parts(config, provision):
        try:
            make()
        except HostError as error:
            say(f"{what} could not be created: {error}")
            complete = False
    for guest in config.guests.values():
        if guest.name in existing:
            shown = client.request("guest_show", name=guest.name).fields
            if different := differences(client.host.name, config, guest, shown, images):
                say(
                    f"guest {guest.name} differs from {config.path}: {'; '.join(different)}"
                    f" (xoar guest destroy {guest.name}, then xoar up, applies it)"
                )
            if shown.state == "kept":
                say(f"guest {guest.name} does not run: {shown.note} (xoar guest reboot {guest.name})")
        elif guest.autostart:
            try:
                domid = create(client, config, guest, images, provision)
            except HostError as error:
                say(f"guest {guest.name} could not be created: {error}")
                complete = False
            else:
                say(f"guest {guest.name} runs as domain {domid}")
    for name in existing:
        if name not in config.guests:
            say(f"guest {name} is not in {config.path}; it is left as it is")
    return complete


def _parts(config: Config, provision: Provision) -> list[tuple[str, Callable[[], object]]]:
    """What is created before the guests: (its name, what creates it)."""
    return [
        *((f"network {entry.name}", partial(provision.network, entry)) for entry in config.networks.values()),
        *((f"volume {entry.name}", partial(provision.volume, entry)) for entry in config.volumes.values()),
        *(
            (f"{driver} for tenant {entry.name}", partial(provision.delegation, entry.name, driver, wanted))
            for entry in config.tenants.values()
            for driver, wanted in entry.delegated.items()
        ),
    ]


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


def differences(host: str, config: Config, guest: Guest, shown: Any, images: Library) -> list[str]:
    """What of a running guest (the message `guest`) is not as configured, in words."""
    different = []
    image = boot_image(config, guest)
    if (shown.kernel, shown.ramdisk) != images.get(image, (shown.kernel, shown.ramdisk)):
        different.append(f"its image is not {guest.image}")
    if shown.memory_kib != guest.memory_kib:
        memory = format_size(shown.memory_kib)
        different.append(f"memory is {memory}, not {format_size(guest.memory_kib)}")
    for name, value in (
        ("vcpus", guest.vcpus),
        ("on_reboot", guest.on_reboot),
        ("on_crash", guest.on_crash),
        ("group", guest.group),
        ("command_line", config.kernel_arguments(guest)),
    ):
        found = getattr(shown, name)
        if found != value:
            different.append(f'{name} is "{found}", not "{value}"')
    for name, there, wanted in (
        ("disks", _disks(guest, shown), _wanted_disks(config, guest)),
        ("nics", _nics(shown), _wanted_nics(host, guest)),
    ):
        if there != wanted:
            different.append(f"{name}: {', '.join(there) or 'none'}, not {', '.join(wanted) or 'none'}")
    return different


def _disks(guest: Guest, shown: Any) -> list[str]:
    # what cloud-init is told is no difference that a running guest could see
    kept = [disk for disk in shown.disks if not disk.volume.startswith(seed_name(guest))]
    return sorted(f"{disk.device}={disk.volume}:{disk.mode}" for disk in kept)


def _wanted_disks(config: Config, guest: Guest) -> list[str]:
    return sorted(f"{disk.device}={disk.volume}:{disk.mode}" for disk in root_and_others(config, guest))


def _nics(shown: Any) -> list[str]:
    return sorted(f"{nic.network}={format_mac(nic.mac)} {nic.address}".strip() for nic in shown.nics)


def _wanted_nics(host: str, guest: Guest) -> list[str]:
    nics = addressed(host, guest)
    return sorted(f"{nic.network}={format_mac(nic.mac or b'')} {nic.address}".strip() for nic in nics)
