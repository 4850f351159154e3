"""A real host under test: Xen in the emulator, used through the command line as an operator uses it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xoar.host import config, keeper, up
from xoar.host.apt import Apt
from xoar.host.assembly import Replacement
from xoar.host.build import micropython, nano, xen
from xoar.host.cache import CHECKOUT
from xoar.host.client import Client
from xoar.host.emulator import MONITOR
from xoar.host.progress import Reporter
from xoar.host.state import Host
from xoar.privilege import bootplan, shardset

SHARDS = [shard.name for shard in bootplan.plan(shardset.load_all()).shards]
"""The shards that every host has, by their domids from 1 on."""
ATTACKS = Path(__file__).parent / "attacks"
LOGIN = re.compile(rb"login: ")
_ACPI_HOTPLUG = 0xCC0  # q35's registers
_SWITCH_INPUT = b"\x01\x01\x01"  # three times ctrl-a: Xen's console input goes to Xen itself


def nano_guest(name: str, main: str) -> Path:
    """The ELF of a nano guest of this name, whose main is a module of attacks/."""
    show = Reporter()
    system = Apt(show)
    core = nano.core(micropython.build(system, show), xen.build(system, show), show)
    return nano.shard(name, main, core, show, ATTACKS).elf


class HostUnderTest:
    """One running host. Its folder is `folder`; Xen's console is in `xen_log`."""

    def __init__(self, host: Host, config_file: Path) -> None:
        self.host = host
        self.config_file = config_file
        self.xen_log = host.xen_log

    def environment(self, tenant: str = "") -> dict[str, str]:
        """With which `xoar` speaks with this host, for a tenant's operator if one is named."""
        name = f"{tenant}@{self.host.name}" if tenant else self.host.name
        return os.environ | {"XOAR_HOST": name, "XOAR_CONFIG": str(self.config_file)}

    def cli(
        self, *arguments: str, input: str = "", status: int = 0, timeout: float = 300, tenant: str = ""
    ) -> str:
        """Standard output of `xoar ...`, said by a tenant's operator if one is named; it has to end with this
        exit code."""
        done = subprocess.run(
            [str(CHECKOUT / "xoar"), *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(tenant),
        )
        told = f"xoar {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == status, told
        return done.stdout if status == 0 else done.stderr

    def json(self, *arguments: str, tenant: str = "") -> Any:
        return json.loads(self.cli(*arguments, "--json", tenant=tenant))

    def client(self) -> Client:
        return Client.connect(self.host.name)

    def create(self, name: str, image: str = "tiny", memory: str = "32MiB", *more: str) -> int:
        """Creates a guest; its domid."""
        self.cli("guest", "create", name, "--image", image, "--memory", memory, *more)
        return self.domid(name)

    def domid(self, name: str) -> int:
        return next(int(row["id"]) for row in self.json("ps") if row["name"] == name)

    def shown(self, name: str, key: str, value: object, timeout: float = 60) -> Any:
        """What `xoar guest show` says of a guest once a key has a value."""
        deadline = time.monotonic() + timeout
        while True:
            facts = self.json("guest", "show", name)
            if facts[key] == value:
                return facts
            assert time.monotonic() < deadline, f"{name}: {key} is {facts[key]!r}, not {value!r}"

    def wait_json(
        self, holds: Callable[[Any], bool], *arguments: str, tenant: str = "", timeout: float = 60
    ) -> Any:
        """What a command prints with --json once that holds of it."""
        deadline = time.monotonic() + timeout
        while not holds(found := self.json(*arguments, tenant=tenant)):
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
        return found

    def destroy(self, *names: str) -> None:
        for name in names:
            self.cli("guest", "destroy", name)

    def destroy_all(self) -> None:
        """Ends every guest that there is."""
        for row in self.json("guest", "list"):
            self.cli("guest", "destroy", row["name"])

    def wait_for(self, name: str, pattern: bytes, timeout: float = 120) -> bytes:
        """A guest's log once it matches. Fails at once if the guest has crashed."""
        domid = self.domid(name)
        with self.client() as client:
            stream = client.log(domid, follow=True)
            seen = b""
            deadline = time.monotonic() + timeout
            while not re.search(pattern, seen):
                assert not re.search(rb"Kernel panic|Call Trace:", seen), seen[-2000:].decode(
                    errors="replace"
                )
                assert time.monotonic() < deadline, (
                    f"{name}: no {pattern!r} in:\n{seen[-2000:].decode(errors='replace')}"
                )
                seen += stream.read(1.0)
            return seen

    def ask(self, name: str, text: str, pattern: bytes, timeout: float = 120) -> bytes:
        """What a guest's console shows after a line was typed into it, up to a match."""
        with self.client() as client:
            console = client.console(self.domid(name))
            console.write(text.encode() + b"\n")
            seen = b""
            deadline = time.monotonic() + timeout
            while not re.search(pattern, seen):
                assert time.monotonic() < deadline, f"{name}: no {pattern!r} in {seen[-2000:]!r}"
                seen += console.read(1.0)
            return seen

    def run(self, name: str, *commands: str, timeout: float = 120) -> str:
        """What a guest's shell prints, as root; the echo of the commands included."""
        script = "".join(command + "\n" for command in commands)
        return self.cli("console", name, "--login", "root", "--timeout", str(timeout), input=script)

    def free_kib(self) -> int:
        """The host's free memory."""
        return int(self.json("status")["free_kib"])

    def log_since(self, position: int) -> str:
        """Xen's console from a position on, as far as it has come: its last line may be half a line."""
        with open(self.xen_log, "rb") as file:
            file.seek(position)
            return file.read().decode(errors="replace").replace("\r", "")

    def log_position(self) -> int:
        return self.xen_log.stat().st_size

    def wait_log(self, pattern: str, since: int, timeout: float = 60) -> re.Match[str]:
        """A match in Xen's console after a position."""
        deadline = time.monotonic() + timeout
        while True:
            text = self.log_since(since)
            found = re.search(pattern, text, re.MULTILINE)
            if found:
                return found
            assert time.monotonic() < deadline, f"no {pattern!r} in Xen's console:\n{text[-2000:]}"
            time.sleep(0.1)

    def debug_key(self, key: str, last: str) -> str:
        """What Xen prints for one of its debug keys, up to its last line, which begins with `last`.

        Taken from the socket: in its log file QEMU repeats characters that the socket did not take at once.
        """
        with self._xen_listens() as keys:
            return self._typed(keys, key.encode(), f"(XEN) {last}")

    def said_since(self, position: int) -> str:
        """Xen's console from a position to what it says now, all of it.

        The serial line is slower than a domain's console: an attacker may be done, and say so, before the
        line has shown the last of its denials. Xen answers behind them.
        """
        with self._xen_listens():
            pass
        return self.log_since(position)

    def monitor(self, command: str, **arguments: object) -> Any:
        """What QEMU's monitor returns for a command (QMP)."""
        with self._connected(MONITOR) as connection, connection.makefile("rw") as lines:
            lines.readline()  # its greeting
            for execute, words in (("qmp_capabilities", {}), (command, arguments)):
                lines.write(json.dumps({"execute": execute, "arguments": words}) + "\n")
                lines.flush()
                while "event" in (answer := json.loads(lines.readline())):
                    pass
                assert "return" in answer, answer
        return answer["return"]

    def pull(self, device: str, port: int) -> None:
        """Takes a device out of its slot (root port `port`), which QEMU only does if the machine agrees.

        That is for ACPI to do, for which nobody is there: its part is done here, with the registers that
        docs/specs/acpi_pci_hotplug.txt of QEMU describes.
        """
        bus = self.monitor(
            "qom-get", path=f"/machine/peripheral/port{port}/port{port}", property="acpi-pcihp-bsel"
        )
        self.monitor("device_del", id=device)
        for register, value in ((0x10, bus), (0x8, 1)):
            line = f"o /w {_ACPI_HOTPLUG + register:#x} {value}"
            said = self.monitor("human-monitor-command", **{"command-line": line})
            assert said == "", said
        assert device not in str(self.monitor("qom-list", path="/machine/peripheral"))

    @contextmanager
    def _xen_listens(self) -> Iterator[socket.socket]:
        """Xen's console, whose input goes to Xen itself until the end of the block."""
        with self._connected("keys") as keys:
            self._typed(keys, _SWITCH_INPUT, "*** Serial input to Xen")
            yield keys
            self._typed(keys, _SWITCH_INPUT, "*** Serial input to DOM")

    @contextmanager
    def _connected(self, name: str) -> Iterator[socket.socket]:
        """A connection to a socket in the host's folder."""
        with self.host.connect(to=name) as connection:
            connection.settimeout(30)
            yield connection

    def domains_in_xen(self) -> dict[int, int]:
        """Domid -> pages of each domain, from Xen's debug key q."""
        text = self.debug_key("q", "Shared frames")
        found = re.findall(r"General information for domain (\d+):.*?nr_pages=(\d+)", text, re.DOTALL)
        return {int(domid): int(pages) for domid, pages in found if int(domid) < 0x7FF0}

    def _typed(self, keys: socket.socket, typed: bytes, answer: str) -> str:
        """Types into Xen's console and reads up to a whole line that has the answer."""
        keys.sendall(typed)
        text = ""
        while not re.search(re.escape(answer) + ".*\n", text):
            data = keys.recv(65536)
            assert data, f"Xen's console ended before it said {answer!r}"
            text += data.decode(errors="replace").replace("\r", "")
        return text


@contextmanager
def launched(
    name: str, text: str, folder: Path, replaced: Mapping[str, Replacement] | None = None
) -> Iterator[HostUnderTest]:
    """A host made from the text of an xoar.toml, with blank disks, ended afterwards; it need not serve yet.

    Its logs stay in `folder`.
    """
    config_file = folder / f"{name}.toml"
    config_file.write_text(text)
    settings = config.load(config_file).for_host(name)
    host = Host(name)
    host.stop(erase=True)
    launch = up.prepare(settings, Reporter(), replaced, under_test=True)
    keeper.launch(host, launch)
    try:
        yield HostUnderTest(host, config_file)
    finally:
        for log in (host.xen_log, host.keeper_log, host.qemu_log):
            if log.is_file():
                (folder / f"{name}-{log.name}").write_bytes(log.read_bytes())
        host.stop(erase=True)


@contextmanager
def running(
    name: str, text: str, folder: Path, replaced: Mapping[str, Replacement] | None = None
) -> Iterator[HostUnderTest]:
    """The same, once it serves, and its tenants' Toolstacks are there."""
    with launched(name, text, folder, replaced) as host:
        keeper.wait_running(host.host, up.START_TIMEOUT)
        if "[tenants." in text:
            host.wait_json(
                lambda rows: all(row["state"] == "ready" for row in rows), "tenant", "list", timeout=300
            )
        yield host
