"""Devices on command lines and in what commands print."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from xoar.cli import output
from xoar.messages.records import NO_DEVICE, function_name

if TYPE_CHECKING:
    from xoar.host.devices import Disk, Nic
    from xoar.host.tables import Table

_Value = TypeVar("_Value")


def disk(words: str, option: str = "--disk") -> Disk:
    """A disk written as VOLUME[,device=xvdb][,mode=r][,driver=NAME]. Raises BadParameter."""
    from xoar.host.devices import read_any_disk

    return _read(words, "volume", option, read_any_disk)


def nic(words: str, option: str = "--nic") -> Nic:
    """An interface written as NETWORK[,mac=..][,address=..][,gateway=..][,dns=..][,rate=..]."""
    from xoar.host.devices import read_nic

    return _read(words, "network", option, lambda table: read_nic(table, None))


def value(text: str, option: str, parse: Callable[[str], _Value]) -> _Value:
    """What `parse` makes of an option's text. Raises BadParameter with its reason."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _read(words: str, first: str, option: str, read: Callable[[Table], _Value]) -> _Value:
    """Reads a table that is written as words with commas between; `first` is the key of the first one."""
    from xoar.host.tables import ConfigError, Table
    from xoar.privilege.toml_lines import TomlLines

    name, *others = words.split(",")
    table = {first: name}
    for word in others:
        key, equals, text = word.partition("=")
        if not equals or key in table:
            raise typer.BadParameter(f'"{word}": write it like key=value, once', param_hint=option)
        table[key] = text
    try:
        return read(Table(table, Path(option), TomlLines(""), "", 1))
    except ConfigError as error:
        raise typer.BadParameter(error.text, param_hint=option) from error


# what is printed


def bdf(number: int) -> str:
    """A PCI function as people write it, 0000:03:00.0; "-" for none."""
    return function_name(number) if number != NO_DEVICE else "-"


_CLASSES = {
    0x01: "storage", 0x02: "network", 0x03: "display", 0x04: "multimedia", 0x05: "memory",
    0x07: "communication", 0x08: "system", 0x09: "input", 0x0C: "serial bus", 0x0D: "wireless",
    0x12: "accelerator",
}  # fmt: skip


def class_name(code: int) -> str:
    """What kind of device has this class code (PCI Code and ID Assignment Specification)."""
    return _CLASSES.get(code >> 16, f"class {code:06x}")


def disk_facts(record: Any) -> dict[str, object]:
    """A guest's disk (`plugged_disk` of the schema) for JSON."""
    return dict(zip(record._fields, record, strict=True))


def nic_facts(record: Any) -> dict[str, object]:
    """A guest's interface (`plugged_nic` of the schema) for JSON."""
    return {**dict(zip(record._fields, record, strict=True)), "mac": record.mac.hex(":")}


def disk_line(record: Any) -> str:
    """A guest's disk in a line."""
    mode = "" if record.mode == "w" else ", read-only"
    return f"volume {record.volume} on {record.driver}{mode}, {_state(record)}"


def nic_line(record: Any) -> str:
    """A guest's interface in a line."""
    address = record.seen_address or record.address
    rate = f", {output.size(record.rate_kib)}/s" if record.rate_kib else ""
    where = f", {address}" if address else ""
    return (
        f"network {record.network} on {record.driver}, {record.mac.hex(':')}{where}{rate}, {_state(record)}"
    )


def addresses(records: Iterable[Any]) -> str:
    """The addresses of a guest's interfaces."""
    return " ".join(address for nic in records if (address := nic.seen_address or nic.address))


def driver_facts(record: Any) -> dict[str, object]:
    """A driver domain (`driver` of the schema) for JSON."""
    return {
        "name": record.name,
        "kind": record.kind,
        "id": record.domid,
        "device": bdf(record.device) if record.device else None,
        "state": record.state,
        "restarts": record.restarts,
        "age_s": record.age_ms // 1000,
        "note": record.note,
    }


def _state(record: Any) -> str:
    return f"{record.state}: {record.note}" if record.note else str(record.state)
