"""`xoar bench policy`: what it costs that Xen asks FLASK, with few rights stated, before it does something.

The same host with two policies: the one made from the manifests, and one with the same types and labels that
allows everything. FLASK is enforcing in both. The second is made here, lies in a temporary folder while the
benchmark runs, and no configuration can name it.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from xoar.host import apt, guests, keeper, up
from xoar.host.bench import hosts, turns, workloads
from xoar.host.bench.boot import read_until_login
from xoar.host.bench.guest_link import Done
from xoar.host.bench.report import Row
from xoar.host.bench.turns import Figures, Side
from xoar.host.build import guest, linux, policy, xen
from xoar.host.client import BUILD_SECONDS, Client, Stream
from xoar.host.config import Config, Guest, Image
from xoar.host.devices import Driver, Network, Nic
from xoar.host.emulator import Launch
from xoar.host.errors import HostError
from xoar.host.progress import Reporter, Step
from xoar.privilege import flask, shardset, vectors
from xoar.privilege.flask import SYSTEM_TYPES
from xoar.privilege.rules import channel_type, domain_type, name_set, port_type, self_type
from xoar.privilege.shardset import ShardSet
from xoar.privilege.vectors import AccessVectors

HOST = "bench-policy"
SIDES = ("stated", "all")
"""What the columns are called: the rights that manifests state, and all rights."""

CREATE = "creating a guest"

_NET, _LAN = "net0", "lan"
_SHELL = 60.0  # seconds for a shell to answer
_DEFAULT = "default"
_GUEST = Guest(
    "guest",
    "iperf",
    memory_kib=128 << 10,
    command_line="ip=dhcp",
    nics=(Nic(_LAN, mac=bytes.fromhex("00163e0be002")),),
)
_PLAIN = Guest("plain", _DEFAULT)  # what `xoar bench create` creates
_NETWORK = {workloads.SENDS: workloads.sends, workloads.RECEIVES: workloads.receives}


@dataclass(frozen=True)
class Prepared:
    """A host ready to start; `flask` is the folder with Xen's classes and permissions."""

    launch: Launch
    config: Config
    flask: Path
    iperf3: list[str]

    def facts(self) -> dict[str, str]:
        """What is compared, in words."""
        machine = self.launch.machine
        return {
            "emulator": f"QEMU {self.launch.qemu.version}, software emulation (TCG), {machine.cpus} CPUs, "
            f"{machine.memory_mib} MiB",
            "stated": f"Xen {self.launch.xen_version}, FLASK with the rights that the manifests state",
            "all": "the same, FLASK with the same types and every right",
            "guest": f"PVH, {_GUEST.vcpus} vCPU, {_GUEST.memory_kib >> 10} MiB; a NetBack with an e1000e",
        }


def prepare(show: Reporter) -> Prepared:
    """Builds what is not in the cache. Raises HostError."""
    system = apt.Apt(show)
    tree = workloads.iperf3_tree(system, show)
    program = tree / "usr/bin/iperf3"
    extra = {"bin/iperf3": program}
    for library in guest.libraries([program], tree):
        extra[f"{'lib64' if library.name.startswith('ld-') else 'lib'}/{library.name}"] = library
    kernel = linux.build(system, show)  # it asks for an address by itself
    config = Config(
        images={
            _DEFAULT: Image(_DEFAULT, builtin="debian"),
            _GUEST.image: Image(
                _GUEST.image, kernel=kernel, initramfs=guest.initramfs(system, show, extra=extra)
            ),
        },
        drivers={_NET: Driver(_NET, "netback", "e1000e", size_kib=0)},
        networks={_LAN: Network(_LAN, _NET)},
        guests={_GUEST.name: _GUEST},
    ).for_host(HOST)
    launch = turns.pausable(up.prepare(config, show))
    return Prepared(launch, config, xen.build(system, show).flask, workloads.iperf3(system, show))


def run(prepared: Prepared, rounds: int, show: Reporter) -> list[Row]:
    """`rounds` boots with each policy. Raises HostError."""
    stated: Figures = defaultdict(list)
    everything: Figures = defaultdict(list)
    steps = 2 * rounds * turns.TIMES * (1 + len(_NETWORK))
    with tempfile.TemporaryDirectory(prefix="xoar-bench-") as folder:
        file = Path(folder, "policy")
        file.write_bytes(policy.compile(all_rights(shardset.load_all(), vectors.load(prepared.flask))))
        machine = prepared.launch.machine
        open_machine = msgspec.structs.replace(machine, modules=[machine.modules[0], str(file)])
        open_launch = msgspec.structs.replace(prepared.launch, machine=open_machine)
        with show.step("measuring with both policies in turn", steps) as step:
            for _ in range(rounds):
                with (
                    _booted(prepared, "stated", prepared.launch, stated) as one,
                    _booted(prepared, "all", open_launch, everything) as other,
                ):
                    _measure((one, other), prepared, step)
    return [
        Row(CREATE, stated[CREATE], everything[CREATE]),
        *(Row(name, stated[name], everything[name], "Mbit/s", more_is_better=True) for name in _NETWORK),
    ]


def all_rights(shards: ShardSet, access_vectors: AccessVectors) -> str:
    """The text of a policy with these manifests' types and labels in which everybody may do everything."""
    types = list(SYSTEM_TYPES)
    for manifest in shards.manifests.values():
        types += [domain_type(manifest.name), self_type(manifest), channel_type(manifest.name)]
        types += [port_type(manifest.name)] if manifest.serial else []
    every = name_set(dict.fromkeys(types))
    lines = [
        f"allow {every} {every}:{security_class} {name_set(permissions)};"
        for security_class, permissions in access_vectors.permissions.items()
    ]
    return flask.written(shards, access_vectors, lines, ())


@dataclass(frozen=True)
class _Side(Side):
    """A host with a guest."""

    client: Client
    images: guests.Library
    shell: _Shell


@contextmanager
def _booted(prepared: Prepared, name: str, launch: Launch, figures: Figures) -> Iterator[_Side]:
    with hosts.running(f"{HOST}-{name}", launch) as (host, _):
        keeper.wait_running(host, up.START_TIMEOUT)
        with Client.connect(host.name) as client:
            domid = guests.create(client, prepared.config, _GUEST)
            read_until_login(client.log(domid, follow=True))
            side = _Side(host, figures, client, guests.library(client), _Shell(client.console(domid)))
            turns.pause(host)
            yield side


def _measure(sides: tuple[_Side, _Side], prepared: Prepared, step: Step) -> None:
    """Guests created and destroyed, then one that sends and receives."""
    for _ in range(turns.TIMES):
        for side in sides:
            side.take(CREATE, partial(_create, side.client, prepared.config, side.images))
            step.advance()
    for name, measure in list(_NETWORK.items()) * turns.TIMES:
        for side in sides:
            side.take(name, partial(measure, side.shell, prepared.iperf3))
            step.advance()


def _create(client: Client, config: Config, images: guests.Library) -> float:
    """Seconds that a guest's creation takes; it is destroyed at once."""
    time.sleep(hosts.PAUSE)
    began = hosts.now()
    guests.create(client, config, _PLAIN, images)
    took = hosts.now() - began
    client.request("guest_destroy", BUILD_SECONDS, name=_PLAIN.name)
    return took


class _Shell:
    """Runs programs on the guest's console. It has no clock: `guest_seconds` are those of this machine."""

    def __init__(self, console: Stream) -> None:
        self._console = console
        console.write(b"root\n")
        self._until(rb"# ")

    def run(self, *words: str) -> Done:
        """As `Agent.run` of guest_link."""
        began = hosts.now()
        # the echo of the line has no digit behind the mark
        self._console.write(f'{" ".join(words)}; echo "status=$?"\n'.encode())
        said = self._until(rb"\nstatus=(\d+)\r?\n")
        seconds = hosts.now() - began
        status = said.rpartition("status=")[2].strip()
        if status != "0":
            raise HostError(f"in the guest, {' '.join(words)}: exit code {status}", detail=said[-2000:])
        return Done(said, seconds, seconds)

    def _until(self, pattern: bytes) -> str:
        seen = b""
        deadline = time.monotonic() + _SHELL
        while not (found := re.search(pattern, seen)):
            if time.monotonic() > deadline:
                raise HostError(
                    f"the guest's shell has not answered for {_SHELL:.0f} s", detail=repr(seen[-500:])
                )
            seen += self._console.read(1.0)
        return seen[: found.end()].decode(errors="replace")
