"""Devices in a configuration: driver domains, networks, volumes, guests' disks and interfaces.

What they mean to the host is docs/devices.md; how they are written docs/operators.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from xoar.host.tables import Table, nearest, parse_size
from xoar.messages.errors import MessageError
from xoar.messages.schema import DISK_MODE, FORWARD, NAME, NETWORK, NETWORK_MODE

NETBACK = "netback"
BLKBACK = "blkback"
MODELS = {NETBACK: ("e1000e", "virtio-net"), BLKBACK: ("nvme", "ahci")}
"""The emulated devices that a kind of driver domain can have; the first one is the default."""
MAX_DRIVERS = 26  # their domids are 6 to 31
MAX_DEVICES = 8
"""Disks, and network interfaces, of one guest, as in the message guest_create."""

_DEFAULT_DISK = "16GiB"
_LETTERS = "abcdefghijklmnop"  # xvda to xvdp
_DRIVER_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")  # as the names of QEMU's devices
_BDF = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_PREFIXES = range(16, 30)  # of the subnets of nat networks
# RFC 1918 and RFC 6598
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_XEN_OUI = bytes((0x00, 0x16, 0x3E))


@dataclass(frozen=True)
class Driver:
    """A driver domain. `device` is a PCI address where the hardware is real, `model` and `size_kib` (of a
    BlkBack's data disk) are the emulated device's; `memory_kib` is None where its manifest decides."""

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


# values


def parse_bdf(text: str) -> str:
    """A PCI function such as 0000:03:00.0. Raises ValueError."""
    if not _BDF.fullmatch(text):
        raise ValueError(f'"{text}" is no PCI function: write it like "0000:03:00.0"')
    return text


def parse_mac(text: str) -> bytes:
    """A MAC address of one station, such as 00:16:3e:01:02:03. Raises ValueError."""
    raw = bytes.fromhex(text.replace(":", "")) if _MAC.fullmatch(text) else b""
    if not raw or raw[0] & 1 or not any(raw):
        raise ValueError(f'"{text}" is no MAC address of one interface, such as "00:16:3e:01:02:03"')
    return raw


def format_mac(mac: bytes) -> str:
    """As `parse_mac` reads it."""
    return mac.hex(":")


def generated_mac(host: str, guest: str, index: int) -> bytes:
    """The MAC address of a guest's interface that was given none: always the same, with Xen's prefix."""
    digest = hashlib.sha256(f"{host}/{guest}/{index}".encode()).digest()
    return _XEN_OUI + bytes((digest[0] & 0x7F,)) + digest[1:3]


def parse_address(text: str) -> str:
    """An IPv4 address. Raises ValueError."""
    try:
        first = IPv4Address(text).packed[0]
    except ValueError:
        first = 0
    # 0.0.0.0/8, 127.0.0.0/8, multicast and above are no interface's
    if first in (0, 127) or first >= 224:
        raise ValueError(f'"{text}" is no IPv4 address such as "10.0.2.20"')
    return text


def parse_interface(text: str) -> tuple[str, int]:
    """Address and prefix length of 10.0.2.20/24; of an address alone 24. Raises ValueError."""
    address, slash, length = text.partition("/")
    prefix = _number(length) if slash else 24
    if not 8 <= prefix <= 30:
        raise ValueError(f'"{text}": the length of a prefix is 8 to 30, as in "10.0.2.20/24"')
    return parse_address(address), prefix


def parse_device(text: str) -> str:
    """A disk's name in the guest. Raises ValueError."""
    if len(text) != 4 or not text.startswith("xvd") or text[3] not in _LETTERS:
        raise ValueError(f'"{text}" is no disk of a guest: xvda to xvdp')
    return text


def parse_target(text: str) -> tuple[str, int]:
    """Address and port of 10.9.0.10:22. Raises ValueError."""
    address, _, digits = text.partition(":")
    port = _number(digits)
    if not 1 <= port <= 65535:
        raise ValueError(f'"{text}" is no address and port such as "10.9.0.10:22"')
    return parse_address(address), port


def parse_forward(text: str) -> Forward:
    """A forwarded port written as 2222:10.9.0.10:22. Raises ValueError."""
    digits, _, target = text.partition(":")
    outer = _number(digits)
    if not 1 <= outer <= 65535:
        raise ValueError(f'"{text}" is no forwarded port such as "2222:10.9.0.10:22"')
    return Forward(outer, *parse_target(target))


def _number(text: str) -> int:
    """A number of up to five digits; -1 if it is none."""
    return int(text) if _NUMBER.fullmatch(text) else -1


def parse_rate(text: str) -> int:
    """KiB/s of a rate such as 10MiB (per second). Raises ValueError."""
    kib = parse_size(text)
    if kib >= 1 << 32:
        raise ValueError(f'"{text}": a rate is less than 4TiB a second')
    return kib


def parse_volume_size(text: str) -> int:
    """KiB of a volume or a disk. Raises ValueError."""
    kib = parse_size(text)
    if not 1 << 10 <= kib <= 1 << 40:
        raise ValueError(f'"{text}": a volume has 1MiB to 1024TiB')
    return kib


def lettered(disks: Iterable[Disk]) -> tuple[Disk, ...]:
    """The disks with a device each: those that have none get the free ones in order."""
    entries = list(disks)
    free = (f"xvd{letter}" for letter in _LETTERS)
    taken = {disk.device for disk in entries}
    spare = (device for device in free if device not in taken)
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
        table.parsed("device", "", lambda text: parse_bdf(text) if text else None, "0000:03:00.0"),
        table.parsed("size", _DEFAULT_DISK, parse_volume_size) if kind == BLKBACK else 0,
        table.parsed("memory", "", _driver_memory_kib, "96MiB"),
        table.line,
    )
    table.end()
    return driver


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
        forwards.append(Forward(outer, *entry.parsed("to", "", parse_target, "10.9.0.10:22")))
        entry.end()
    table.end()
    network = replace(network, forwards=tuple(forwards))
    if fault := network_fault(network):
        table.fail(None, f"network {name}: {fault}")
    return network


def read_volume(table: Table, drivers: Mapping[str, Driver], images: Iterable[str]) -> Volume:
    """[volumes.NAME]; `images` are those with a disk."""
    name = table.name("volume")
    size = table.parsed("size", "", lambda text: parse_volume_size(text) if text else 0, "10GiB")
    driver = _driver(table, drivers, BLKBACK, f"volume {name}")
    volume = Volume(name, driver, size, table.choose("image", "images", images) or "", table.line)
    table.end()
    if not volume.size_kib and not volume.image:
        table.fail(None, f'volume {name} needs a size or an image: size = "10GiB"')
    return volume


def read_disk(table: Table, drivers: Mapping[str, Driver], volumes: Mapping[str, Volume]) -> Disk:
    """An entry of `disks`. A volume that is not in the file needs its driver."""
    volume = _reference(table, "volume")
    driver = table.choose("driver", "drivers", _of_kind(drivers, BLKBACK)) or ""
    if volume in volumes:
        declared = volumes[volume].driver
        if driver and driver != declared:
            table.fail("driver", f"volume {volume} is on {declared}, not on {driver}")
        driver = declared
    elif not driver:
        text = f'there is no [volumes.{volume}] in this file; one that is elsewhere needs driver = "name".'
        table.fail("volume", text + nearest(volume, volumes))
    return _disk(table, volume, driver)


def read_any_disk(table: Table) -> Disk:
    """The same where there is no file: any volume will do, and any driver."""
    return _disk(table, _reference(table, "volume"), table.text("driver", ""))


def _disk(table: Table, volume: str, driver: str) -> Disk:
    device = table.parsed("device", "", lambda text: parse_device(text) if text else "", "xvdb")
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
        "address", "", lambda text: parse_interface(text) if text else ("", 24), "10.0.2.20/24"
    )
    nic = Nic(
        network,
        table.parsed("mac", "", lambda text: parse_mac(text) if text else None, "00:16:3e:01:02:03"),
        address,
        prefix,
        table.parsed("gateway", "", _optional_address, "10.0.2.2"),
        table.parsed("dns", "", _optional_address, "10.0.2.3"),
        table.parsed("rate", "", lambda text: parse_rate(text) if text else 0, "10MiB"),
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
    return parse_address(text) if text else ""


def read_cloud_init(table: Table) -> CloudInit:
    """[guests.NAME.cloud-init]"""
    user = table.text("user", "xoar")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        table.fail("user", f'user = "{user}" is no name of a user')
    keys = tuple(
        text if is_key(text) else table.absolute("ssh_keys", text) for text in table.texts("ssh_keys")
    )
    hostname = table.text("hostname", "")
    if hostname and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", hostname):
        table.fail("hostname", f'hostname = "{hostname}": use up to 63 letters a-z, digits, hyphens within')
    told = CloudInit(user, keys, hostname, table.path("user_data"))
    table.end()
    return told


def is_key(text: str) -> bool:
    """Whether a text is a public SSH key, not the name of a file."""
    return text.startswith(("ssh-", "ecdsa-", "sk-")) and " " in text


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
    if given is None and len(names) != 1:
        have = f"there are several of kind {kind}" if names else f"there is no [drivers.NAME] of kind {kind}"
        table.fail(None, f'{what} needs a driver: driver = "{names[0] if names else "name"}" ({have})')
    return given or names[0]
