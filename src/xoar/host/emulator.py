"""The emulated machine: which QEMU runs it, its command line, and its life as a process.

Xen's own console goes to a file (a reader that stops must not stall the machine), the second serial
port, the operator's line, and QMP to sockets that the owner of the process holds the other ends of.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec
from qemu.qmp import QMPClient, QMPError

from xoar.host import apt, cache, commands, pci
from xoar.host.errors import CommandError, HostError
from xoar.host.progress import Reporter
from xoar.host.state import QEMU_LOG, XEN_LOG

_NO_KEYS = f"file,id=xen,path={XEN_LOG}"
_KEYS = f"socket,id=xen,path=keys,server=on,wait=off,logfile={XEN_LOG}"
MONITOR = "monitor"
"""The socket in the folder of a host `under_test` that leads to its emulator's second monitor (QMP)."""
_MONITOR = (
    "-chardev",
    f"socket,id={MONITOR},path={MONITOR},server=on,wait=off",
    "-mon",
    f"chardev={MONITOR},mode=control",
)
_PROGRAM = "qemu-system-x86_64"
# With QEMU 10 Linux PVH guests never start, cause unknown; 7.2 is what Xoar is tested with.
_GOOD = re.compile(r"version (7\.2\.\d+)")
_TARGET = re.compile(r"[a-z][a-z0-9_.-]* (-|[0-9]{1,3}(\.[0-9]{1,3}){3}) [0-9]{1,5}")
_START_SECONDS = 20.0  # for the process to answer on QMP
_QUIT_SECONDS = 5.0
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# What Xen needs to be told in every emulated host.
_XEN_OPTIONS = (
    "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all noreboot dom0=pvh"
    " flask=enforcing"
    " sched=credit"  # credit2, the default, stalls runnable vCPUs under software emulation
    " svm-apic-again"  # QEMU loses interrupts of CPUs that enter a guest: patch 0014
    " sched_credit_tslice_ms=5"  # 30, the default: a guest waits so long for each of those that are busy
)
# a PVH domain 0 insists on an IOMMU; a machine without devices has none
_NO_IOMMU = " dom0-iommu=none"
# beside driver domains, which are PV, QEMU loses some of CPU 0's changes from and to PVH guests: patch 0007
_SPARE_CPU0 = " hvm-spares-cpu0"


@dataclass(frozen=True)
class Qemu:
    """A QEMU that works: the words that start it, what its environment needs, its version."""

    argv: tuple[str, ...]
    version: str
    environment: dict[str, str] = field(default_factory=dict)


class Machine(msgspec.Struct, frozen=True):
    """What to boot. Paths are absolute; `memory_mib` and `cpus` are the machine's, in MiB and threads."""

    xen: str
    kernel: str
    modules: list[str] = []
    kernel_arguments: str = ""
    xen_arguments: str = ""
    memory_mib: int = 4096
    cpus: int = 2
    devices: list[pci.Device] = []
    under_test: bool = False
    """Whether Xen's console takes input, its debug keys, on the socket `keys` in the host's folder, and QEMU
    has a second monitor on the socket `monitor`: for tests only, since whoever connects and does not read
    stalls the machine."""


class Launch(msgspec.Struct, frozen=True):
    """All that the keeper needs to start a host: stored as `launch.json` in the host's folder.

    `failures` are regular expressions; a line of Xen's console that matches one from its beginning
    means that the host failed. Lines of a domain begin with "(d<domid>) ", Xen's own with "(XEN) ".
    """

    machine: Machine
    qemu: Qemu
    xen_version: str
    failures: tuple[str, ...] = (r"\(XEN\) Panic on CPU",)


def find(system: apt.Apt, show: Reporter) -> Qemu:
    """A QEMU of the tested series: the installed one, else Debian's, unpacked in the cache."""
    return installed() or pinned(system, show)


def installed() -> Qemu | None:
    """The QEMU in PATH if it is of the tested series."""
    path = shutil.which(_PROGRAM)
    if path is None:
        return None
    version = _version([path], {})
    return Qemu((path,), version) if version else None


def _version(argv: list[str], extra: dict[str, str]) -> str:
    done = subprocess.run(
        [*argv, "--version"], capture_output=True, text=True, env=commands.environment(extra), check=False
    )
    match = _GOOD.search(done.stdout)
    return match[1] if match else ""


def pinned(system: apt.Apt, show: Reporter) -> Qemu:
    """Debian 12's QEMU with all its libraries, down to the C library, in the cache.

    It is started through its own dynamic loader, so it runs on any Debian. Raises HostError.
    """

    def recipe(work: cache.Workspace) -> None:
        debs = work.scratch / "debs"
        debs.mkdir()
        system.download_with_dependencies(["qemu-system-x86"], debs)
        apt.unpack(debs, work.result, work.log)

    name = cache.key("qemu 1", apt.BINARY_SUITE)
    root = cache.build("qemu", name, recipe, show, title="preparing QEMU 7.2")
    libraries = [
        root / place / "x86_64-linux-gnu" / sub for place in ("lib", "usr/lib") for sub in ("", "pulseaudio")
    ]
    data = [root / "usr/share" / name for name in ("qemu", "seabios", "ipxe/qemu")]
    start = [
        str(root / apt.LOADER),
        "--library-path",
        ":".join(map(str, libraries)),
        f"{root}/usr/bin/{_PROGRAM}",
    ]
    environment = {"QEMU_MODULE_DIR": f"{root}/usr/lib/x86_64-linux-gnu/qemu"}
    version = _version(start, environment)
    if not version:
        raise HostError(
            f"the QEMU in {root} does not start, or is not of the 7.2 series",
            hint=f"Remove {root} and start again, or install Debian 12's qemu-system-x86.",
        )
    return Qemu((*start, *(word for place in data for word in ("-L", str(place)))), version, environment)


def command(qemu: Qemu, machine: Machine, line_fd: int, qmp_fd: int) -> list[str]:
    """The command line, for a process whose working directory is the host's folder.

    `line_fd` and `qmp_fd` are connected stream sockets that the process inherits. The modules are
    taken from the links that `link_modules` makes: QEMU splits their list at commas and spaces.
    """
    options = _XEN_OPTIONS + (_SPARE_CPU0 if machine.devices else _NO_IOMMU)
    modules = [_module(index) for index in range(len(machine.modules) + 1)]
    modules[0] = f"{modules[0]} {machine.kernel_arguments}".strip().replace(",", ",,")
    return [
        *qemu.argv, "-accel", "tcg,thread=multi", *pci.machine(machine.devices),
        # +npt: a PVH domain 0 needs nested paging, which this model does not have by itself
        "-cpu", "qemu64,+svm,+npt", "-m", str(machine.memory_mib), "-smp", str(machine.cpus),
        "-nodefaults", "-display", "none", "-no-reboot",
        "-chardev", _KEYS if machine.under_test else _NO_KEYS, "-serial", "chardev:xen",
        "-chardev", f"socket,id=line,fd={line_fd}", "-serial", "chardev:line",
        "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
        *(_MONITOR if machine.under_test else ()),
        *pci.arguments(machine.devices),
        "-kernel", machine.xen, "-append", f"{options} {machine.xen_arguments}".strip(),
        "-initrd", ",".join(modules),
    ]  # fmt: skip


def _module(index: int) -> str:
    return f"module-{index}"


def link_modules(machine: Machine, folder: Path) -> None:
    """Make links to the kernel and the modules in the host's folder."""
    for index, target in enumerate([machine.kernel, *machine.modules]):
        (folder / _module(index)).symlink_to(target)


def _die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, however that happens."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class RunState(enum.Enum):
    """Where an Emulator is in its life."""

    IDLE = "not started"
    RUNNING = "running"
    ENDED = "ended"


class Emulator:
    """One QEMU process: `start` it once, then `wait` or `quit`. As a context manager it never outlives
    its block. A method called in the wrong state raises HostError and changes nothing."""

    def __init__(self, launch: Launch, folder: Path) -> None:
        self.state = RunState.IDLE
        self.argv: list[str] = []
        self._launch = launch
        self._folder = folder
        self._qmp = QMPClient("xoar")

    @property
    def pid(self) -> int:
        self._require(RunState.RUNNING)
        return self._process.pid

    async def start(self) -> socket.socket:
        """Start the process; returns this side of the operator's line.

        If that fails there is no process, and the state is IDLE or, if it ran for a moment, ENDED.
        """
        self._require(RunState.IDLE)
        line, its_line = socket.socketpair()
        qmp, its_qmp = socket.socketpair()
        with its_line, its_qmp, open(self._folder / QEMU_LOG, "wb") as log:
            try:
                fds = (its_line.fileno(), its_qmp.fileno())
                self.argv = command(self._launch.qemu, self._launch.machine, *fds)
                log.write(f"$ {shlex.join(self.argv)}\n".encode())
                log.flush()
                self._process = await asyncio.create_subprocess_exec(
                    *self.argv, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, **self._launch.qemu.environment},
                    pass_fds=fds, preexec_fn=_die_with_parent,
                )  # fmt: skip
            except BaseException:
                line.close()
                qmp.close()
                raise
        self.state = RunState.RUNNING
        try:
            await asyncio.wait_for(self._qmp.connect(qmp), _START_SECONDS)
        except (QMPError, OSError, TimeoutError) as error:
            line.close()
            status = await self.quit()
            raise self.failure(f"QEMU does not start (exit code {status}): {error}") from error
        return line

    async def forward(self, card: str, untrusted_address: str, untrusted_port: str) -> int:
        """Have QEMU's user network behind network card `card` lead a port of this machine to a guest's.

        Address "-" is the first one that the network's DHCP gives. Returns the port, on 127.0.0.1.
        Raises HostError with QEMU's words.
        """
        self._require(RunState.RUNNING)
        if not _TARGET.fullmatch(f"{card} {untrusted_address} {untrusted_port}"):
            raise HostError(f"{card} {untrusted_address} {untrusted_port}: no card, IPv4 address and port")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        address = "" if untrusted_address == "-" else untrusted_address
        words = f"hostfwd_add {card} tcp:127.0.0.1:{port}-{address}:{untrusted_port}"
        try:
            said = await self._qmp.execute("human-monitor-command", {"command-line": words})
        except QMPError as error:
            raise HostError(f"QEMU refuses to forward a port: {error}") from error
        if said:
            raise HostError(f"QEMU refuses to forward a port: {said}")
        return port

    async def wait(self) -> int:
        """Wait for the end of the process; its exit code (negative: the signal that ended it)."""
        self._require(RunState.RUNNING, RunState.ENDED)
        status = await self._process.wait()
        self.state = RunState.ENDED
        return status

    async def quit(self) -> int:
        """End the process: by QMP, by force if that takes more than a few seconds. Its exit code."""
        self._require(RunState.RUNNING, RunState.ENDED)
        if self._process.returncode is None:
            with contextlib.suppress(QMPError, TimeoutError):
                await asyncio.wait_for(self._qmp.execute("quit"), _QUIT_SECONDS)
            try:
                # Also when it did not hear that: who closed its monitor is ending by itself, and kill()
                # then may take its exit code away from asyncio, which reports 255 (seen with CPython 3.11)
                await asyncio.wait_for(self._process.wait(), _QUIT_SECONDS)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        status = await self.wait()
        with contextlib.suppress(QMPError, EOFError, OSError):  # it may have ended before the farewell
            await self._qmp.disconnect()
        return status

    def failure(self, message: str) -> CommandError:
        """The error for a QEMU that ended by itself: with its command, exit code and last output."""
        output = (self._folder / QEMU_LOG).read_text(errors="replace").splitlines()[1:]
        status = self._process.returncode if self._process.returncode is not None else 0
        return CommandError(
            message, self.argv, status, log=self._folder / QEMU_LOG, detail="\n".join(output[-8:])
        )

    def _require(self, *states: RunState) -> None:
        if self.state not in states:
            raise HostError(f"the emulator is {self.state.value}, not {' or '.join(s.value for s in states)}")

    async def __aenter__(self) -> Emulator:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state is not RunState.IDLE:
            await self.quit()
