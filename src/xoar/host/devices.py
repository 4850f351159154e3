"""Devices in a configuration: driver domains, networks, volumes, guests' disks and interfaces.

What they mean to the host is docs/devices.md; how they are written docs/operators.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from xoar.host import values
from xoar.host.tables import Table, nearest, parse_size
from xoar.messages.errors import MessageError
from xoar.messages.records import DISK_MODE, FORWARD, NAME, NETWORK, NETWORK_MODE
from xoar.privilege.bootplan import UNASSIGNED

NETBACK = "netback"
BLKBACK = "blkback"
MODELS = {NETBACK: ("e1000e", "virtio-net"), BLKBACK: ("nvme", "ahci")}
"""The emulated devices that a kind of driver domain can have; the first one is the default."""
MAX_DRIVERS = 24  # their domids are 8 to 31
MAX_DEVICES = 8
"""Disks, and network interfaces, of one guest, as in the message guest_create."""

_DEFAULT_DISK = "16GiB"
_DRIVER_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")  # as the names of QEMU's devices
_PREFIXES = range(16, 30)  # of the subnets of nat networks
# RFC 1918 and RFC 6598
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))


@dataclass(frozen=True)
class Driver:
    """A driver domain. `device` is a PCI address where the hardware is real, or UNASSIGNED; `model` and
    `size_kib` (of a BlkBack's data disk) are the emulated device's, which is there in any case; `memory_kib`
    is None where its manifest decides."""

    name: str
    kind: str
    model: str
    device: str | None = None
    size_kib: int = 16 << 20
    memory_kib: int | None = None
    line: int = 0


@dataclass(frozen=True)
class Forward:
    """A TCP port of the host that leads to a guest in a nat network."""

    outer_port: int
    address: str
    port: int


@dataclass(frozen=True)
class Network:
    """What guests' interfaces are connected to. `subnet` and `forwards` are for mode nat."""

    name: str
    driver: str
    mode: str = "bridge"
    vlan: int = 0
    subnet: str = ""
    forwards: tuple[Forward, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A volume: blank and of `size_kib`, or a copy of an image, then grown to `size_kib` if that is more.
    `driver` is "" for the only BlkBack there is."""

    name: str
    driver: str = ""
    size_kib: int = 0
    image: str = ""
    line: int = 0


@dataclass(frozen=True)
class Disk:
    """A guest's disk; `device` is "" for the next free one, `driver` for the only one that has the volume."""

    volume: str
    device: str = ""
    mode: str = "w"
    driver: str = ""


@dataclass(frozen=True)
class Nic:
    """A guest's interface. `address` is the only one it may use ("": any), `prefix` the length of its
    subnet's prefix; with a gateway cloud-init sets it, else DHCP. `rate_kib` is in KiB/s, 0: no limit."""

    network: str
    mac: bytes | None = None
    address: str = ""
    prefix: int = 24
    gateway: str = ""
    dns: str = ""
    rate_kib: int = 0


@dataclass(frozen=True)
class CloudInit:
    """What a guest's cloud-init is told. `ssh_keys` are keys as texts, or files that hold some."""

    user: str = "xoar"
    ssh_keys: tuple[str | Path, ...] = ()
    hostname: str = ""
    user_data: Path | None = None


def parse_forward(text: str) -> Forward:
    """A forwarded port written as 2222:10.9.0.10:22. Raises ValueError."""
    digits, _, target = text.partition(":")
    outer = values.parse_number(digits)
    if not 1 <= outer <= 65535:
        raise ValueError(f'"{text}" is no forwarded port such as "2222:10.9.0.10:22"')
    return Forward(outer, *values.parse_target(target))


def lettered(disks: Iterable[Disk]) -> tuple[Disk, ...]:
    """The disks with a device each: those that have none get the free ones in order."""
    entries = list(disks)
    taken = {disk.device for disk in entries}
    spare = (device for device in values.DISKS if device not in taken)
    return tuple(disk if disk.device else replace(disk, device=next(spare)) for disk in entries)


def network_fault(network: Network) -> str:
    """What is wrong with a network by itself; "" if nothing is. The Toolstack's rules, told earlier."""
    if network.mode == "bridge":
        return "a bridge has no subnet and no forwards" if network.subnet or network.forwards else ""
    try:
        subnet = IPv4Network(network.subnet)
    except ValueError:
        subnet = None
    if (
        subnet is None
        or subnet.prefixlen not in _PREFIXES
        or not any(map(subnet.subnet_of, _PRIVATE))
        or network.subnet != str(subnet)
    ):
        return f'"{network.subnet}" is no private IPv4 subnet of /16 to /29, such as "10.9.0.0/24"'
    ports = [forward.outer_port for forward in network.forwards]
    for forward in network.forwards:
        # the first address is NetBack's
        if not subnet[1] < IPv4Address(forward.address) < subnet[-1]:
            return f"port {forward.outer_port} leads to {forward.address}, no guest's address in {subnet}"
        if not forward.outer_port or ports.count(forward.outer_port) > 1:
            return f"port {forward.outer_port} is forwarded twice, or is none"
    return ""


def network_record(network: Network) -> object:
    """The network as requests carry it."""
    forwards = [FORWARD.value(entry.outer_port, entry.address, entry.port) for entry in network.forwards]
    return NETWORK.value(
        network.name, network.driver, network.mode, network.vlan, network.subnet, forwards, ""
    )


# tables


def read_driver(table: Table) -> Driver:
    """[drivers.NAME]"""
    name = table.own_name
    if not _DRIVER_NAME.fullmatch(name) or name.endswith("-exchange"):
        table.fail(
            None, f'"{name}" is no name for a driver domain: a letter, then up to 31 of a-z, 0-9, _ . -'
        )
    kind = table.choice("kind", None, tuple(MODELS))
    if kind is None:
        table.fail(None, f'driver domain {name} needs a kind: kind = "{NETBACK}" or "{BLKBACK}"')
    driver = Driver(
        name,
        kind,
        table.choice("model", MODELS[kind][0], MODELS[kind]),
        table.parsed("device", "", _device, "0000:03:00.0"),
        table.parsed("size", _DEFAULT_DISK, values.parse_volume_size) if kind == BLKBACK else 0,
        table.parsed("memory", "", _driver_memory_kib, "96MiB"),
        table.line,
    )
    table.end()
    return driver


def _device(text: str) -> str | None:
    if text in ("", UNASSIGNED):
        return text or None
    return values.parse_bdf(text)


def _driver_memory_kib(text: str) -> int | None:
    if not text:
        return None
    kib = parse_size(text)
    if kib % 4 or not 64 << 10 <= kib <= 4 << 20:
        raise ValueError(f'"{text}": a driver domain has 64MiB to 4GiB of memory, in whole pages (4KiB)')
    return kib


def read_network(table: Table, drivers: Mapping[str, Driver]) -> Network:
    """[networks.NAME]"""
    name = table.name("network")
    forwards = []
    network = Network(
        name,
        _driver(table, drivers, NETBACK, f"network {name}"),
        table.choice("mode", "bridge", NETWORK_MODE.words),
        table.number("vlan", 0, 0, 4094),
        table.text("subnet", ""),
    )
    for entry in table.entries("forwards", "to", 16):
        outer = entry.number("port", 0, 0, 65535)
        forwards.append(Forward(outer, *entry.parsed("to", "", values.parse_target, "10.9.0.10:22")))
        entry.end()
    table.end()
    network = replace(network, forwards=tuple(forwards))
    if "." in name:
        table.fail(None, f"network {name}: a network's name has no dots")
    if fault := network_fault(network):
        table.fail(None, f"network {name}: {fault}")
    return network


def read_volume(table: Table, drivers: Mapping[str, Driver], images: Iterable[str]) -> Volume:
    """[volumes.NAME]; `images` are those with a disk."""
    name = table.name("volume")
    size = table.parsed("size", "", lambda text: values.parse_volume_size(text) if text else 0, "10GiB")
    driver = _driver(table, drivers, BLKBACK, f"volume {name}")
    volume = Volume(name, driver, size, table.choose("image", "images", images) or "", table.line)
    table.end()
    if not volume.size_kib and not volume.image:
        table.fail(None, f'volume {name} needs a size or an image: size = "10GiB"')
    return volume


def read_disk(
    table: Table, drivers: Mapping[str, Driver], volumes: Mapping[str, Volume], root: str = ""
) -> Disk:
    """An entry of `disks`. A volume that is neither in the file nor the guest's `root` needs its driver."""
    volume = _reference(table, "volume")
    driver = table.choose("driver", "drivers", _of_kind(drivers, BLKBACK)) or ""
    if volume in volumes:
        declared = volumes[volume].driver
        if driver and driver != declared:
            table.fail("driver", f"volume {volume} is on {declared}, not on {driver}")
        driver = declared
    elif not driver and volume == root:
        driver = _only(table, _of_kind(drivers, BLKBACK), BLKBACK, f"volume {volume}")
    elif not driver:
        text = f'there is no [volumes.{volume}] in this file; one that is elsewhere needs driver = "name".'
        table.fail("volume", text + nearest(volume, volumes))
    return _disk(table, volume, driver)


def read_any_disk(table: Table) -> Disk:
    """The same where there is no file: any volume will do, and any driver."""
    return _disk(table, _reference(table, "volume"), table.text("driver", ""))


def _disk(table: Table, volume: str, driver: str) -> Disk:
    device = table.parsed("device", "", lambda text: values.parse_device(text) if text else "", "xvdb")
    disk = Disk(volume, device, table.choice("mode", "w", DISK_MODE.words), driver)
    table.end()
    return disk


def read_nic(table: Table, networks: Mapping[str, Network] | None) -> Nic:
    """An entry of `nics`; any network will do if `networks` is None."""
    network = _reference(table, "network")
    if networks is not None and network not in networks:
        text = f"there is no [networks.{network}] in this file.{nearest(network, networks)}"
        table.fail("network", text)
    address, prefix = table.parsed(
        "address", "", lambda text: values.parse_interface(text) if text else ("", 24), "10.0.2.20/24"
    )
    nic = Nic(
        network,
        table.parsed("mac", "", lambda text: values.parse_mac(text) if text else None, "00:16:3e:01:02:03"),
        address,
        prefix,
        table.parsed("gateway", "", _optional_address, "10.0.2.2"),
        table.parsed("dns", "", _optional_address, "10.0.2.3"),
        table.parsed("rate", "", lambda text: values.parse_rate(text) if text else 0, "10MiB"),
    )
    table.end()
    if nic.gateway and not nic.address:
        table.fail("gateway", "a gateway needs an address: without one the guest asks by DHCP")
    if networks is not None and networks[network].mode == "nat" and nic.address:
        nic = _in_subnet(table, nic, networks[network].subnet)
    return nic


def _in_subnet(table: Table, nic: Nic, subnet: str) -> Nic:
    """A static interface in a nat network: NetBack is the gateway, and answers for names."""
    net = IPv4Network(subnet)
    if IPv4Address(nic.address) not in net:
        table.fail("address", f"{nic.address} is not in the network's subnet, {subnet}")
    return replace(nic, prefix=net.prefixlen, gateway=nic.gateway or str(net[1]))


def _optional_address(text: str) -> str:
    return values.parse_address(text) if text else ""


def read_cloud_init(table: Table) -> CloudInit:
    """[guests.NAME.cloud-init]"""
    user = table.text("user", "xoar")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        table.fail("user", f'user = "{user}" is no name of a user')
    keys = tuple(
        text if values.is_key(text) else table.absolute("ssh_keys", text) for text in table.texts("ssh_keys")
    )
    hostname = table.text("hostname", "")
    if hostname and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", hostname):
        table.fail("hostname", f'hostname = "{hostname}": use up to 63 letters a-z, digits, hyphens within')
    told = CloudInit(user, keys, hostname, table.path("user_data"))
    table.end()
    return told


def _reference(table: Table, key: str) -> str:
    value = table.take(key, str, None, '"name"')
    try:
        NAME.encode(value)
    except MessageError as error:
        table.fail(key, f"{key}: {error}" if value is not None else f'{key} = "name" is missing here')
    return str(value)


def _of_kind(drivers: Mapping[str, Driver], kind: str) -> list[str]:
    return [driver.name for driver in drivers.values() if driver.kind == kind]


def _driver(table: Table, drivers: Mapping[str, Driver], kind: str, what: str) -> str:
    """The driver domain that a table names, or the only one of that kind."""
    names = _of_kind(drivers, kind)
    given = table.choose("driver", "drivers", drivers)
    if given is not None and given not in names:
        table.fail("driver", f"{given} is a {drivers[given].kind}; {what} needs a {kind}")
    return given or _only(table, names, kind, what)


def _only(table: Table, names: list[str], kind: str, what: str) -> str:
    if len(names) != 1:
        have = f"there are several of kind {kind}" if names else f"there is no [drivers.NAME] of kind {kind}"
        table.fail(None, f'{what} needs a driver: driver = "{names[0] if names else "name"}" ({have})')
    return names[0]
