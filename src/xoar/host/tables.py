"""Reading TOML strictly: tables whose keys are taken out one by one, and errors with file and line.

What nobody takes out of a table is unknown, and an error that names the nearest known key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from xoar.host.errors import HostError
from xoar.messages.errors import MessageError
from xoar.messages.records import COMMAND_LINE, NAME
from xoar.privilege.toml_lines import TomlLines

_Value = TypeVar("_Value")

_SIZE = re.compile(r"([1-9][0-9]{0,11})(KiB|MiB|GiB|TiB)")
_KIB = {"KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20, "TiB": 1 << 30}


class ConfigError(HostError):
    """A configuration that can't be accepted; the message begins with file:line."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}")
        self.path = path
        self.line = line
        self.text = text


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


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the known name that is most like `name`; "" if none is."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f' Did you mean "{found[0]}"?' if found else ""


class Table:
    """One table of the file while it is read: takes keys out, so that what is left over is unknown."""

    def __init__(
        self, values: Mapping[str, Any], path: Path, lines: TomlLines, name: str = "", inline: int = 0
    ) -> None:
        self._values = dict(values)
        self._path = path
        self._lines = lines
        self._name = name
        self._inline = inline  # the line of a table without a header of its own
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Whether a key is there that nobody has taken yet."""
        return key in self._values

    @property
    def own_name(self) -> str:
        """The table's name without that of the table it is in."""
        return self._name.partition(".")[2]

    @property
    def line(self) -> int:
        """Where the table begins."""
        return self._inline or self._lines.table(self._name)

    def fail(self, key: str | None, text: str) -> NoReturn:
        """Raises ConfigError about a key, or about the whole table."""
        raise ConfigError(self._path, self._line_of(key), text)

    def take(self, key: str, kind: type, default: Any, example: str) -> Any:
        """A value of type `kind`; `example` is what the message about another type shows."""
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

    def parsed(self, key: str, default: str, parse: Callable[[str], _Value], example: str = "") -> _Value:
        """What `parse` makes of a text; its ValueError is told with the key."""
        try:
            return parse(self.take(key, str, default, f'"{example or default}"'))
        except ValueError as error:
            self.fail(key, f"{key} = {error}")

    def name(self, what: str) -> str:
        """The table's own name, as the name of a `what` that messages can carry."""
        try:
            NAME.encode(self.own_name)
        except MessageError as error:
            self.fail(None, f"a {what}'s name: {error}")
        return self.own_name

    def choose(self, key: str, what: str, known: Iterable[str]) -> str | None:
        """The name of another table of the file, [`what`.NAME]; None if the key is not there."""
        names = list(known)
        value: str | None = self.take(key, str, None, f'"{next(iter(names), "name")}"')
        if value is not None and value not in names:
            self.fail(key, f"there is no [{what}.{value}] in this file.{nearest(value, names)}")
        return value

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
        return None if value is None else self.absolute(key, value)

    def absolute(self, key: str, value: str) -> Path:
        """A path that `key` names; relative ones start at the file's folder."""
        if not value or "\0" in value:
            self.fail(key, f"{key} = {value!r} is no path")
        return self._path.absolute().parent / Path(value).expanduser()

    def table(self, key: str) -> Table:
        """An inner table; an absent one is empty."""
        values = self.take(key, dict, {}, "..., as a table: [" + key + "]")
        return self._inner(key, values)

    def tables(self) -> list[Table]:
        """All that is in this table, as tables."""
        return [self.table(key) for key in list(self._values)]

    def entries(self, key: str, shorthand: str, most: int) -> list[Table]:
        """The tables in a list, in which a plain text stands for a table with just the key `shorthand`."""
        values = self.take(key, list, [], f'["name", {{ {shorthand} = "name" }}]')
        if len(values) > most:
            self.fail(key, f"{key} has {len(values)} entries, at most {most} are possible")
        tables = []
        for value in values:
            if not isinstance(value, dict | str):
                self.fail(key, f"{value!r} in {key} is neither a name nor a table")
            tables.append(self._inner(key, {shorthand: value} if isinstance(value, str) else value))
        return tables

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        values = self.take(key, list, [], '["text"]')
        for value in values:
            if not isinstance(value, str):
                self.fail(key, f"{value!r} in {key} is no text")
        return list(values)

    def end(self) -> None:
        """Complains about what nobody took."""
        for key, value in self._values.items():
            where = f" in [{self._name}]" if self._name else ""
            known = f" Known: {', '.join(self._known)}."
            line = self._inner(key, value).line if isinstance(value, dict) else self._line_of(key)
            text = f'"{key}" is not a key{where}.{nearest(key, self._known) or known}'
            raise ConfigError(self._path, line, text)

    def _inner(self, key: str, values: Mapping[str, Any]) -> Table:
        name = f"{self._name}.{key}" if self._name else key
        inline = 0 if self._lines.has(name) else self._inline or self._lines.key(self._name, key)
        return Table(values, self._path, self._lines, name, inline)

    def _line_of(self, key: str | None) -> int:
        return self.line if key is None or self._inline else self._lines.key(self._name, key)
