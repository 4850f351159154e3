"""One host that is put through a scenario, step by step, to see whether it notices that a right is missing.

Each step has a time limit that comes from how long it took with all rights, and from how much longer the
steps before it took now. It is short once Xen's log says that the right was denied: what then goes on for
much longer than ever will not come.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from xoar.host import keeper
from xoar.host.client import Client, NotRunning
from xoar.host.emulator import Launch
from xoar.host.errors import HostError
from xoar.host.state import CRASHED, RUNNING, Host
from xoar.privilege.rules import Rule

T = TypeVar("T")

_LOOK = 0.05  # seconds between two looks
_UNKNOWN = 300.0  # seconds for a step whose pace is not known: the machine may be a slow one
# seconds, and times the pace: the machine's own speed may vary by a factor of two
_PATIENT, _HURRIED = (30.0, 6.0), (5.0, 3.0)
_SHARDS_END = 32  # guests' domids start there
_LINE = re.compile(r"^\(d(\d+)\) (.*)$")
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")
_TROUBLE = re.compile(
    r"can't|cannot|could not|refuse|fail|denied|Errno|EPERM|EACCES|\bbug|trouble|Traceback|no answer"
    r"|still dying|no room|stopped:",
    re.IGNORECASE,
)


class Noticed(Exception):
    """The scenario did not go as it goes with all rights: what happened, in words."""


class Trial:
    """A host under a scenario. `paces` are the seconds that steps took with all rights, empty where this is
    what they are taken from; `usual` are the complaints in Xen's log with all rights."""

    def __init__(
        self, host: Host, paces: dict[str, float], usual: frozenset[str], missing: Rule | None = None
    ) -> None:
        self.host = host
        self.took: dict[str, float] = {}
        self._paces = paces
        self._usual = usual
        self._missing = denial(missing) if missing else None
        self._denied = False
        self._clients: dict[str, Client] = {}
        self._tenant = ""

    @property
    def client(self) -> Client:
        """The operator's line; it is opened when it is first used."""
        if self._tenant not in self._clients:
            whose = f"{self._tenant}@" if self._tenant else ""
            self._clients[self._tenant] = Client.connect(whose + self.host.name, self._limit("connect"))
        return self._clients[self._tenant]

    def speak_for(self, tenant: str) -> None:
        """From now on requests go to a tenant's Toolstack, or ("") to the host's, on a line of its own."""
        self._tenant = tenant

    def hang_up(self) -> None:
        """Ends the line that is used now; the next request opens another."""
        if client := self._clients.pop(self._tenant, None):
            client.close()

    def close(self) -> None:
        """Ends all lines; the host is somebody else's."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # steps

    def step(self, name: str, look: Callable[[], T | None]) -> T:
        """What `look` returns once that is not None; it must not wait for longer than a moment.

        Raises Noticed if it takes too long, if it raises HostError, or if the host ends.
        """
        since = time.monotonic()
        while True:
            try:
                found = look()
            except NotRunning as error:
                raise Noticed(f"{name}: {self._end() or error.message}") from error
            except HostError as error:
                raise Noticed(f"{name}: {error.message}") from error
            took = time.monotonic() - since
            if found is not None:
                self.took[name] = took
                return found
            if end := self._end():
                raise Noticed(f"{name}: {end}")
            if took > self._limit(name):
                raise Noticed(f"{name}: not within {took:.0f} s (usually {self._paces.get(name, 0):.1f} s)")
            time.sleep(_LOOK)

    def require(self, name: str, fine: bool, otherwise: str) -> None:
        """Raises Noticed unless something is as it should be."""
        if not fine:
            raise Noticed(f"{name}: {otherwise}")

    def serves(self) -> None:
        """Waits until Console answers."""

        def running() -> bool | None:
            record = self.host.record()
            return True if record is not None and record.state == RUNNING else None

        self.step("the host serves", running)

    def ask(self, step: str, kind: str, /, **fields: Any) -> Any:
        """The fields of the Toolstack's answer to a request."""
        number: list[int] = []

        def answer() -> Any:
            if not number:
                number.append(self.client.ask(kind, self._limit(step), **fields))
            return self.client.reply(number[0], _LOOK)

        return self.step(step, answer).fields

    def complaints(self) -> frozenset[str]:
        """What shards said on Xen's console that tells of something that failed; numbers are left out."""
        found = set()
        for line in self.log().splitlines():
            matched = _LINE.match(line)
            if matched and int(matched[1]) >= _SHARDS_END:
                continue
            text = matched[2] if matched else line
            if not line.startswith("(XEN)") and _TROUBLE.search(text):
                found.add(_NUMBERS.sub("#", text))
        return frozenset(found)

    def content(self) -> None:
        """Raises Noticed if a shard said that something failed."""
        if new := sorted(self.complaints() - self._usual):
            raise Noticed(f"a shard reports: {new[0]}")

    def denied(self) -> bool:
        """Whether Xen's log says that the missing right was denied."""
        if not self._denied and self._missing is not None:
            self._denied = self._missing.search(self.log()) is not None
        return self._denied

    def log(self) -> str:
        """Xen's console up to now."""
        try:
            return self.host.xen_log.read_text(errors="replace").replace("\r", "")
        except FileNotFoundError:
            return ""

    def _limit(self, name: str) -> float:
        if name not in self._paces:
            return _UNKNOWN
        least, times = _HURRIED if self.denied() else _PATIENT
        return (least + times * self._paces[name]) * self._slowness()

    def _slowness(self) -> float:
        """How many times as long as with all rights the steps up to now took, 1 at least: beside other hosts
        all goes more slowly."""
        usual = sum(self._paces.get(name, 0.0) for name in self.took)
        return max(1.0, sum(self.took.values()) / usual) if usual else 1.0

    def _end(self) -> str:
        """Why the host ended, "" as long as it lives."""
        record = self.host.record()
        if record is not None and record.state == CRASHED:
            told = [line for line in self.log().splitlines() if line.startswith("bootstrapper: can't")]
            return told[-1] if told else f"the host ended: {record.reason}"
        return ""


class Shell:
    """A guest's console, with a user logged in on it."""

    def __init__(self, trial: Trial, name: str) -> None:
        self._trial = trial
        self._name = name
        self._seen = b""
        log = trial.step(f"{name}: the console's log", lambda: trial.client.attach(name, "follow"))
        # not at the end: what the guest's kernel says then comes after it, of a disk that is still connecting
        self._read_until(log, f"{name}: login", rb"login: ")
        log.close()
        self._console = trial.step(f"{name}: the console", lambda: trial.client.attach(name, "console"))
        self._seen = b""
        self._console.write(b"root\n")
        self._read_until(self._console, f"{name}: a shell", rb"# ")

    def run(self, what: str, command: str) -> str:
        """What a command prints; `what` names the step."""
        self._seen = b""
        # the echo of the line has no line that is the mark alone
        self._console.write(f"echo '<'; {command}; echo '>'\n".encode())
        found = self._read_until(self._console, f"{self._name}: {what}", rb"\n<\r?\n(.*?)>\r?\n")
        return str(found[1].decode(errors="replace").replace("\r", "").strip())

    def _read_until(self, stream: Any, step: str, pattern: bytes) -> re.Match[bytes]:
        def look() -> re.Match[bytes] | None:
            self._seen += stream.read(_LOOK)
            return re.search(pattern, self._seen, re.DOTALL)

        return self._trial.step(step, look)


@contextmanager
def started(
    name: str, launch: Launch, paces: dict[str, float], usual: frozenset[str], missing: Rule | None = None
) -> Iterator[Trial]:
    """A host that ends with the block, its disks included; it need not serve yet."""
    host = Host(name)
    keeper.launch(host, launch)
    trial = Trial(host, paces, usual, missing)
    try:
        yield trial
    finally:
        trial.close()
        host.stop(erase=True)


def denial(rule: Rule) -> re.Pattern[str]:
    """What Xen says when it denies a right."""
    return re.compile(
        rf"avc: *denied *\{{[a-z_0-9 ]*\b{rule.permission}\b[a-z_0-9 ]*\}}.*:{rule.source}"
        rf" tcontext=\w+:\w+:{rule.target} tclass={rule.security_class}\b"
    )
