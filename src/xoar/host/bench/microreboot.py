"""`xoar bench microreboot`: how long a rollback takes, by its parts, against building a domain anew.

The times of rollbacks are Restorer's own, by Xen's clock, and also taken outside, from the request on the
operator's line to its answer. What is built anew, in the same host and in turn with the rollbacks, is a nano
guest with as much memory as the shard, but 8 MiB at least, whose program has nothing to do: from the request
for it until Builder has seen that it has booted and powered off. It is what is comparable of all that Xoar
can build while a host runs.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xoar.host import apt, guests, keeper, up
from xoar.host.bench import hosts, report
from xoar.host.build import abi, micropython, nano, xen
from xoar.host.client import BUILD_SECONDS, Client
from xoar.host.config import Config, Guest, Image
from xoar.host.progress import Reporter
from xoar.privilege import shardset

NAME = "bench-microreboot"
PARTS = ("pause", "dirty", "copy", "context", "unpause")
_SHARD = "logic"  # which is rolled back most often, and knows of nobody who would notice
_EACH = 20  # rollbacks between two builds
_GUEST = "idle"
_LEAST_KIB = 8192  # a guest has no less
_MS = 1000


@dataclass(frozen=True)
class Result:
    """`rollbacks` are records of the schema, `outside` and `anew` seconds; `kept_kib` is the snapshot's
    copy."""

    shard: str
    memory_kib: int
    kept_kib: int
    rollbacks: list[Any]
    outside: list[float]
    anew: list[float]

    def rows(self) -> list[tuple[str, list[float]]]:
        """Figures in ms, by what they are of."""
        rows = [("rollback", [record.total_us / _MS for record in self.rollbacks])]
        for part in PARTS:
            rows.append((f"  {part}", [getattr(record, f"{part}_us") / _MS for record in self.rollbacks]))
        rows.append(("rollback, from outside", [value * _MS for value in self.outside]))
        rows.append(("built anew, from outside", [value * _MS for value in self.anew]))
        return rows

    @property
    def ratio(self) -> float:
        """Median of a rollback by Restorer's clock over median of building anew."""
        took: float = statistics.median([record.total_us for record in self.rollbacks])
        return took / 1e6 / statistics.median(self.anew)

    @property
    def ratio_outside(self) -> float:
        """The same, both from outside."""
        return statistics.median(self.outside) / statistics.median(self.anew)

    def facts(self) -> dict[str, str]:
        """All that is no series, in words."""
        pages = [record.pages for record in self.rollbacks]
        return {
            "shard": f"{self.shard}, {self.memory_kib} KiB",
            "snapshot": f"{self.kept_kib} KiB of copies",
            "pages restored": f"{statistics.median(pages):.0f} ({min(pages)} to {max(pages)})",
            "rollback / anew": f"1/{1 / self.ratio:.0f}",
            "from outside": f"1/{1 / self.ratio_outside:.0f}",
        }

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            **self.facts(),
            "ms": {name.strip(): [round(value, 3) for value in values] for name, values in self.rows()},
        }


def run(rounds: int, show: Reporter) -> Result:
    """Starts a host, and `rounds` times rolls Logic back 20 times and builds a guest. Raises HostError."""
    shard, memory_kib = _SHARD, shardset.load_all().manifests[_SHARD].memory_kib
    assert memory_kib is not None
    config = _config(show, memory_kib)
    launch = up.prepare(config, show)
    rollbacks: list[Any] = []
    outside: list[float] = []
    anew: list[float] = []
    with hosts.running(NAME, launch) as (host, _):
        keeper.wait_running(host, up.START_TIMEOUT)
        log = hosts.Log(host)
        with Client.connect(host.name) as client, show.step("rolling back and building", rounds) as step:
            client.request("shard_reboot", BUILD_SECONDS, name=shard, timeout_ms=10_000)
            records, _ = client.rollbacks()
            kept = next(record.pages for record in records if record.target == shard and record.life == 1)
            images = guests.library(client)
            for _ in range(rounds):
                time.sleep(hosts.PAUSE)
                for _ in range(_EACH):
                    began = hosts.now()
                    reply = client.request("shard_reboot", BUILD_SECONDS, name=shard, timeout_ms=10_000)
                    outside.append(hosts.now() - began)
                    rollbacks.append(reply.fields.rollback)
                began = hosts.now()
                guests.create(client, config, config.guests[_GUEST], images)
                anew.append(log.until("ended: poweroff") - began)
                step.advance()
    return Result(shard, memory_kib, kept * 4, rollbacks, outside, anew)


def _config(show: Reporter, memory_kib: int) -> Config:
    """A host with the guest's image."""
    elf = _idle(show)
    guest = Guest(
        _GUEST, _GUEST, memory_kib=max(memory_kib, _LEAST_KIB), on_reboot="destroy", on_crash="destroy"
    )
    return Config(images={_GUEST: Image(_GUEST, kernel=elf)}, guests={_GUEST: guest}).for_host(NAME)


def _idle(show: Reporter) -> Path:
    system = apt.Apt(show)
    hypervisor = xen.build(system, show)
    abi.generate(hypervisor, show)
    core = nano.core(micropython.build(system, show), hypervisor, show)
    return nano.shard(_GUEST, "xoar.host.bench.idle", core, show).elf


def machine() -> dict[str, str]:
    """What it runs on; to be asked before."""
    return report.this_machine()
