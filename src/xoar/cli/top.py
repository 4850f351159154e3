"""What domains use between two looks at the host."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xoar.cli import output

if TYPE_CHECKING:
    from rich.table import Table

    from xoar.host.client import Client


def usage(before: Sequence[Any], now: Sequence[Any], seconds: float) -> dict[int, float]:
    """Processor time of each domain in percent of one processor; domains are `object` records.

    A domain that was not there before, or has another name since, has used what it has in its whole life.
    """
    earlier = {(record.id, record.name): record.cpu_time_ns for record in before}
    return {
        record.id: max(record.cpu_time_ns - earlier.get((record.id, record.name), 0), 0) / seconds / 1e7
        for record in now
    }


def once(client: Client, interval: float, as_json: bool) -> None:
    """Prints the use of processors in one interval (seconds)."""
    records, used = _look(client, client.objects(), time.monotonic(), interval)
    if as_json:
        output.print_json(
            [{**output.domain(record), "cpu_percent": round(used[record.id], 1)} for record in records]
        )
    else:
        output.console().print(_table(records, used))


def live(client: Client, interval: float) -> None:
    """Shows the use of processors in each interval (seconds) until interrupted."""
    from rich.live import Live

    try:
        records, looked = client.objects(), time.monotonic()
        with Live(_table(records, {}), console=output.console(), screen=True, auto_refresh=False) as screen:
            while True:
                since = looked
                before, looked = records, time.monotonic()
                records, used = _look(client, before, since, interval)
                screen.update(_table(records, used), refresh=True)
    except KeyboardInterrupt:
        pass  # the usual way out


def _look(
    client: Client, before: Sequence[Any], since: float, interval: float
) -> tuple[list[Any], dict[int, float]]:
    time.sleep(interval)
    records = client.objects()
    return records, usage(before, records, time.monotonic() - since)


def _table(records: Sequence[Any], used: dict[int, float]) -> Table:
    rows = [
        (
            str(record.id),
            record.name or "-",
            record.kind,
            record.state,
            f"{used[record.id]:.1f}" if record.id in used else "-",
            output.size(record.memory_kib),
            str(record.vcpus),
            output.age(record.age_ms),
        )
        for record in records
    ]
    columns = ("id", "name", "kind", "state", "cpu %", "memory", "vcpus", "age")
    return output.table(columns, rows, right=("id", "cpu %", "memory", "vcpus"))
