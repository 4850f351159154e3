"""`xoar bench rollbacks`: what it costs that shards are rolled back, where an operator would notice it.

The same host twice: as it is, and with images that differ only in who asks for a rollback: nobody does, but
when XenStore's Logic fails. All shards, links, rights and snapshots are there in both.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from xoar.host import up
from xoar.host.assembly import Replacement
from xoar.host.bench import boot, create
from xoar.host.bench.pair import CONFIG, GUEST, XOAR
from xoar.host.bench.report import Row
from xoar.host.build import nano
from xoar.host.emulator import Launch
from xoar.host.progress import Reporter

SIDES = ("with", "without")
PATIENT = ("xenstore", "console", "builder", "toolstack", "restorer")
"""The shards that ask for rollbacks; each has a module `patient` that does not."""

_CREATES = 7  # in each host of a round


@dataclass(frozen=True)
class Prepared:
    """What starts a host with rollbacks, and one without."""

    launches: dict[str, Launch]

    def facts(self) -> dict[str, str]:
        """What is compared, in words."""
        machine = self.launches["with"].machine
        return {
            "emulator": f"QEMU {self.launches['with'].qemu.version}, software emulation (TCG), "
            f"{machine.cpus} CPUs, {machine.memory_mib} MiB",
            "with": "a Xoar host as it is",
            "without": "the same; nobody asks for a rollback",
            "guest": f"PVH, {GUEST.vcpus} vCPU, {GUEST.memory_kib >> 10} MiB",
        }


def prepare(show: Reporter) -> Prepared:
    """Builds what is not in the cache. Raises HostError."""
    config = CONFIG.for_host(XOAR)
    without = {shard: Replacement(f"xoar.shards.{shard}.patient", nano.SOURCES) for shard in PATIENT}
    return Prepared({"with": up.prepare(config, show), "without": up.prepare(config, show, without)})


def run(prepared: Prepared, rounds: int, show: Reporter) -> list[Row]:
    """Boots both hosts in turn, twice in each round: to a guest's login, and to create and destroy guests.

    Raises HostError.
    """
    boots: dict[str, list[float]] = defaultdict(list)
    creates: dict[str, list[float]] = defaultdict(list)
    sides = list(SIDES)
    with show.step("measuring with rollbacks and without, in turn", 2 * rounds * (1 + _CREATES)) as step:
        for _ in range(rounds):
            for side in sides:
                boots[side].append(boot.boot_xoar(prepared.launches[side]))
                step.advance()
            for side in sides:
                creates[side] += create.create_xoar(prepared.launches[side], _CREATES, step)
            sides.reverse()  # so that neither is always the first
    return [
        Row("emulator's start to the first guest's login", boots["with"], boots["without"]),
        Row("creating a guest", creates["with"], creates["without"]),
    ]
