"""Brings about what guests need before they are created: networks, volumes, the disk for cloud-init."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from xoar.host import devices, seed, ssh, values, volumes
from xoar.host.client import Client, TimedOut
from xoar.host.config import Config, Guest, Image
from xoar.host.devices import CloudInit, Disk, Network, Nic, Volume
from xoar.host.errors import NotFound
from xoar.host.progress import Reporter
from xoar.host.tables import nearest
from xoar.host.tenancy import Delegated
from xoar.messages.records import DELEGATION, DISK, NAMED, NIC

_START_SECONDS = 300.0  # PCIBack's claim and a driver domain's start may take 120 s each
_LOOK = 0.5  # seconds between two looks at driver domains that start
_DECIDED = ("ready", "failed", "unassigned")


@dataclass(frozen=True)
class Plugged:
    """What a guest is created with: `disk` and `nic` records of the schema."""

    disks: list[Any]
    nics: list[Any]


class Provision:
    """What a running host has of a configuration's networks and volumes, and makes what is missing."""

    def __init__(self, client: Client, config: Config, show: Reporter) -> None:
        self._client = client
        self._config = config
        self._show = show
        self._ready: set[str] = set()

    def network(self, network: Network) -> None:
        """Creates a network, or says how the one of that name differs. Raises HostError."""
        wanted: Any = devices.network_record(network)
        for there in self._client.networks():
            if there.name == network.name:
                if there[:-1] != wanted[:-1]:  # all but the state
                    self._show.say(
                        f"network {network.name} differs from {self._config.path}"
                        f" (xoar network delete {network.name}, then xoar up, applies it)"
                    )
                return
        self._client.request("network_create", network=wanted)
        self._show.say(f"network {network.name} is there")

    def delegation(self, tenant: str, driver: str, wanted: Delegated) -> None:
        """Delegates a driver domain to a tenant, or says how it is delegated. Raises HostError."""
        for network in wanted.networks:
            self.network(self._config.networks[network])
        images = [self._image_volume(driver, name) for name in wanted.images]
        record = delegation_record(tenant, driver, replace(wanted, images=tuple(images)))
        for there in self._client.delegations():
            if (there.tenant, there.driver) == (tenant, driver):
                if there != record:
                    self._show.say(
                        f"what tenant {tenant} may have of {driver} differs from {self._config.path}"
                        f" (xoar tenant delegate {tenant} {driver} ... changes it)"
                    )
                return
        self._client.request("delegate", **record._asdict())
        self._show.say(f"{driver} is delegated to tenant {tenant}")

    def _image_volume(self, driver: str, name: str) -> str:
        """The volume of an image of the configuration, which is made if it is missing, or of that name."""
        image = self._config.images.get(name)
        if image is None or not image.is_disk:
            return name
        self._wait(driver)
        source, _ = volumes.of_image(self._client, driver, image, self._client.volumes(), self._show)
        return str(source)

    def volume(self, volume: Volume) -> bool:
        """Creates a volume if it is missing; whether it was. Raises HostError."""
        driver = volume.driver or volumes.only_driver(self._client, "")
        self._wait(driver)
        known = self._client.volumes()
        if any((entry.driver, entry.name) == (driver, volume.name) for entry in known):
            return False
        if not volume.image:
            volumes.change(self._client, driver, "create", volume.name, size_kib=volume.size_kib)
        else:
            image = self._image(volume.image)
            source, size_kib = volumes.of_image(self._client, driver, image, known, self._show)
            volumes.change(self._client, driver, "clone", volume.name, source=source)
            if volume.size_kib > size_kib:
                volumes.change(self._client, driver, "grow", volume.name, size_kib=volume.size_kib)
        self._show.say(f"volume {volume.name} is there")
        for guest in self._config.guests.values():
            if [disk.volume for disk in root_and_others(self._config, guest)][:1] == [volume.name]:
                ssh.forget(self._client.host, guest.name)
        return True

    def guest(self, guest: Guest) -> Plugged:
        """Makes all that the guest needs. Raises HostError."""
        for nic in guest.nics:
            # a tenant's operator makes none: networks are delegated
            if nic.network in self._config.networks and not self._client.tenant:
                network = self._config.networks[nic.network]
                self.network(network)
                self._wait(network.driver)
        disks = [self._located(disk) for disk in root_and_others(self._config, guest)]
        for index, disk in enumerate(disks):
            root = index == 0 and _boots_from_disk(self._config, guest)
            volume = self._config.volumes.get(disk.volume)
            if volume is None and root:
                volume = Volume(disk.volume, disk.driver, image=guest.image)
            if volume is not None and self.volume(volume) and root:
                ssh.forget(self._client.host, guest.name)
        nics = addressed(self._client.host.name, guest)
        if needs_seed(self._config, guest):
            disks = [*disks, self._seed(guest, nics, disks[0].driver if disks else "")]
        for disk in disks:
            self._wait(disk.driver)
        return Plugged([disk_record(disk) for disk in disks], [nic_record(nic) for nic in nics])

    def _located(self, disk: Disk) -> Disk:
        """The disk with its driver: as said, else where the volume is, else the only one."""
        if disk.driver:
            return disk
        if disk.volume in self._config.volumes:
            return replace(disk, driver=self._config.volumes[disk.volume].driver)
        try:
            return replace(disk, driver=volumes.find(self._client, disk.volume).driver)
        except NotFound:
            return replace(disk, driver=volumes.only_driver(self._client, ""))

    def _image(self, name: str) -> Image:
        image = self._config.images.get(name)
        if image is None or not image.is_disk:
            known = [image.name for image in self._config.images.values() if image.is_disk]
            raise NotFound(f"there is no image {name} of a disk.{nearest(name, known)}")
        return image

    def _seed(self, guest: Guest, nics: Iterable[Nic], driver: str) -> Disk:
        """The disk with the guest's cloud-init data; one with other data is removed."""
        driver = driver or volumes.only_driver(self._client, "")
        self._wait(driver)
        made = seed.seed(
            self._client.host.name, guest.name, guest.cloud_init or CloudInit(), list(nics), ssh.public_key()
        )
        name = f"{seed_name(guest)}{made.digest}"
        ours = re.compile(f"{re.escape(seed_name(guest))}[0-9a-f]{{12}}")
        there = {
            entry.name: entry
            for entry in self._client.volumes()
            if entry.driver == driver and ours.fullmatch(entry.name)
        }
        for old in there.values():
            if old.name != name or old.state != volumes.OK:
                volumes.change(self._client, driver, "delete", old.name)
        if name not in there or there[name].state != volumes.OK:
            volumes.import_bytes(self._client, driver, name, made.iso(), self._show)
            ssh.forget(self._client.host, guest.name)
        others = root_and_others(self._config, guest)
        return devices.lettered([*others, Disk(name, mode="r", driver=driver)])[-1]

    def _wait(self, driver: str) -> None:
        """Waits until a driver domain serves or has failed: then what needs it is refused."""
        if driver not in self._ready:
            wait_decided(self._client, driver, self._show)
            self._ready.add(driver)


def wait_decided(client: Client, name: str, show: Reporter) -> None:
    """Waits until a driver domain is ready or has failed. Raises HostError, TimedOut."""
    deadline = time.monotonic() + _START_SECONDS

    def state() -> str:
        found = {driver.name: driver.state for driver in client.drivers()}
        if name not in found:
            raise NotFound(
                f"host {client.host.name} has no driver domain {name}.{nearest(name, found)}",
                hint="New ones are added by: xoar down, xoar up",
            )
        return str(found[name])

    if state() in _DECIDED:
        return
    with show.step(f"waiting for driver domain {name}"):
        while state() not in _DECIDED:
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"driver domain {name} has not started for {_START_SECONDS:.0f} s",
                    hint=f"See: xoar driver list, xoar logs {name}",
                )
            time.sleep(_LOOK)


def _boots_from_disk(config: Config, guest: Guest) -> bool:
    image = config.images.get(guest.image)
    return image is not None and image.is_disk


def needs_seed(config: Config, guest: Guest) -> bool:
    """Whether the guest gets a disk for cloud-init: if something is said, or it boots from its own disk."""
    return guest.cloud_init is not None or _boots_from_disk(config, guest)


def seed_name(guest: Guest) -> str:
    """How the name of a guest's volume for cloud-init begins; 12 hexadecimal digits follow."""
    return f"{guest.name[:46]}.seed-"


def root_and_others(config: Config, guest: Guest) -> tuple[Disk, ...]:
    """A guest's disks with devices; one that boots from disk, and has none said, has one with its name."""
    if _boots_from_disk(config, guest) and not guest.disks:
        return devices.lettered([Disk(guest.name)])
    return devices.lettered(guest.disks)


def addressed(host: str, guest: Guest) -> list[Nic]:
    """A guest's interfaces with a MAC address each."""
    return [
        replace(nic, mac=nic.mac or values.generated_mac(host, guest.name, index))
        for index, nic in enumerate(guest.nics)
    ]


def delegation_record(tenant: str, driver: str, delegated: Delegated) -> Any:
    """What is delegated as requests carry it."""
    named = [[NAMED.value(name) for name in names] for names in (delegated.networks, delegated.images)]
    return DELEGATION.value(driver, tenant, named[0], delegated.volumes_kib, named[1])


def disk_record(disk: Disk) -> Any:
    """The disk as requests carry it."""
    return DISK.value(disk.device, disk.driver, disk.volume, disk.mode)


def nic_record(nic: Nic) -> Any:
    """The interface as requests carry it."""
    return NIC.value(nic.network, nic.mac, nic.address, nic.rate_kib)
