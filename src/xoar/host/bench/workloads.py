"""What the guest is put through, one after the other, and how each figure comes about.

The guest's clock is not trusted: what fio and ping report by it is corrected by how long the whole program
took on the clock of the machine that runs the emulator. iperf3's figures are those of its end there.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xoar.host import apt, cache, commands, loader
from xoar.host.bench import agent
from xoar.host.bench.guest_link import Agent, Done
from xoar.host.errors import HostError
from xoar.host.progress import Reporter

SENDS, RECEIVES = "network: guest sends (iperf3)", "network: guest receives (iperf3)"
DISK = "/dev/xvdb"
SIZE_KIB = 256 << 10  # of that disk

_PORT = 47802  # of iperf3's server, on the loopback
_SECONDS = 5  # that iperf3 and fio run
_START = 0.5  # seconds for iperf3's server to listen
_DOWNLOAD = 96 << 20  # bytes
_VERIFIED_MIB = 48
_PINGS = 40
_PING = re.compile(r"= [0-9.]+/([0-9.]+)/[0-9.]+/[0-9.]+ ms")

# Bytecode from the sources of Python's own library: many small files and much computing, as a compiler does.
# In memory, so that neither host's disk counts.
_COMPILE = (
    "set -e; rm -rf /run/bench; mkdir /run/bench; cp -r /usr/lib/python3.11/asyncio /run/bench/;"
    " cp -r /usr/lib/python3.11/email /run/bench/; cp -r /usr/lib/python3.11/unittest /run/bench/;"
    " python3 -m compileall -q -f /run/bench"
)


class Runner(Protocol):
    """Who runs programs in the guest."""

    def run(self, *words: str) -> Done:
        """As `Agent.run` of guest_link."""


@dataclass(frozen=True)
class Workload:
    """One figure, in `unit`; `measure` raises HostError."""

    name: str
    unit: str
    more_is_better: bool
    measure: Callable[[Agent, list[str]], float]
    """Takes the guest's agent, and the words that start iperf3 on this machine."""


def prepare(guest: Agent) -> None:
    """Fills the disk, so that nothing measured is the first write to a place: that costs a thin pool more."""
    size = SIZE_KIB >> 10
    guest.run("dd", "if=/dev/urandom", f"of={DISK}", "bs=1M", f"count={size}", "oflag=direct", "status=none")


def iperf3(system: apt.Apt, show: Reporter) -> list[str]:
    """The words that start Debian 12's iperf3 on this machine, from the cache. Raises HostError."""
    return loader.command(iperf3_tree(system, show), "usr/bin/iperf3")


def iperf3_tree(system: apt.Apt, show: Reporter) -> Path:
    """A folder with `usr/bin/iperf3` and all libraries that it needs."""

    def recipe(work: cache.Workspace) -> None:
        debs = work.scratch / "debs"
        debs.mkdir()
        system.download_with_dependencies(["iperf3"], debs)
        apt.unpack(debs, work.result, work.log)

    name = cache.key("iperf3 1", apt.BINARY_SUITE)
    return cache.build("iperf3", name, recipe, show, title="preparing iperf3")


def sends(guest: Runner, iperf: list[str]) -> float:
    """Mbit/s from the guest to this machine, by this machine's figures."""
    return _iperf(guest, iperf, "sum_received")


def receives(guest: Runner, iperf: list[str]) -> float:
    """Mbit/s from this machine to the guest."""
    return _iperf(guest, iperf, "sum_sent", "-R")


def _iperf(guest: Runner, iperf: list[str], part: str, *more: str) -> float:
    with _server(iperf) as server:
        time.sleep(_START)  # there is no way to ask whether it listens that it would not take for a test
        client = ("iperf3", "-c", agent.SERVER, "-p", str(_PORT), "-t", str(_SECONDS), *more)
        guest.run(*client)
        return megabits(server.communicate(timeout=10)[0], part)


@contextlib.contextmanager
def _server(iperf: list[str]) -> Iterator[subprocess.Popen[str]]:
    argv = [*iperf, "-s", "-1", "-J", "-B", "127.0.0.1", "-p", str(_PORT)]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=commands.environment()
    ) as process:
        try:
            yield process
        except subprocess.TimeoutExpired as error:
            raise HostError("iperf3's server has not ended after its test") from error
        finally:
            process.kill()


def megabits(report: str, part: str) -> float:
    """Mbit/s that iperf3's server reports in JSON for one direction. Raises HostError."""
    try:
        found = float(json.loads(report)["end"][part]["bits_per_second"]) / 1e6
    except (ValueError, LookupError, TypeError) as error:
        raise HostError("iperf3's server reports no figures", detail=report[-2000:]) from error
    return found


def _ping(guest: Agent, _: list[str]) -> float:
    done = guest.run("ping", "-q", "-c", str(_PINGS), "-i", "0.05", agent.SERVER)
    return ping_ms(done.output) * _slowness(done)


def ping_ms(report: str) -> float:
    """The mean round trip in what ping prints, in ms of its clock. Raises HostError."""
    found = _PING.search(report)
    if found is None or " 0% packet loss" not in report:
        raise HostError("ping got no answer, or not all", detail=report)
    return float(found[1])


def _slowness(done: Done) -> float:
    """Seconds of this machine in one of the guest's clock. The way to the guest and back is milliseconds."""
    return done.seconds / done.guest_seconds


def _fio(mode: str, block: str, depth: int, figure: str) -> Callable[[Agent, list[str]], float]:
    direction = "write" if "write" in mode else "read"

    def measure(guest: Agent, _: list[str]) -> float:
        done = _run_fio(
            guest,
            f"--rw={mode}",
            f"--bs={block}",
            f"--iodepth={depth}",
            "--time_based",
            f"--runtime={_SECONDS}",
        )
        return float(fio_job(done.output)[direction][figure]) / _slowness(done)

    return measure


def _mib(measure: Callable[[Agent, list[str]], float]) -> Callable[[Agent, list[str]], float]:
    return lambda guest, iperf: measure(guest, iperf) / (1 << 20)


def _verified(guest: Agent, _: list[str]) -> float:
    done = _run_fio(
        guest, "--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16", f"--size={_VERIFIED_MIB}m",
        "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
    )  # fmt: skip
    fio_job(done.output)
    return done.seconds


def _run_fio(guest: Agent, *words: str) -> Done:
    return guest.run(
        "fio", "--name=bench", f"--filename={DISK}", f"--size={SIZE_KIB}k", "--direct=1", "--ioengine=libaio",
        "--randrepeat=1", "--output-format=json", *words,
    )  # fmt: skip


def fio_job(report: str) -> dict[str, Any]:
    """What fio reports in JSON of its only job. Raises HostError if there is none, or had errors."""
    try:
        job: dict[str, Any] = json.loads(report[report.index("{") :])["jobs"][0]
        failed = job["error"]
    except (ValueError, LookupError, TypeError) as error:
        raise HostError("fio reports no figures", detail=report[-2000:]) from error
    if failed:
        raise HostError(f"fio found an error (errno {failed})", detail=report[-2000:])
    return job


def _download(guest: Agent, _: list[str]) -> float:
    return _DOWNLOAD / (1 << 20) / guest.download(_DOWNLOAD, DISK).seconds


def _compile(guest: Agent, _: list[str]) -> float:
    return guest.run("sh", "-c", _COMPILE).seconds


ALL = (
    Workload(SENDS, "Mbit/s", True, sends),
    Workload(RECEIVES, "Mbit/s", True, receives),
    Workload("network: round trip (ping)", "ms", False, _ping),
    Workload("disk: sequential read, 256 KiB", "MiB/s", True, _mib(_fio("read", "256k", 4, "bw_bytes"))),
    Workload("disk: sequential write, 256 KiB", "MiB/s", True, _mib(_fio("write", "256k", 4, "bw_bytes"))),
    Workload("disk: random read, 4 KiB", "IOPS", True, _fio("randread", "4k", 16, "iops")),
    Workload("disk: random write, 4 KiB", "IOPS", True, _fio("randwrite", "4k", 16, "iops")),
    Workload(f"disk: {_VERIFIED_MIB} MiB written at random, then verified", "s", False, _verified),
    Workload("both: a download written to disk", "MiB/s", True, _download),
    Workload("CPU: compiling Python modules in memory", "s", False, _compile),
)
