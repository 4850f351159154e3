"""The hosts of this user on disk: one folder per host name, what is in it, and whether it lives.

A host lives as long as its keeper process. Its folder says which process that is by pid *and* start
time, so a pid that was given out again is never taken for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from xoar.host.errors import HostError, disk_errors

STARTING = "starting"
RUNNING = "running"
CRASHED = "crashed"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_STATE_LINE = re.compile(r"\(XEN\) HVM d[^\n]*(\n|$)")
XEN_LOG = "xen.log"
QEMU_LOG = "qemu.log"
KEEPER_LOG = "keeper.log"
LAUNCH = "launch.json"
_RECORD = "host.json"
_CONTROL = "control"
DISKS = "disks"
"""The folder in a host's folder that outlives the host: what its driver domains have on their disks."""


class Record(msgspec.Struct, frozen=True):
    """`host.json`. `state` is starting (Xen boots), running (Console answers) or crashed (`reason` says
    why; no process is left). `keeper` and `emulator` are pids, `keeper_start` is the keeper's start time in
    clock ticks since the machine's boot, `started` Unix time in seconds."""

    name: str
    state: str
    keeper: int
    keeper_start: int
    emulator: int
    started: float
    xen_version: str
    reason: str = ""


def root() -> Path:
    """The folder of all hosts: `$XOAR_STATE`, else `xoar` in the user's state folder."""
    named = os.environ.get("XOAR_STATE")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "xoar"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), stat field 22); None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])  # a zombie has ended


class Host:
    """A host's folder. It need not exist."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise HostError(
                f"{name!r} is no host name",
                hint="A host name has 1 to 32 letters a-z, digits and hyphens, no hyphen at either end.",
            )
        self.name = name
        self.folder = root() / name
        self.xen_log = self.folder / XEN_LOG
        self.qemu_log = self.folder / QEMU_LOG
        self.keeper_log = self.folder / KEEPER_LOG

    def record(self) -> Record | None:
        """What host.json says, None where there is no host."""
        try:
            return msgspec.json.decode((self.folder / _RECORD).read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise HostError(
                f"{self.folder / _RECORD} is damaged: {error}", hint=f"Remove the folder {self.folder}."
            ) from error

    def write(self, record: Record) -> None:
        """Replace host.json in one step."""
        new = self.folder / f".{_RECORD}"
        new.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        new.replace(self.folder / _RECORD)

    def alive(self) -> Record | None:
        """The record if the host's keeper is running, else None."""
        record = self.record()
        if record is None or record.state == CRASHED:
            return None
        return record if start_time(record.keeper) == record.keeper_start else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the name: nobody else starts or stops this host meanwhile."""
        with disk_errors(root()):
            root().mkdir(parents=True, exist_ok=True, mode=0o700)
            path = root() / f".{self.name}.lock"
            while True:
                with open(path, "w") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    # `stop` removes the file; who waited for it meanwhile holds a lock on nothing
                    if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                        yield
                        return

    def connect(self, timeout: float = 5.0, to: str = _CONTROL) -> socket.socket:
        """A connection to the keeper, or to another socket in the host's folder. Raises HostError if the host
        isn't running, or nobody answers there for `timeout` seconds."""
        if self.alive() is None:
            raise HostError(f"host {self.name} is not running", hint="Start it with: xoar up")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            # through /proc: a socket's path may have 107 bytes, a folder's many more
            folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{to}")
            finally:
                os.close(folder)
        except OSError as error:
            connection.close()
            whose = "the keeper" if to == _CONTROL else to
            text = f"{whose} of host {self.name} does not answer: {error.strerror}"
            raise HostError(text, log=self.keeper_log) from error
        connection.settimeout(None)
        return connection

    def clear(self) -> bool:
        """Remove all but the disks, and the folder if there are none; whether there was anything."""
        found = False
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name != DISKS:
                found = True
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the disks are in it, or it is not there
            self.folder.rmdir()
        return found

    def stop(self, timeout: float = 20.0, erase: bool = False) -> bool:
        """End the host if it lives and clear its folder; whether there was anything to end or remove.

        With `erase` its disks are removed, too.
        """
        with self.locked():
            record = self.alive()
            if record is not None:
                _end(record, timeout)
            existed = self.clear()
            if erase and self.folder.is_dir():
                shutil.rmtree(self.folder)
                existed = True
            (root() / f".{self.name}.lock").unlink(missing_ok=True)
            return existed

    def log_end(self, lines: int = 12) -> str:
        """The last lines of Xen's console; "" if there are none.

        Without those that Xen prints for each part of a vCPU's state that is read: they push others out, and
        fall into the middle of what a domain is printing.
        """
        try:
            with open(self.xen_log, "rb") as file:
                file.seek(max(0, self.xen_log.stat().st_size - 400 * lines))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        told = _STATE_LINE.sub("", text.replace("\r", ""))
        return "\n".join([line for line in told.splitlines() if line][-lines:])


def _end(record: Record, timeout: float) -> None:
    """End a keeper with its emulator: politely, then by force."""
    os.kill(record.keeper, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while start_time(record.keeper) == record.keeper_start:
        if time.monotonic() > deadline:
            for pid in (record.emulator, record.keeper):  # both were its own and did not react
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def hosts() -> list[Host]:
    """All hosts that have a folder, by name."""
    if not root().is_dir():
        return []
    return [Host(path.name) for path in sorted(root().iterdir()) if (path / _RECORD).is_file()]
