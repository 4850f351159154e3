"""`xoar.toml`: one host, the images it knows and the guests it should run.

Fails closed: an unknown key (with the nearest known one), a wrong type, an impossible value or a missing
file is a ConfigError with file and line. Reading touches nothing but the file itself; whether the files that
it names are there is `check_files`, which only `xoar up` needs. The format is in docs/operators.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from xoar.host import devices, values
from xoar.host.devices import CloudInit, Disk, Driver, Network, Nic, Volume
from xoar.host.errors import HostError
from xoar.host.tables import ConfigError as ConfigError
from xoar.host.tables import Table, parse_size
from xoar.host.tables import format_size as format_size
from xoar.host.tables import nearest as nearest
from xoar.host.tenancy import Tenant, read_tenant
from xoar.messages.errors import MessageError
from xoar.messages.records import COMMAND_LINE, GROUP, ON_CRASH, ON_REBOOT
from xoar.privilege.bootplan import MAX_TENANTS
from xoar.privilege.toml_lines import TomlLines

FILE = "xoar.toml"
DEFAULT_HOST = "xoar"
BUILTIN = ("debian", "tiny", "debian-xentools")
DEBIAN_DISK = "debian-disk"
DEFAULT_COMMAND_LINE = "console=hvc0"
DEFAULT_MEMORY = "128MiB"
DISK_MEMORY = "512MiB"
"""What guests that boot from their own disk have: a whole distribution."""

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")  # what an entry of the image library has room for


@dataclass(frozen=True)
class Host:
    """The machine: `memory_mib` and `cpus` are those of the emulated one."""

    name: str = DEFAULT_HOST
    memory_mib: int = 4096
    cpus: int = 2
    xen_source: Path | None = None


@dataclass(frozen=True)
class Image:
    """What guests boot: one that Xoar builds (`builtin`), or files; paths are absolute. One with a `disk` is
    what volumes are made from; its guests have their kernel there. `sha256` is its file's, "": any."""

    name: str
    builtin: str | None = None
    kernel: Path | None = None
    initramfs: Path | None = None
    command_line: str = DEFAULT_COMMAND_LINE
    line: int = 0
    disk: Path | None = None
    sha256: str = ""

    @property
    def is_disk(self) -> bool:
        """Whether this is an image of a disk, not a kernel."""
        return self.disk is not None or self.builtin == DEBIAN_DISK


@dataclass(frozen=True)
class Guest:
    """A guest; `command_line` follows the image's. `login` is who scripts on its console log in as. `group`
    are the guests that it shares driver domains with, "" those without one. `cloud_init` is None where
    nothing is said about it."""

    name: str
    image: str
    memory_kib: int = 128 << 10
    vcpus: int = 1
    command_line: str = ""
    on_reboot: str = "restart"
    on_crash: str = "keep"
    autostart: bool = True
    login: str = ""
    group: str = ""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    cloud_init: CloudInit | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Config:
    """A whole xoar.toml; `path` is None when there is none."""

    path: Path | None = None
    host: Host = Host()
    images: Mapping[str, Image] = field(default_factory=dict)
    guests: Mapping[str, Guest] = field(default_factory=dict)
    drivers: Mapping[str, Driver] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)

    def kernel_arguments(self, guest: Guest) -> str:
        """The whole kernel command line of a guest. Raises HostError if it is too long for a request."""
        image = self.images.get(guest.image, Image(guest.image))
        # the builtin guests take their host name from here
        name = f"hostname={guest.name}" if image.builtin and not image.is_disk else ""
        text = " ".join(part for part in (image.command_line, name, guest.command_line) if part)
        try:
            COMMAND_LINE.encode(text)
        except MessageError as error:
            raise HostError(f"the kernel command line of guest {guest.name}: {error}") from error
        return text

    def for_host(self, name: str | None, xen_source: Path | None = None) -> Config:
        """The same for a host of another name, or with another Xen; None leaves it as it is."""
        host = replace(
            self.host,
            name=name or self.host.name,
            xen_source=xen_source.absolute() if xen_source else self.host.xen_source,
        )
        return replace(self, host=host)


def group_name(text: str) -> str:
    """The name of a guest's group, or "" for none. Raises ValueError."""
    try:
        GROUP.encode(text)
    except MessageError as error:
        allowed = f"use up to {GROUP.maximum} of a-z, 0-9, _ . -, a letter or digit first"
        raise ValueError(f'"{text}" is no name for a group: {allowed}') from error
    return text


def find(path: Path | None) -> Path | None:
    """The file to read: the given one, else ./xoar.toml if it exists."""
    if path is not None:
        return path
    return Path(FILE) if Path(FILE).is_file() else None


def load(path: Path, added: Mapping[str, Image] | None = None) -> Config:
    """Reads a file and parses it, see `parse`. Raises ConfigError with the line, HostError if unreadable."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HostError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(path, line, "not UTF-8 text") from error
    return parse(text, path, added)


def parse(text: str, path: Path, added: Mapping[str, Image] | None = None) -> Config:
    """Parses the text of a file; relative paths in it start at its folder. Raises ConfigError.

    `added` are images that the file may name without declaring them: those that `xoar image add` keeps.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else max(1, text.count("\n"))
        raise ConfigError(path, line, f"not TOML: {error}") from error
    top = Table(document, path, TomlLines(text))
    host = _host(top.table("host"))
    images = {table.own_name: _image(table) for table in top.table("images").tables()}
    known = {**(added or {}), **images}
    drivers = {table.own_name: devices.read_driver(table) for table in top.table("drivers").tables()}
    if len(drivers) > devices.MAX_DRIVERS:
        top.fail("drivers", f"there are {len(drivers)} driver domains, at most {devices.MAX_DRIVERS}")
    networks = {
        table.own_name: devices.read_network(table, drivers) for table in top.table("networks").tables()
    }
    disk_images = [image.name for image in known.values() if image.is_disk]
    volumes = {
        table.own_name: devices.read_volume(table, drivers, disk_images)
        for table in top.table("volumes").tables()
    }
    tenants = {
        table.own_name: read_tenant(table, drivers, networks) for table in top.table("tenants").tables()
    }
    if len(tenants) > MAX_TENANTS:
        top.fail("tenants", f"there are {len(tenants)} tenants, at most {MAX_TENANTS}")
    parts = Config(path, host, known, {}, drivers, networks, volumes, tenants)
    guests = {table.own_name: _guest(table, parts) for table in top.table("guests").tables()}
    top.end()
    return replace(parts, guests=guests)


def check_files(config: Config) -> None:
    """Sees that the files and folders that a configuration names are there. Raises ConfigError, HostError."""
    source = config.host.xen_source
    if source is not None and not (source / "xen/include/public").is_dir():
        raise HostError(f"{source} is no Xen source tree: it has no folder xen/include/public")
    named: list[tuple[str, Path | str | None, int]] = []
    for image in config.images.values():
        for key, file in (("kernel", image.kernel), ("initramfs", image.initramfs), ("disk", image.disk)):
            named.append((f"{key} of image {image.name}", file, image.line))
    for guest in config.guests.values():
        told = guest.cloud_init or CloudInit()
        named += [(f"ssh_keys of guest {guest.name}", key, guest.line) for key in told.ssh_keys]
        named.append((f"user_data of guest {guest.name}", told.user_data, guest.line))
    for what, named_file, line in named:
        if isinstance(named_file, Path) and not named_file.is_file():
            assert config.path is not None
            raise ConfigError(config.path, line, f"{what}: there is no file {named_file}")


def _host(table: Table) -> Host:
    name = table.take("name", str, DEFAULT_HOST, f'"{DEFAULT_HOST}"')
    if not _HOST_NAME.fullmatch(name):
        table.fail("name", f'name = "{name}": use 1 to 32 letters a-z, digits and hyphens within')
    host = Host(
        name,
        table.parsed("memory", "4GiB", _host_memory_mib),
        table.number("cpus", 2, 1, 64),
        table.path("xen_source"),
    )
    table.end()
    return host


def _host_memory_mib(text: str) -> int:
    kib = parse_size(text)
    if kib % 1024 or not 512 << 10 <= kib <= 1 << 30:
        raise ValueError(f'"{text}": a host has 512MiB to 1TiB of memory, in whole MiB')
    return kib >> 10


def _image(table: Table) -> Image:
    name = table.own_name
    if not IMAGE_NAME.fullmatch(name):
        table.fail(None, f'"{name}" is no name for an image: use up to 32 of a-z, 0-9, _ . -')
    disk = table.path("disk")
    builtin = table.choice("builtin", None, (*BUILTIN, DEBIAN_DISK))
    is_disk = disk is not None or builtin == DEBIAN_DISK
    image = Image(
        name,
        builtin,
        table.path("kernel"),
        table.path("initramfs"),
        table.text("command_line", "" if is_disk else DEFAULT_COMMAND_LINE),
        table.line,
        disk,
        table.parsed("sha256", "", parse_sha256, "64 hexadecimal digits"),
    )
    table.end()
    if sum(source is not None for source in (image.builtin, image.kernel, image.disk)) != 1:
        text = (
            f'image {name} needs either builtin = "{BUILTIN[0]}", kernel = "path/to/vmlinuz" or disk = "path"'
        )
        table.fail(None, text)
    if image.disk and image.initramfs:
        table.fail("initramfs", "a disk has its own initramfs; leave this out")
    if image.sha256 and not image.disk:
        table.fail("sha256", "sha256 goes with disk")
    if image.builtin and image.initramfs:
        table.fail("initramfs", "a builtin image has its own initramfs; leave this out")
    return image


def parse_sha256(text: str) -> str:
    """A SHA-256 in hexadecimal, or "". Raises ValueError."""
    if text and not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f'"{text}" is no SHA-256: 64 hexadecimal digits')
    return text


def _guest(table: Table, parts: Config) -> Guest:
    name, images = table.name("guest"), parts.images
    image = table.choose("image", "images", images)
    if image is None:
        table.fail(None, f'guest {name} needs an image, such as image = "{next(iter(images), "debian")}"')
    is_disk = images[image].is_disk
    memory = DISK_MEMORY if is_disk else DEFAULT_MEMORY
    guest = Guest(
        name,
        image,
        table.parsed("memory", memory, values.guest_memory_kib),
        table.number("vcpus", 1, 1, 128),
        table.text("command_line", ""),
        table.choice("on_reboot", "restart", ON_REBOOT.words),
        table.choice("on_crash", "keep", ON_CRASH.words),
        table.flag("autostart", True),
        table.text("login", ""),
        table.parsed("group", "", group_name, "red"),
        devices.lettered(
            devices.read_disk(entry, parts.drivers, parts.volumes, name if is_disk else "")
            for entry in table.entries("disks", "volume", devices.MAX_DEVICES - 1)  # one is for cloud-init
        ),
        tuple(
            devices.read_nic(entry, parts.networks)
            for entry in table.entries("nics", "network", devices.MAX_DEVICES)
        ),
        devices.read_cloud_init(table.table("cloud-init")) if "cloud-init" in table else None,
        table.line,
    )
    table.end()
    if len({disk.device for disk in guest.disks}) < len(guest.disks):
        table.fail("disks", f"two disks of guest {name} have the same device")
    if is_disk and not any(driver.kind == devices.BLKBACK for driver in parts.drivers.values()):
        text = f'image {image} is a disk; guest {name} needs a [drivers.NAME] with kind = "{devices.BLKBACK}"'
        table.fail("image", text)
    return guest
