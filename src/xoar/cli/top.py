"""What domains use between two looks at the host, and how often shards were rolled back meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xoar.cli import domains, output

if TYPE_CHECKING:
    from rich.table import Table

    from xoar.host.client import Client


@dataclass(frozen=True)
class Used:
    """What happened in an interval, by domid: processor time in percent of one processor, and rollbacks a
    second of those shards that have any policy for that."""

    percent: dict[int, float]
    rollbacks: dict[int, float]


def usage(before: Sequence[Any], now: Sequence[Any], seconds: float) -> Used:
    """What domains have used between two looks; domains are `object` records.

    A domain that was not there before, or has another name since, has used what it has in its whole life.
    """
    earlier = {(record.id, record.name): record for record in before}

    def rate(record: Any, field: str) -> float:
        known = earlier.get((record.id, record.name))
        more: int = getattr(record, field) - (getattr(known, field) if known else 0)
        return max(more, 0) / seconds

    return Used(
        {record.id: rate(record, "cpu_time_ns") / 1e7 for record in now},
        {record.id: rate(record, "rollbacks") for record in now if record.policy},
    )


def once(client: Client, interval: float, as_json: bool) -> None:
    """Prints what was used in one interval (seconds)."""
    records, used = _look(client, client.objects(), time.monotonic(), interval)
    if as_json:
        output.print_json([_facts(record, used) for record in records])
    else:
        output.console().print(_table(records, used))


def live(client: Client, interval: float) -> None:
    """Shows what is used in each interval (seconds) until interrupted."""
    from rich.live import Live

    try:
        records, looked = client.objects(), time.monotonic()
        first = _table(records, Used({}, {}))
        with Live(first, console=output.console(), screen=True, auto_refresh=False) as screen:
            while True:
                since = looked
                before, looked = records, time.monotonic()
                records, used = _look(client, before, since, interval)
                screen.update(_table(records, used), refresh=True)
    except KeyboardInterrupt:
        pass  # the usual way out


def _look(client: Client, before: Sequence[Any], since: float, interval: float) -> tuple[list[Any], Used]:
    time.sleep(interval)
    records = client.objects()
    return records, usage(before, records, time.monotonic() - since)


def _facts(record: Any, used: Used) -> dict[str, object]:
    """One domain for JSON."""
    rate = used.rollbacks.get(record.id)
    return {
        **domains.facts(record),
        "cpu_percent": round(used.percent[record.id], 1),
        "rollbacks_per_s": None if rate is None else round(rate, 1),
    }


def _table(records: Sequence[Any], used: Used) -> Table:
    restarted = any(record.policy for record in records)
    rows = [
        (
            str(record.id),
            record.name or "-",
            record.kind,
            record.state,
            _rate(used.percent, record),
            output.size(record.memory_kib),
            str(record.vcpus),
            output.age(record.age_ms),
            *(_rollbacks(record, used) if restarted else ()),
        )
        for record in records
    ]
    more = ("rolled back", "times", "per s", "last") if restarted else ()
    columns = ("id", "name", "kind", "state", "cpu %", "memory", "vcpus", "age", *more)
    return output.table(columns, rows, right=("id", "cpu %", "memory", "vcpus", "times", "per s"))


def _rollbacks(record: Any, used: Used) -> tuple[str, str, str, str]:
    policy, times, last = domains.rollbacks(record)
    return policy, times, _rate(used.rollbacks, record) if record.policy else "", last


def _rate(rates: dict[int, float], record: Any) -> str:
    return f"{rates[record.id]:.1f}" if record.id in rates else "-"
