"""Tenants as xoar.toml declares them: what their guests may have, and what is delegated to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from xoar.host import devices, values
from xoar.host.devices import Driver, Network
from xoar.host.tables import Table, nearest
from xoar.messages.records import DELEGATION

MAX_DELEGATED = dict(DELEGATION.fields)["networks"].maximum
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?")


@dataclass(frozen=True)
class Delegated:
    """What a tenant may have of a driver domain: `networks` of a NetBack; of a BlkBack the KiB that its
    volumes may have together, and `images`, the volumes of the host that it may clone."""

    networks: tuple[str, ...] = ()
    volumes_kib: int = 0
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tenant:
    """What the guests of a tenant may have together."""

    name: str
    memory_kib: int
    vcpus: int
    guests: int
    devices: int = 16
    delegated: Mapping[str, Delegated] = field(default_factory=dict)
    """By the driver domain's name."""


def read_tenant(table: Table, drivers: Mapping[str, Driver], networks: Mapping[str, Network]) -> Tenant:
    """A table [tenants.NAME]. Raises ConfigError."""
    name = table.own_name
    if not _NAME.fullmatch(name):
        table.fail(
            None, f'"{name}" is no name for a tenant: use 1 to 16 letters a-z, digits and hyphens within'
        )
    entries = table.entries("delegated", "driver", devices.MAX_DRIVERS)
    delegated = dict(_delegated(entry, drivers, networks) for entry in entries)
    if len(delegated) < len(entries):
        table.fail("delegated", f"a driver domain is delegated to {name} twice")
    tenant = Tenant(
        name,
        table.parsed("memory", "1GiB", values.guest_memory_kib),
        table.number("vcpus", 8, 1, 4096),
        table.number("guests", 8, 1, 200),
        table.number("devices", 16, 0, 3200),
        delegated,
    )
    table.end()
    return tenant


def _delegated(
    table: Table, drivers: Mapping[str, Driver], networks: Mapping[str, Network]
) -> tuple[str, Delegated]:
    name = table.choose("driver", "drivers", drivers)
    if name is None:
        table.fail(None, 'what is delegated needs a driver domain, such as driver = "net0"')
    if drivers[name].kind == devices.NETBACK:
        found = Delegated(networks=tuple(table.texts("networks")))
        known = [network.name for network in networks.values() if network.driver == name]
        for network in found.networks:
            if network not in known:
                table.fail("networks", f"{name} has no network {network}.{nearest(network, known)}")
    else:
        room = table.parsed("volumes", "0", volumes_kib, "20GiB")
        found = Delegated(volumes_kib=room, images=tuple(table.texts("images")))
    if max(len(found.networks), len(found.images)) > MAX_DELEGATED:
        table.fail(None, f"at most {MAX_DELEGATED} networks or images can be delegated")
    table.end()
    return name, found


def volumes_kib(text: str) -> int:
    """KiB of "20GiB", or of "0". Raises ValueError."""
    return 0 if text == "0" else values.parse_volume_size(text)
