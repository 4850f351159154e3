"""Logic dies at random moments while eight guests use XenStore; none of them notices more than that it waits.

The guests (attacks/store_client.py) check each answer: what they wrote is there, transactions are done whole,
once or not at all, each change that they watch is told, and no request fails but with EAGAIN, where others
have changed what a transaction has read. Logic (attacks/mortal_logic.py) crashes, powers itself off, loses
its code, hangs, writes noise, or answers what it was not asked, at each point of a request's way through it.
"""

from __future__ import annotations

import collections
import re
import time
from pathlib import Path

import pytest
from harness import ATTACKS, HostUnderTest, nano_guest, running

from xoar.host.assembly import Replacement
from xoar.host.client import Stream

GUESTS = [f"g{number}" for number in range(8)]
_DIED = re.compile(r"mortal: life \d+, request \d+: (\w+), (.*)")
_PATIENCE = 12.0  # seconds that one death may take, with the requests up to the next one


@pytest.fixture(scope="module")
def client_image() -> Path:
    """The ELF of a nano guest that uses XenStore (attacks/store_client.py)."""
    return nano_guest("store-client", "store_client")


def test_ten_deaths_of_logic_while_guests_use_it(state: None, logs: Path, client_image: Path) -> None:
    survived(logs, client_image, 10)


@pytest.mark.soak
def test_a_hundred_deaths_of_logic_while_guests_use_it(state: None, logs: Path, client_image: Path) -> None:
    survived(logs, client_image, 100)


def survived(logs: Path, client_image: Path, wanted: int) -> None:
    """At least so many deaths."""
    config = f'[images.client]\nkernel = "{client_image}"\n'
    with running("deaths", config, logs, {"logic": Replacement("mortal_logic", ATTACKS)}) as host:
        domids = [host.create(name, "client", "16MiB") for name in GUESTS]
        for name in GUESTS:
            host.wait_for(name, rb"client ready")
        host.ask(GUESTS[0], "share", rb"shared|WRONG")
        began = time.monotonic()
        with host.client() as client:
            consoles = [client.console(domid) for domid in domids]
            for number, console in enumerate(consoles):  # each watches the one before it
                type_into(console, f"work {number + 1} {domids[0]} {domids[number - 1]}")
            for console in consoles:
                told_by(console, rb"works")
            wait_deaths(host, wanted, began + wanted * _PATIENCE + 240)
            told = said_by_all(consoles, "stop", rb"worked [^\r]*conflicts")
            took = time.monotonic() - began
            found = said_by_all(consoles, "check", rb"checked, [^\r]*(?=\r)")
        log = host.log_since(0)
        ways, points = zip(*_DIED.findall(log), strict=True)
        print(f"{len(ways)} deaths in {took:.0f} s: {dict(collections.Counter(ways))},")
        print(f"at: {dict(collections.Counter(points))}")
        print("\n".join([*told, *re.findall(r"mortal: seed \d+", log)]))
        added = sum(int(re.findall(r"(\d+) added", line)[0]) for line in told)
        assert set(found) == {f"checked, count {added}, sum 1000000"}
        assert added and not [line for line in told if line.startswith("worked 0 ")]
        assert len(set(ways)) > 3 and len(set(points)) > 3
        assert not re.findall(r"a bug|xenstore: domain|restorer: (?!ready)", log)


def said_by_all(consoles: list[Stream], command: str, pattern: bytes) -> list[str]:
    """What each guest says to that."""
    for console in consoles:
        type_into(console, command)
    return [told_by(console, pattern) for console in consoles]


def type_into(console: Stream, line: str) -> None:
    console.write(line.encode() + b"\n")


def told_by(console: Stream, pattern: bytes) -> str:
    """What a guest says, once it has not met anything wrong."""
    seen = b""
    while not (found := re.search(pattern, seen)):
        assert b"WRONG" not in seen, f"{console.what}: {(seen + console.read(1)).decode()}"
        more = console.read(400)
        assert more, f"{console.what} is silent after {seen!r}"
        seen += more
    return found[0].decode()


def wait_deaths(host: HostUnderTest, wanted: int, deadline: float) -> None:
    while len(_DIED.findall(host.log_since(0))) < wanted:
        assert time.monotonic() < deadline, host.log_since(0)[-3000:]
        time.sleep(2)
