"""`xoar.toml`: one host, the images it knows and the guests it should run.

Fails closed: an unknown key (with the nearest known one), a wrong type, an impossible value or a missing
file is a ConfigError with file and line. Reading touches nothing but the file itself; whether the files that
it names are there is `check_files`, which only `xoar up` needs. The format is in docs/operators.md.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from xoar.host.errors import HostError
from xoar.messages.errors import MessageError
from xoar.messages.schema import COMMAND_LINE, NAME, ON_CRASH, ON_REBOOT
from xoar.privilege.toml_lines import TomlLines

FILE = "xoar.toml"
DEFAULT_HOST = "xoar"
BUILTIN = ("debian", "tiny", "debian-xentools")
DEFAULT_COMMAND_LINE = "console=hvc0"
DEFAULT_MEMORY = "128MiB"

_SIZE = re.compile(r"([1-9][0-9]{0,11})(KiB|MiB|GiB|TiB)")
_KIB = {"KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20, "TiB": 1 << 30}
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")  # what an entry of the image library has room for


class ConfigError(HostError):
    """A configuration that can't be accepted; the message begins with file:line."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}")
        self.path = path
        self.line = line


@dataclass(frozen=True)
class Host:
    """The machine: `memory_mib` and `cpus` are those of the emulated one."""

    name: str = DEFAULT_HOST
    memory_mib: int = 4096
    cpus: int = 2
    xen_source: Path | None = None


@dataclass(frozen=True)
class Image:
    """What guests boot: one that Xoar builds (`builtin`), or files; paths are absolute."""

    name: str
    builtin: str | None = None
    kernel: Path | None = None
    initramfs: Path | None = None
    command_line: str = DEFAULT_COMMAND_LINE
    line: int = 0


@dataclass(frozen=True)
class Guest:
    """A guest; `command_line` follows the image's. `login` is who scripts on its console log in as."""

    name: str
    image: str
    memory_kib: int = 128 << 10
    vcpus: int = 1
    command_line: str = ""
    on_reboot: str = "restart"
    on_crash: str = "keep"
    autostart: bool = True
    login: str = ""


@dataclass(frozen=True)
class Config:
    """A whole xoar.toml; `path` is None when there is none."""

    path: Path | None = None
    host: Host = Host()
    images: Mapping[str, Image] = field(default_factory=dict)
    guests: Mapping[str, Guest] = field(default_factory=dict)

    def kernel_arguments(self, guest: Guest) -> str:
        """The whole kernel command line of a guest. Raises HostError if it is too long for a request."""
        image = self.images.get(guest.image, Image(guest.image))
        # the builtin guests take their host name from here
        name = f"hostname={guest.name}" if image.builtin else ""
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


def parse_size(text: str) -> int:
    """KiB in a size such as "128MiB" or "2GiB" (KiB, MiB, GiB or TiB). Raises ValueError with the reason."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f'"{text}" is no size: write a whole number and KiB, MiB, GiB or TiB, as in "128MiB"'
        )
    return int(match[1]) * _KIB[match[2]]


def format_size(kib: int) -> str:
    """The shortest size that `parse_size` reads as this many KiB; kib > 0."""
    unit = next(unit for unit in reversed(_KIB) if kib % _KIB[unit] == 0)
    return f"{kib // _KIB[unit]}{unit}"


def guest_memory_kib(text: str) -> int:
    """KiB of a guest's memory. Raises ValueError with the reason."""
    kib = parse_size(text)
    if kib % 4 or not 8 << 10 <= kib <= 1 << 30:
        raise ValueError(f'"{text}": a guest has 8MiB to 1TiB of memory, in whole pages (4KiB)')
    return kib


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the known name that is most like `name`; "" if none is."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f' Did you mean "{found[0]}"?' if found else ""


def find(path: Path | None) -> Path | None:
    """The file to read: the given one, else ./xoar.toml if it exists."""
    if path is not None:
        return path
    return Path(FILE) if Path(FILE).is_file() else None


def load(path: Path) -> Config:
    """Reads a file. Raises ConfigError with the line, HostError if it can't be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HostError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(path, line, "not UTF-8 text") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Parses the text of a file; relative paths in it start at its folder. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else max(1, text.count("\n"))
        raise ConfigError(path, line, f"not TOML: {error}") from error
    top = _Table(document, path, TomlLines(text))
    host = _host(top.table("host"))
    images = {table.own_name: _image(table) for table in top.table("images").tables()}
    guests = {table.own_name: _guest(table, images) for table in top.table("guests").tables()}
    top.end()
    return Config(path, host, images, guests)


def check_files(config: Config) -> None:
    """Sees that the files and folders that a configuration names are there. Raises ConfigError, HostError."""
    source = config.host.xen_source
    if source is not None and not (source / "xen/include/public").is_dir():
        raise HostError(f"{source} is no Xen source tree: it has no folder xen/include/public")
    for image in config.images.values():
        for key, file in (("kernel", image.kernel), ("initramfs", image.initramfs)):
            if file is not None and not file.is_file():
                assert config.path is not None
                text = f"{key} of image {image.name}: there is no file {file}"
                raise ConfigError(config.path, image.line, text)


class _Table:
    """One table of the file while it is read: takes keys out, so that what is left over is unknown."""

    def __init__(self, values: Mapping[str, Any], path: Path, lines: TomlLines, name: str = "") -> None:
        self._values = dict(values)
        self._path = path
        self._lines = lines
        self._name = name
        self._known: list[str] = []

    @property
    def own_name(self) -> str:
        return self._name.partition(".")[2]

    @property
    def line(self) -> int:
        return self._lines.table(self._name)

    def fail(self, key: str | None, text: str) -> NoReturn:
        line = self.line if key is None else self._lines.key(self._name, key)
        raise ConfigError(self._path, line, text)

    def take(self, key: str, kind: type, default: Any, example: str) -> Any:
        self._known.append(key)
        value = self._values.pop(key, None)
        if value is None:
            return default
        # bool is a subclass of int
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(key, f"{key} has the wrong type; write it like this: {key} = {example}")
        return value

    def number(self, key: str, default: int, least: int, most: int) -> int:
        value: int = self.take(key, int, default, str(default))
        if not least <= value <= most:
            self.fail(key, f"{key} = {value} is out of range: {least} to {most}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.take(key, bool, default, str(default).lower()))

    def size(self, key: str, default: str, check: Callable[[str], int]) -> int:
        try:
            return check(self.take(key, str, default, f'"{default}"'))
        except ValueError as error:
            self.fail(key, f"{key} = {error}")

    def choice(self, key: str, default: str | None, choices: tuple[str, ...]) -> Any:
        value = self.take(key, str, default, f'"{choices[0]}"')
        if value not in choices and value is not default:
            self.fail(key, f'{key} = "{value}" is not one of: {", ".join(choices)}.{nearest(value, choices)}')
        return value

    def text(self, key: str, default: str) -> str:
        value: str = self.take(key, str, default, f'"{default}"')
        try:
            COMMAND_LINE.encode(value)
        except MessageError as error:
            self.fail(key, f"{key}: {error}")
        return value

    def path(self, key: str) -> Path | None:
        value = self.take(key, str, None, '"path/to/file"')
        if value is None:
            return None
        if not value or "\0" in value:
            self.fail(key, f"{key} = {value!r} is no path")
        return self._path.absolute().parent / Path(value).expanduser()

    def table(self, key: str) -> _Table:
        """An inner table; an absent one is empty."""
        values = self.take(key, dict, {}, "..., as a table: [" + key + "]")
        return _Table(values, self._path, self._lines, f"{self._name}.{key}" if self._name else key)

    def tables(self) -> list[_Table]:
        """All that is in this table, as tables."""
        return [self.table(key) for key in list(self._values)]

    def end(self) -> None:
        """Complains about what nobody took."""
        for key, value in self._values.items():
            inner = f"{self._name}.{key}" if self._name else key
            line = self._lines.table(inner) if isinstance(value, dict) else self._lines.key(self._name, key)
            where = f" in [{self._name}]" if self._name else ""
            known = f" Known: {', '.join(self._known)}."
            text = f'"{key}" is not a key{where}.{nearest(key, self._known) or known}'
            raise ConfigError(self._path, line, text)


def _host(table: _Table) -> Host:
    name = table.take("name", str, DEFAULT_HOST, f'"{DEFAULT_HOST}"')
    if not _HOST_NAME.fullmatch(name):
        table.fail("name", f'name = "{name}": use 1 to 32 letters a-z, digits and hyphens within')
    host = Host(
        name,
        table.size("memory", "4GiB", _host_memory_mib),
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


def _image(table: _Table) -> Image:
    name = table.own_name
    if not _IMAGE_NAME.fullmatch(name):
        table.fail(None, f'"{name}" is no name for an image: use up to 32 of a-z, 0-9, _ . -')
    image = Image(
        name,
        table.choice("builtin", None, BUILTIN),
        table.path("kernel"),
        table.path("initramfs"),
        table.text("command_line", DEFAULT_COMMAND_LINE),
        table.line,
    )
    table.end()
    if (image.builtin is None) == (image.kernel is None):
        table.fail(None, f'image {name} needs either builtin = "{BUILTIN[0]}" or kernel = "path/to/vmlinuz"')
    if image.builtin and image.initramfs:
        table.fail("initramfs", "a builtin image has its own initramfs; leave this out")
    return image


def _guest(table: _Table, images: Mapping[str, Image]) -> Guest:
    name = table.own_name
    try:
        NAME.encode(name)
    except MessageError as error:
        table.fail(None, f"a guest's name: {error}")
    image = table.take("image", str, None, '"debian"')
    if image is None:
        table.fail(None, f'guest {name} needs an image, such as image = "{next(iter(images), "debian")}"')
    if image not in images:
        table.fail("image", f"there is no [images.{image}] in this file.{nearest(image, images)}")
    guest = Guest(
        name,
        image,
        table.size("memory", DEFAULT_MEMORY, guest_memory_kib),
        table.number("vcpus", 1, 1, 128),
        table.text("command_line", ""),
        table.choice("on_reboot", "restart", ON_REBOOT.words),
        table.choice("on_crash", "keep", ON_CRASH.words),
        table.flag("autostart", True),
        table.text("login", ""),
    )
    table.end()
    return guest
