"""The table of domains that `xoar ps` prints, and what it has of one domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xoar.cli import devices
from xoar.cli.output import age, print_json, print_table, size

if TYPE_CHECKING:
    from xoar.host.client import Client


def facts(record: Any) -> dict[str, object]:
    """One domain as `xoar ps --json` has it; `record` is an `object` of the schema."""
    return {
        "id": record.id,
        "name": record.name,
        "kind": record.kind,
        "label": record.label,
        "memory_kib": record.memory_kib,
        "vcpus": record.vcpus,
        "state": record.state,
        "age_s": record.age_ms // 1000,
        "owner": record.owner,
        "policy": record.policy,
        "rollbacks": record.rollbacks,
        "rollback_age_ms": record.rollback_age_ms if record.policy else None,
    }


def show(client: Client, as_json: bool) -> None:
    """What `xoar ps` shows."""
    records = client.objects()
    drivers = {driver.domid: driver for driver in client.drivers()}
    if as_json:
        shown = {domid: devices.driver_facts(driver) for domid, driver in drivers.items()}
        print_json([{**facts(record), "driver": shown.get(record.id)} for record in records])
        return
    restarted = any(record.policy for record in records)
    rows = []
    for record in records:
        driver = drivers.get(record.id)
        rows.append(
            (
                str(record.id),
                record.name or f"({record.owner or '-'})",
                driver.kind if driver else record.kind,
                record.state,
                size(record.memory_kib),
                str(record.vcpus),
                age(record.age_ms),
                *(rollbacks(record) if restarted else ()),
                *((f"{devices.bdf(driver.device)} {driver.state}" if driver else "-",) if drivers else ()),
                record.label,
            )
        )
    more = [*(("rolled back", "times", "last") if restarted else ()), *(("device",) if drivers else ())]
    columns = ("id", "name", "kind", "state", "memory", "vcpus", "age", *more, "label")
    print_table(columns, rows, right=("id", "memory", "vcpus", "times"))


def rollbacks(record: Any) -> tuple[str, str, str]:
    """When a shard is rolled back, how often it was, and how long ago the last time."""
    if not record.policy:
        return "-", "", ""
    return record.policy, str(record.rollbacks), age(record.rollback_age_ms) if record.rollbacks else "-"
