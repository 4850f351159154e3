"""`xoar bench devices`: a Debian guest with a network interface and disks, on both kinds of host.

Each round boots a Xoar host and the stock host, on the same emulated machine and on identical copies of the
data disk, in turns of seconds, and puts both guests through each workload in turn: while one goes on, the
other stands still.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from xoar.host.config import Config
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
                with (
                    Listener() as listener,  # its port keeps another benchmark from taking the disks away
                    _started(XOAR, pair.xoar, pair.guest) as ours,
                    _started(STOCK, pair.stock, pair.guest) as theirs,
                ):
                    with turns.alternating((ours, theirs)), ThreadPoolExecutor(2) as pool:
                        coming = (
                            pool.submit(_xoar, ours, pair.guest.config, listener, xoar),
                            pool.submit(_stock, theirs, listener, other),
                        )
                        sides = [side.result() for side in coming]
                    step.advance(len(sides))
                    _workloads(sides, pair.iperf3, step)
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
def _started(name: str, launch: Launch, guest: prepared.Prepared) -> Iterator[turns.Player]:
    """A host with its own copy of the disk, which rests as soon as its emulator is there."""
    guest.copy_for(Host(name))
    with hosts.running(name, launch) as (host, started):
        player = turns.Player(host, started)
        player.rest()
        yield player


def _xoar(player: turns.Player, config: Config, listener: Listener, figures: Figures) -> _Side:
    host = player.host
    with player.brought_up():
        keeper.wait_running(host, up.START_TIMEOUT)
        with Client.connect(host.name) as client:
            domid = guests.create(client, config, prepared.GUEST)
            boot.read_until_login(client.log(domid, follow=True))
            login = player.elapsed(hosts.now())
        figures[LOGIN].append(login)
        figures[LOGIN_UNPACKED].append(login)
        guest = _called(player, listener, figures)
        with Client.connect(host.name) as client:
            used = [entry.memory_kib for entry in client.objects() if entry.id != domid]
        figures[MEMORY].append(sum(used) / 1024)
        return _Side(player, figures, guest)


def _stock(player: turns.Player, listener: Listener, figures: Figures) -> _Side:
    with player.brought_up():
        login, unpacking = boot.stock_login(player.host, player.elapsed)
        figures[LOGIN].append(login)
        figures[LOGIN_UNPACKED].append(login - unpacking)
        guest = _called(player, listener, figures)
        figures[MEMORY].append(stock.MEMORY_MIB)
        return _Side(player, figures, guest)


def _called(player: turns.Player, listener: Listener, figures: Figures) -> Agent:
    guest, when = listener.wait(hosts.emulator(player.host), hosts.LONG)
    figures[NETWORK].append(player.elapsed(when))
    guest.run("sh", "-c", "systemctl is-system-running --wait || true")  # nothing of the boot goes on
    return guest


def _workloads(sides: list[_Side], iperf3: list[str], step: Step) -> None:
    for load in workloads.ALL:
        for _ in range(turns.TIMES):
            for side in sides:
                side.take(load.name, partial(load.measure, side.guest, iperf3))
                step.advance()
