"""Reads one manifest: what a shard, driver domain or guest is and may do. The format: docs/manifests.md.

Fails closed: an unknown key, a missing one, a wrong type or an impossible value is a ManifestError with file
and line. What can only be judged with all manifests at hand is judged in `shardset`; whether a right's class
and permissions exist in the Xen being built, in `policy`.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from xoar.privilege.errors import ManifestError
from xoar.privilege.toml_lines import TomlLines

SHARDS_FOLDER = Path(__file__).parent.parent / "shards"

# What a right can be `on` besides a shard or guest; names that no shard may have
SPECIAL_TARGETS = ("self", "xen", "security", "domio", "domxen", "device", "iomem")
_RESERVED_NAMES = (*SPECIAL_TARGETS, "xenboot", "unlabeled", "irq", "ioport")

# What a shard can receive from Bootstrapper: the image library as its boot module; VIRQ_DOM_EXC; the right to
# pass on configuration space and the memory of devices; the shards that it rolls back
HANDED_OVER = ("library", "exceptions", "hardware", "restarts")

# What the front end of a device can speak with its back end
PROTOCOLS = ("vif", "vbd", "pci")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_MODULE = re.compile(r"xoar(\.[a-z][a-z0-9_]*)+")
_MEMORY = re.compile(r"([1-9][0-9]*)(KiB|MiB|GiB)")
_PORTS = re.compile(r"0x([0-9a-f]{1,4})-0x([0-9a-f]{1,4})")
_UNITS = {"KiB": 1, "MiB": 1024, "GiB": 1024 * 1024}
_MAX_MEMORY_KIB = 64 * _UNITS["GiB"]

Kind = Literal["shard", "driver", "guest"]


@dataclass(frozen=True)
class Use:
    """A link that the manifest's domain opens to `server`, as docs/architecture.md describes links."""

    server: str
    link: str  # the name that the server knows the link by
    role: str | None
    line: int


@dataclass(frozen=True)
class Frontend:
    """Devices whose front ends the manifest's domain has and whose back ends `server` has."""

    server: str
    protocol: str  # one of PROTOCOLS
    line: int


@dataclass(frozen=True)
class Right:
    """One permission of FLASK that the manifest asks for, on one target."""

    on: str
    security_class: str
    permission: str
    why: str
    line: int  # of the permission; of its class and target in the next two
    class_line: int
    on_line: int
    optional: bool = False  # off until an operator permits it


@dataclass(frozen=True)
class Serial:
    """The serial port's I/O ports, first and last, that the domain owns."""

    first: int
    last: int
    line: int


@dataclass(frozen=True)
class Restart:
    """When a shard is rolled back to its snapshot: on demand in any case, and as `policy` says.

    `by` are the shards that may ask for it. With policy "idle" it asks itself each time that it has nothing
    on its way any more.
    """

    policy: Literal["none", "demand", "request", "timer", "idle", "anew"]
    by: tuple[str, ...] = ()
    requests: int = 0  # policy "request": after so many
    patience_ms: int = 0  # policy "request": for one request; who asks keeps the time
    seconds: int = 0  # policies "timer", "idle" and "anew": so many after the last one
    pause: int = 0  # policy "anew": seconds from one to the next that it wants itself, at least
    box_kib: int = 0  # policy "idle": memory that a rollback leaves as it is (xoar.xen.box)
    line: int = 0
    by_line: int = 0

    @property
    def rolls_back(self) -> bool:
        """Whether Restorer puts it back; with policy "anew" it is built again from its image instead."""
        return self.policy not in ("none", "anew")

    def __str__(self) -> str:
        details = {
            "request": f"after {self.requests} requests",
            "timer": f"after {self.seconds} s",
            "idle": f"when idle and after {self.seconds} s",
            "anew": f"built anew after {self.pause} to {self.seconds} s",
        }
        if self.policy == "request" and self.requests == 1:
            return "after each request"
        return details.get(self.policy, {"demand": "on demand"}.get(self.policy, "none"))


@dataclass(frozen=True)
class Manifest:
    """What a shard, a driver domain or a guest is and may do.

    A shard is one domain, unless it lives with a tenant; of those, of driver domains and of guests there
    are several, as the host's configuration says. Guests have no memory here, which stands there; neither
    they nor driver domains have a main: they run Linux.
    """

    path: Path
    name: str
    summary: str
    kind: Kind
    main: str | None
    memory_kib: int | None
    vcpus: int
    parent: str | None
    lives: Literal["boot", "setup", "forever", "tenant", "guest"]
    restart: Restart
    uses: tuple[Use, ...]
    frontends: tuple[Frontend, ...]
    serial: Serial | None
    receives: tuple[str, ...]  # what Bootstrapper hands over: one of HANDED_OVER
    rights: tuple[Right, ...]
    copies: bool  # the pages of links that lead here, in place of mapping them
    parent_line: int
    receives_line: int

    @property
    def label(self) -> str:
        """The security context of the domain, as `domain create` needs it."""
        return f"system_u:system_r:{self.name}_t"

    @property
    def on_request(self) -> bool:
        """Whether it is a shard that Builder builds while the host runs."""
        return self.kind == "shard" and self.lives in ("setup", "tenant")

    @property
    def many(self) -> bool:
        """Whether there may be several domains of it."""
        return self.kind != "shard" or self.lives == "tenant"


def load(path: Path) -> Manifest:
    """Reads the manifest in a file. Raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(path, 1, f"can't be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Manifest:
    """Parses a manifest's text; `path` is for messages. Raises ManifestError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else max(1, len(text.splitlines()))
        raise ManifestError(path, line, f"not TOML: {error}") from error
    return _manifest(_Table(document, path, TomlLines(text)))


class _Table:
    """One table of the file while it is read: takes keys out, so that what is left over is unknown."""

    def __init__(
        self, values: dict[str, Any], path: Path, lines: TomlLines, name: str = "", occurrence: int = 0
    ) -> None:
        self._values = dict(values)
        self.path = path
        self._lines = lines
        self.name = name
        self._occurrence = occurrence

    def fail(self, key: str | None, text: str) -> NoReturn:
        raise ManifestError(self.path, self.line(key), text)

    def line(self, key: str | None = None, value: str | None = None) -> int:
        if key is None:
            return self._lines.table(self.name, self._occurrence)
        if value is None:
            return self._lines.key(self.name, key, self._occurrence)
        return self._lines.value(self.name, key, value, self._occurrence)

    def take(self, key: str, kind: type, example: str) -> Any:
        """The value of an optional key, or None; `kind` is its type, `example` is for the message."""
        value = self._values.pop(key, None)
        # bool is a subclass of int
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            self.fail(key, f"{key} has the wrong type; write it like this: {key} = {example}")
        return value

    def need(self, key: str, kind: type, example: str) -> Any:
        value = self.take(key, kind, example)
        if value is None:
            self.fail(None, f"{key} is missing; write it like this: {key} = {example}")
        return value

    def word(self, key: str, example: str, pattern: re.Pattern[str] = _NAME) -> str:
        text: str = self.need(key, str, f'"{example}"')
        if not pattern.fullmatch(text):
            self.fail(key, f'{key} = "{text}" is not a valid value; write it like this: {key} = "{example}"')
        return text

    def text(self, key: str, example: str) -> str:
        text: str = self.need(key, str, f'"{example}"')
        # it becomes part of one line in tables and in the policy's comments
        if not text.strip() or not text.isprintable():
            self.fail(key, f"{key} must be one line of text")
        return text

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        text = self.need(key, str, f'"{choices[0]}"')
        if text not in choices:
            self.fail(key, f'{key} = "{text}" is not one of: {", ".join(choices)}')
        return text

    def words(self, key: str, example: str) -> list[str]:
        """A list of different words, or one word alone."""
        value = self._values.get(key)
        if isinstance(value, str):
            self._values[key] = [value]
        words: list[str] = self.need(key, list, example)
        if not words:
            self.fail(key, f"{key} is empty; write it like this: {key} = {example}")
        for position, word in enumerate(words):
            if not isinstance(word, str) or not _WORD.fullmatch(word):
                self.fail(key, f"{key} holds {word!r}, no name; write it like this: {key} = {example}")
            if word in words[:position]:
                self.fail(key, f'{key} holds "{word}" twice; write it once')
        return words

    def number(self, key: str, example: int, least: int, most: int) -> int:
        value: int = self.need(key, int, str(example))
        if not least <= value <= most:
            self.fail(key, f"{key} = {value} is not between {least} and {most}")
        return value

    def is_table(self, key: str) -> bool:
        return isinstance(self._values.get(key), dict)

    def table(self, key: str) -> "_Table | None":
        if key not in self._values:
            return None
        values = self._values.pop(key)
        if not isinstance(values, dict):
            self.fail(key, f"{key} must be written as a table, [{self._inner(key)}]")
        return _Table(values, self.path, self._lines, self._inner(key))

    def tables(self, key: str) -> "list[_Table]":
        values = self._values.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.fail(key, f"{key} must be written as [[{self._inner(key)}]] tables")
        return [
            _Table(value, self.path, self._lines, self._inner(key), number)
            for number, value in enumerate(values)
        ]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def end(self) -> None:
        """Complains about what nobody took."""
        for key in self._values:
            where = f" in [{self.name}]" if self.name else ""
            self.fail(key, f'"{key}" is not a key of manifests{where}; see docs/manifests.md')

    def forbid(self, keys: tuple[str, ...], reason: str) -> None:
        for key in keys:
            if key in self._values:
                self.fail(key, f"{key}: {reason}")

    def _inner(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def _manifest(table: _Table) -> Manifest:
    name = table.word("name", "console")
    if name in _RESERVED_NAMES:
        table.fail("name", f'"{name}" means something else in the policy; choose another name')
    summary = table.text("summary", "consoles of all domains")
    kind: Kind = table.choice("kind", ("shard", "driver", "guest"))
    main: str | None = None
    memory_kib: int | None = None
    vcpus = 1
    lives: Any = "forever" if kind == "driver" else "guest"
    restart = Restart("none")
    parent: str | None
    if kind == "guest":
        table.forbid(
            ("main", "memory", "vcpus", "restart", "lives", "receives"), "a guest's configuration states it"
        )
        parent = table.word("parent", "toolstack")
    else:
        if kind == "driver":
            table.choice("lives", ("forever",))
            table.forbid(("main", "vcpus", "receives"), "a driver domain runs Linux, on one vCPU")
        else:
            lives = table.choice("lives", ("boot", "setup", "forever", "tenant", "guest"))
            main = table.word("main", f"xoar.shards.{name}.main", _MODULE)
        memory_kib = _memory_kib(table)
        if table.take("vcpus", int, "1") not in (None, 1):
            table.fail("vcpus", "nano runs on one vCPU: leave vcpus out or write vcpus = 1")
        parent = table.word("parent", "bootstrapper") if kind == "driver" or "parent" in table else None
        restart = _restart(table, kind)
    if parent == name:
        table.fail("parent", f"{name} can't be its own parent")
    parent_line, receives_line = table.line("parent"), table.line("receives")
    uses = _uses(table)
    frontends = _frontends(table)
    serial = _serial(table)
    receives = _receives(table)
    rights = _rights(table)
    copies = False
    if kind == "shard" and "pages" in table:
        copies = table.choice("pages", ("mapped", "copied")) == "copied"
    table.end()
    return Manifest(
        table.path, name, summary, kind, main, memory_kib, vcpus, parent, lives, restart,
        uses, frontends, serial, receives, rights, copies, parent_line, receives_line,
    )  # fmt: skip


def _restart(table: _Table, kind: Kind) -> Restart:
    if kind == "driver" or "restart" not in table or not table.is_table("restart"):
        table.choice("restart", ("none",))
        return Restart("none")
    inner = table.table("restart")
    assert inner is not None
    policy = inner.choice("policy", ("demand", "request", "timer", "idle", "anew"))
    by = []
    if policy != "anew" and ("by" in inner or policy in ("demand", "request")):
        by = inner.words("by", '["xenstore"]')
    requests = patience = seconds = pause = box = 0
    if policy == "request":
        requests = inner.number("requests", 1, 1, 1000000)
        patience = inner.number("patience_ms", 5000, 100, 600000)
    else:
        seconds = inner.number("seconds", 60, 1, 86400) if policy != "demand" else 0
    if policy == "anew":
        pause = inner.number("pause", 60, 30, seconds // 2)
    if policy == "idle":
        box = _memory_kib(inner, "box", "64KiB")
    inner.end()
    return Restart(policy, tuple(by), requests, patience, seconds, pause, box, inner.line(), inner.line("by"))


def _memory_kib(table: _Table, name: str = "memory", example: str = "12MiB") -> int:
    text = table.word(name, example, _MEMORY)
    number, unit = _MEMORY.fullmatch(text).groups()  # type: ignore[union-attr]
    kib = int(number) * _UNITS[unit]
    if kib % 4 or kib > _MAX_MEMORY_KIB:
        table.fail(name, f'{name} = "{text}" must be whole pages (4KiB), and 64GiB at most')
    return kib


def _uses(table: _Table) -> tuple[Use, ...]:
    servers = table.table("uses")
    if servers is None:
        return ()
    uses = []
    for server in servers:
        inner = servers.table(server)
        assert inner is not None
        line = inner.line()
        if not _NAME.fullmatch(server):
            inner.fail(None, f'"{server}" is not a shard\'s name')
        link = inner.word("link", "introduce") if "link" in inner else server
        role = inner.choice("role", ("backend",)) if "role" in inner else None
        inner.end()
        uses.append(Use(server, link, role, line))
    return tuple(uses)


def _frontends(table: _Table) -> tuple[Frontend, ...]:
    servers = table.table("frontends")
    if servers is None:
        return ()
    frontends = []
    for server in servers:
        inner = servers.table(server)
        assert inner is not None
        if not _NAME.fullmatch(server):
            inner.fail(None, f'"{server}" is not a shard\'s name')
        protocol = inner.choice("protocol", PROTOCOLS)
        inner.end()
        frontends.append(Frontend(server, protocol, inner.line()))
    return tuple(frontends)


def _serial(table: _Table) -> Serial | None:
    inner = table.table("serial")
    if inner is None:
        return None
    text = inner.word("ports", "0x2f8-0x2ff", _PORTS)
    first, last = (int(number, 16) for number in _PORTS.fullmatch(text).groups())  # type: ignore[union-attr]
    if first > last:
        inner.fail("ports", f'ports = "{text}" ends before it begins')
    inner.end()
    return Serial(first, last, inner.line("ports"))


def _receives(table: _Table) -> tuple[str, ...]:
    if "receives" not in table:
        return ()
    words = table.words("receives", '["library"]')
    for word in words:
        if word not in HANDED_OVER:
            table.fail("receives", f'receives holds "{word}", which is not one of: {", ".join(HANDED_OVER)}')
    return tuple(words)


def _rights(table: _Table) -> tuple[Right, ...]:
    rights = []
    for inner in table.tables("rights"):
        targets = inner.words("on", '"xen"')
        security_class = inner.word("class", "domain", _WORD)
        permissions = inner.words("permissions", '["pause", "unpause"]')
        why = inner.text("why", "stops a guest that its Toolstack destroys")
        optional = inner.take("optional", bool, "true") or False
        inner.end()
        for target in targets:
            for permission in permissions:
                lines = (
                    inner.line("permissions", permission),
                    inner.line("class"),
                    inner.line("on", target),
                )
                rights.append(Right(target, security_class, permission, why, *lines, optional))
    return tuple(rights)
