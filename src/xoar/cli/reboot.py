"""What `xoar reboot` prints: rollbacks of shards, one or all that are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xoar.cli import output

_PARTS = ("pause", "dirty", "copy", "context", "unpause")


def facts(record: Any, now_ms: int | None = None) -> dict[str, object]:
    """One `rollback` of the schema as --json has it; times are microseconds."""
    shown: dict[str, object] = {
        "shard": record.target,
        "life": record.life,
        "cause": record.cause,
        "found": record.found,
        "pages": record.pages,
        "total_us": record.total_us,
        **{f"{part}_us": getattr(record, f"{part}_us") for part in _PARTS},
    }
    if now_ms is not None:
        shown["age_ms"] = max(now_ms - record.at_ms, 0)
    return shown


def print_history(records: Sequence[Any], now_ms: int, as_json: bool) -> None:
    """The oldest first."""
    if as_json:
        output.print_json([facts(record, now_ms) for record in records])
        return
    rows = [
        (
            output.age(max(now_ms - record.at_ms, 0)),
            record.target,
            str(record.life),
            record.cause if record.found == "none" else f"{record.cause} ({record.found})",
            str(record.pages),
            milliseconds(record.total_us),
            *(milliseconds(getattr(record, f"{part}_us")) for part in _PARTS),
        )
        for record in records
    ]
    columns = ("ago", "shard", "life", "cause", "pages", "ms", *_PARTS)
    output.print_table(columns, rows, right=("life", "pages", "ms", *_PARTS))


def milliseconds(microseconds: int) -> str:
    """With one decimal."""
    return f"{microseconds / 1000:.1f}"
