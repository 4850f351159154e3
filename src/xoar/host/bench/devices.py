"""`xoar bench devices`: a Debian guest with a network interface and disks, on both kinds of host.

Each round boots a Xoar host, has it stand still, boots the stock host, on the same emulated machine and on an
identical copy of the data disk, and puts both guests through each workload in turn: so what is compared is
measured within a minute or two, and a machine whose speed changes later does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from xoar.host import apt, guests, keeper, up
from xoar.host.bench import boot, hosts, prepared, stock, stock_devices, turns, workloads
from xoar.host.bench.guest_link import Agent, Listener
from xoar.host.bench.pair import STOCK, XOAR
from xoar.host.bench.report import Row
from xoar.host.bench.turns import Figures, Side
from xoar.host.client import Client
from xoar.host.emulator import Launch
from xoar.host.progress import Reporter, Step
from xoar.host.state import Host

LOGIN = "emulator's start to the guest's login"
LOGIN_UNPACKED = "the same, stock without unpacking domain 0's kernel"
NETWORK = "emulator's start to the guest's first connection"
MEMORY = "memory of the control plane and drivers"


@dataclass(frozen=True)
class Pair:
    """Both hosts, ready to start."""

    xoar: Launch
    stock: Launch
    guest: prepared.Prepared
    iperf3: list[str]
    stock_kernel: str

    def facts(self) -> dict[str, str]:
        """What is compared, in words."""
        machine, guest = self.xoar.machine, prepared.GUEST
        models = ", ".join(f"{device.model}" for device in machine.devices)
        return {
            "emulator": f"QEMU {self.xoar.qemu.version}, software emulation (TCG), {machine.cpus} CPUs, "
            f"{machine.memory_mib} MiB, {models} behind an IOMMU",
            "xoar": f"Xen {self.xoar.xen_version}; a NetBack and a BlkBack",
            "stock": f"Xen {self.stock.xen_version}, domain 0: Linux {self.stock_kernel}, "
            f"{stock.MEMORY_MIB} MiB, a bridge, volumes of the same thin pool of LVM",
            "guest": f"Debian 12 from its own disk, PVH, {guest.vcpus} vCPU, {guest.memory_kib >> 10} MiB",
        }


def prepare(show: Reporter) -> Pair:
    """Builds what is not in the cache. Raises HostError."""
    system = apt.Apt(show)
    guest = prepared.prepare(XOAR, system, show)
    xoar = up.prepare(guest.config, show)
    other = stock_devices.build(guest, system, show)
    theirs = other.launch(guest.config, devices=up.emulated_devices(guest.config.for_host(STOCK)))
    return Pair(
        turns.pausable(xoar),
        turns.pausable(theirs),
        guest,
        workloads.iperf3(system, show),
        other.kernel_version,
    )


def run(pair: Pair, rounds: int, show: Reporter) -> list[Row]:
    """`rounds` boots of each host, each with all workloads. Raises HostError."""
    xoar: Figures = defaultdict(list)
    other: Figures = defaultdict(list)
    try:
        with show.step(
            "measuring both hosts in turn", 2 * rounds * (1 + turns.TIMES * len(workloads.ALL))
        ) as step:
            for _ in range(rounds):
                with _xoar(pair, xoar) as ours:
                    step.advance()
                    with _stock(pair, other) as theirs:
                        step.advance()
                        _workloads((ours, theirs), pair.iperf3, step)
    finally:
        for host in map(Host, (XOAR, STOCK)):
            if host.alive() is None:  # else it is another benchmark's
                host.stop(erase=True)
    rows = [Row(name, xoar[name], other[name]) for name in (LOGIN, LOGIN_UNPACKED, NETWORK)]
    rows += [
        Row(load.name, xoar[load.name], other[load.name], load.unit, load.more_is_better)
        for load in workloads.ALL
    ]
    return [*rows, Row(MEMORY, xoar[MEMORY], other[MEMORY], "MiB")]


@dataclass(frozen=True)
class _Side(Side):
    """A host with its guest."""

    guest: Agent


@contextmanager
def _xoar(pair: Pair, figures: Figures) -> Iterator[_Side]:
    config = pair.guest.config
    with _started(XOAR, pair.xoar, pair.guest) as (host, started, listener):
        keeper.wait_running(host, up.START_TIMEOUT)
        with Client.connect(host.name) as client:
            domid = guests.create(client, config, prepared.GUEST)
            boot.read_until_login(client.log(domid, follow=True))
            login = hosts.now() - started
        figures[LOGIN].append(login)
        figures[LOGIN_UNPACKED].append(login)
        guest = _called(listener, started, figures)
        with Client.connect(host.name) as client:
            used = [entry.memory_kib for entry in client.objects() if entry.id != domid]
        figures[MEMORY].append(sum(used) / 1024)
        yield _paused(host, guest, figures)


@contextmanager
def _stock(pair: Pair, figures: Figures) -> Iterator[_Side]:
    with _started(STOCK, pair.stock, pair.guest) as (host, started, listener):
        login, unpacking = boot.stock_login(host, started)
        figures[LOGIN].append(login)
        figures[LOGIN_UNPACKED].append(login - unpacking)
        guest = _called(listener, started, figures)
        figures[MEMORY].append(stock.MEMORY_MIB)
        yield _paused(host, guest, figures)


@contextmanager
def _started(name: str, launch: Launch, guest: prepared.Prepared) -> Iterator[tuple[Host, float, Listener]]:
    """A host with its own copy of the disk, when its emulator started, and who waits for its guest's call."""
    with Listener() as listener:  # its port keeps another benchmark from taking the disk away
        guest.copy_for(Host(name))
        with hosts.running(name, launch) as (host, started):
            yield host, started, listener


def _called(listener: Listener, started: float, figures: Figures) -> Agent:
    guest, when = listener.wait(hosts.LONG)
    figures[NETWORK].append(when - started)
    return guest


def _paused(host: Host, guest: Agent, figures: Figures) -> _Side:
    guest.run("sh", "-c", "systemctl is-system-running --wait || true")  # nothing of the boot goes on
    turns.pause(host)
    return _Side(host, figures, guest)


def _workloads(sides: tuple[_Side, _Side], iperf3: list[str], step: Step) -> None:
    for load in workloads.ALL:
        for _ in range(turns.TIMES):
            for side in sides:
                side.take(load.name, partial(load.measure, side.guest, iperf3))
                step.advance()
