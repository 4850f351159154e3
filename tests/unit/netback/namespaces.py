"""Machines on one machine: network namespaces below one user namespace, so that no test needs to be root.

The programs are Debian's, unpacked into the cache and run from there, the same as in NetBack's image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from xoar.host import apt, cache
from xoar.host.progress import Reporter

_PACKAGES = ["iproute2", "nftables", "dnsmasq-base", "busybox-static"]
_PYROUTE2 = "python3-pyroute2"
_PROGRAMS = {"ip": "bin/ip", "nft": "usr/sbin/nft", "dnsmasq": "usr/sbin/dnsmasq", "busybox": "bin/busybox"}
_HERE = Path(__file__).parent


def programs() -> Path:
    """A folder with `bin`, the programs, and `python`, pyroute2; downloaded if it is not there yet."""
    folder = cache.root() / "tools" / "netback-1"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            _unpack(work, folder)
        finally:
            shutil.rmtree(work)
    return folder


def _unpack(work: Path, folder: Path) -> None:
    packages, result = work / "packages", work / "result"
    packages.mkdir()
    result.mkdir()
    debian = apt.Apt(Reporter())
    debian.download_with_dependencies(_PACKAGES, packages)
    debian.download([_PYROUTE2], packages)
    apt.unpack(packages, result / "root", cache.root() / "logs" / "netback-tools.log")
    # without its list of entry points pyroute2 imports only what is asked for, as in the image
    (result / "python").mkdir()
    (result / "root/usr/lib/python3/dist-packages/pyroute2").rename(result / "python/pyroute2")
    (result / "bin").mkdir()
    libraries = sorted({str(p.parent.relative_to(result)) for p in (result / "root").glob("**/lib*.so*")})
    for name, path in _PROGRAMS.items():
        program = folder / "root" / path
        search = ":".join(str(folder / library) for library in libraries)
        loader = f"{folder / 'root' / apt.LOADER} --library-path {search} "
        script = result / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {"" if name == "busybox" else loader}{program} "$@"\n')
        script.chmod(0o755)
    result.rename(folder)


class Machine:
    """One network namespace; `of` is the machine whose user namespace it is in, None: a new one."""

    def __init__(self, of: Machine | None = None) -> None:
        tools = programs()
        self._environment = os.environ | {
            "PATH": f"{tools / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tools / 'python'}",
        }
        enter = ["unshare", "-Urn"] if of is None else [*of.enter("-U"), "unshare", "-n"]
        self._holder = subprocess.Popen(
            [*enter, "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline(), "no network namespace can be made here"
        self._children = [self._holder]
        self.ip("link", "set", "lo", "up")

    @property
    def pid(self) -> str:
        """A process in it."""
        return str(self._holder.pid)

    def enter(self, *namespaces: str) -> list[str]:
        return ["nsenter", "-t", self.pid, *namespaces, "--preserve-credentials"]

    def start(self, *command: str | Path, **options: object) -> subprocess.Popen[str]:
        """Starts a program; it ends with the machine."""
        process: subprocess.Popen[str] = subprocess.Popen(
            [*self.enter("-U", "-n"), *map(str, command)],
            env=self._environment,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        self._children.append(process)
        return process

    def run(self, *command: str | Path, check: bool = True) -> str:
        """What a program prints."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=60)
        assert not check or process.returncode == 0, f"{command}: {output}"
        return output

    def ip(self, *words: str) -> str:
        """Runs iproute2's ip."""
        return self.run("ip", *words)

    def python(self, code: str) -> str:
        """What a piece of Python prints."""
        return self.run(sys.executable, "-c", code).strip()

    def wire(self, name: str, other: Machine, other_name: str, other_mac: str = "") -> None:
        """Makes a network cable, both ends up; `other` may be this machine."""
        peer = ["peer", "name", other_name, *(["address", other_mac] if other_mac else [])]
        self.ip("link", "add", name, "type", "veth", *peer, "netns", other.pid)
        other.ip("link", "set", other_name, "up")

    def frames(self, interface: str) -> Frames:
        """Sends and hears frames on an interface."""
        return Frames(self, interface)

    def end(self) -> None:
        """Ends all that was started in it."""
        for process in self._children:
            process.kill()
        for process in self._children:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()


class Frames:
    """Ethernet frames, as bytes, on an interface of a machine."""

    def __init__(self, machine: Machine, interface: str) -> None:
        script = _HERE / "frame_port.py"
        self._process = machine.start(
            sys.executable, script, interface, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def send(self, frame: bytes) -> None:
        """Sends a frame."""
        self._ask(f"send {frame.hex()}")

    def heard_before(self, last: bytes) -> list[bytes]:
        """What has arrived before `last` did, which has to within 10 s."""
        answer = self._ask(f"hear {last.hex()}")
        assert answer != "timeout", f"never heard {last.hex()}"
        return [bytes.fromhex(word) for word in answer.split()]

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def eventually(what: str, condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds} s still not: {what}"
        time.sleep(0.05)
