"""`xoar bench xenstore`: how many requests a second a guest gets answered, one after the other.

The guest is the same nano image in each host (xoar.shards.guest.store_rate), over a ring of its own, and the
hosts are four: Xoar's with Logic rolled back after each request, and only when it fails; stock with the two
servers that come with Xen, xenstored (C) and oxenstored (OCaml), each in a PV domain 0. A round's time is
taken outside, from one line of the guest's console to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xoar.host import apt, cpio, guests, keeper, up
from xoar.host.assembly import Replacement
from xoar.host.bench import hosts, stock
from xoar.host.bench.report import Row
from xoar.host.build import abi, micropython, nano, xen
from xoar.host.client import Client, Stream
from xoar.host.config import Config, Guest, Image
from xoar.host.emulator import Launch
from xoar.host.errors import HostError
from xoar.host.progress import Reporter, Step

AFTER_EACH, NEVER = "rolled back after each request", "rolled back only when it fails"
DAEMONS = ("xenstored", "oxenstored")

_NAME = "rate"
_XOAR, _STOCK = "bench-xenstore", "bench-xenstored"
_REQUESTS = 400  # of a round: xoar.shards.guest.store_rate.REQUESTS
_MEMORY_KIB = 16 << 10
_FAILED = "rate: wrong"

# domain 0's script, but for the daemon: it shows the guest's console
_INIT = stock.START + stock.SHOW.replace("NAME", _NAME)


@dataclass(frozen=True)
class Prepared:
    """What starts each of the hosts, by its name in the table."""

    ours: dict[str, Launch]
    theirs: dict[str, Launch]
    config: Config
    debian: stock.Stock

    def facts(self) -> dict[str, str]:
        """What is compared, in words."""
        machine = self.ours[AFTER_EACH].machine
        return {
            "emulator": f"QEMU {self.debian.qemu.version}, software emulation (TCG), "
            f"{machine.cpus} CPUs, {machine.memory_mib} MiB",
            "xoar": f"Xen {self.ours[AFTER_EACH].xen_version}",
            "stock": f"Xen {self.debian.xen_version}, domain 0: Linux {self.debian.kernel_version}, "
            f"{stock.MEMORY_MIB} MiB",
            "guest": f"PVH, 1 vCPU, {_MEMORY_KIB >> 10} MiB, nano; {_REQUESTS} requests a round, a write and "
            "a read in turn",
        }


def prepare(show: Reporter) -> Prepared:
    """Builds what is not in the cache. Raises HostError."""
    system = apt.Apt(show)
    elf = _guest(system, show)
    wanted = Guest(_NAME, _NAME, memory_kib=_MEMORY_KIB, on_reboot="destroy", on_crash="destroy")
    config = Config(images={_NAME: Image(_NAME, kernel=elf)}, guests={_NAME: wanted}).for_host(_XOAR)
    patient = {"xenstore": Replacement("xoar.shards.xenstore.patient", nano.SOURCES)}
    found = stock.debian(system, show, programs=["usr/lib/xen-4.17/bin/xenstored"])
    entries = [
        cpio.file("etc/xen/guest.cfg", settings(wanted).encode()),
        cpio.file("boot/guest", elf.read_bytes()),
    ]
    debian = {daemon: stock.assemble(system, show, found, init(daemon), entries) for daemon in DAEMONS}
    return Prepared(
        {AFTER_EACH: up.prepare(config, show), NEVER: up.prepare(config, show, patient)},
        {daemon: made.launch(config) for daemon, made in debian.items()},
        config,
        debian[DAEMONS[0]],
    )


def init(daemon: str) -> str:
    """Domain 0's script with this XenStore."""
    return _INIT.replace("oxenstored", daemon)


def settings(guest: Guest) -> str:
    """The guest in xl.cfg(5)'s words."""
    return (
        f'name = "{guest.name}"\ntype = "pvh"\nkernel = "/boot/guest"\n'
        f"memory = {guest.memory_kib >> 10}\nvcpus = {guest.vcpus}\n"
    )


def run(prepared: Prepared, rounds: int, show: Reporter) -> list[Row]:
    """One boot of each host, and so many rounds in it. Raises HostError."""
    ours, theirs = {}, {}
    with show.step("asking XenStore", rounds * 4) as step:
        for name, launch in prepared.ours.items():
            ours[name] = _xoar(prepared.config, launch, rounds, step)
        for name, launch in prepared.theirs.items():
            theirs[name] = _stock(launch, rounds, step)
    return [
        Row(f"{name}, against {other}", ours[name], theirs[other], "requests/s", more_is_better=True)
        for name in ours
        for other in theirs
    ]


def _xoar(config: Config, launch: Launch, rounds: int, step: Step) -> list[float]:
    """Requests per second of each round."""
    with hosts.running(_XOAR, launch) as (host, _):
        keeper.wait_running(host, up.START_TIMEOUT)
        with Client.connect(host.name) as client:
            domid = guests.create(client, config, config.guests[_NAME])
            return _rates(_Console(client.log(domid, follow=True)), rounds, step)


def _stock(launch: Launch, rounds: int, step: Step) -> list[float]:
    """The same."""
    with hosts.running(_STOCK, launch) as (host, _):
        return _rates(hosts.Log(host), rounds, step)


def _rates(log: hosts.Log | _Console, rounds: int, step: Step) -> list[float]:
    """The same, from what the guest's console shows."""
    rates = []
    for number in range(1, rounds + 1):
        began = log.until(f"rate: round {number}")
        rates.append(_REQUESTS / (log.until(f"rate: done {number}") - began))
        step.advance()
    return rates


class _Console:
    """A guest's log, read as it comes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._seen = b""

    def until(self, text: str) -> float:
        """When a line with this text had come, after what was found before. Raises HostError."""
        wanted = text.encode() + b"\r\n"
        deadline = hosts.now() + hosts.LONG
        while wanted not in self._seen:
            self._seen += self._stream.read(1.0)
            if _FAILED.encode() in self._seen or hosts.now() > deadline:
                raise HostError(f"{self._stream.what}: no {text!r}", detail=repr(self._seen[-500:]))
        self._seen = self._seen.partition(wanted)[2]
        return hosts.now()


def _guest(system: apt.Apt, show: Reporter) -> Path:
    hypervisor = xen.build(system, show)
    abi.generate(hypervisor, show)
    core = nano.core(micropython.build(system, show), hypervisor, show)
    return nano.shard(_NAME, "xoar.shards.guest.store_rate", core, show).elf
