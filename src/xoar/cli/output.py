"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xoar.host.config import format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLES = {
    "running": "green",
    "ready": "green",
    "failed": "red",
    "bad": "red",
    "blocked": "green",  # waits for an event, as an idle domain does
    "crashed": "red",
    "kept": "red",
    "dying": "yellow",
    "paused": "yellow",
    "shutdown": "yellow",
}
_NOT_A_TERMINAL = 100_000  # columns: a pipe has no width that lines should be cut to


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2))


def console() -> Console:
    """Standard output; colours only if it is a terminal (and NO_COLOR is not set)."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _NOT_A_TERMINAL, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table; the columns named in `right` are aligned to the right, a column "state" has colours."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.upper(), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        cells = zip(columns, row, strict=True)
        made.add_row(
            *(Text(cell, style=_STYLES.get(cell, "") if column == "state" else "") for column, cell in cells)
        )
    return made


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table on standard output."""
    console().print(table(columns, rows, right))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    pairs = list(facts)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}".rstrip())


def size(kib: int) -> str:
    """KiB as people read them; not exact from 1 GiB on."""
    if kib >= 1 << 20 and kib % (1 << 20):
        return f"{kib / (1 << 20):.1f}GiB"
    if kib >= 1 << 10 and kib % (1 << 10):
        return f"{kib / (1 << 10):.1f}MiB"
    return format_size(kib) if kib else "0"


def age(ms: int) -> str:
    """A duration in its two largest units."""
    seconds = ms // 1000
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // part} {smaller}"
    return f"{seconds} s"
