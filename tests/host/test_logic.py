"""XenStore's Logic in a domain of its own: taken over, and what it costs."""

from __future__ import annotations

import re
import time
from pathlib import Path

from harness import ATTACKS, SHARDS, HostUnderTest, running
from taken_over import EPERM

from xoar.host.assembly import Replacement

TWO_GUESTS = '[host]\nmemory = "2GiB"\n[images.xentools]\nbuiltin = "debian-xentools"\n'
REQUESTS = 400
MOST_TIMES_SLOWER = 12


def test_a_logic_taken_over_does_nothing_for_who_did_not_ask(state: None, logs: Path) -> None:
    replaced = {"logic": Replacement("hostile_logic", ATTACKS)}
    with running("hostile-logic", TWO_GUESTS, logs, replaced) as host:
        victim = host.create("victim", "xentools", "160MiB")
        assert host.create("asker", "xentools", "160MiB") == victim + 1
        host.run("victim", "xenstore-write data/x mine")
        before = host.run("victim", "xenstore-ls -p")
        said = host.run("asker", *[f"echo GOT $(xenstore-read attack/{name})" for name in BEFORE_NOISE])
        assert said.count("GOT lie") >= len(BEFORE_NOISE), said
        answers = dict(re.findall(r"forged (\S+) (\S+)", host.log_since(0)))
        assert answers == EXPECTED
        # nobody but the one that asked has got anything else than it should have
        assert records(host.run("victim", "xenstore-ls -p")) == records(before)
        assert "READ mine" in host.run("victim", "echo READ $(xenstore-read data/x)")
        own = host.run("asker", "xenstore-list data")
        assert re.search(r"^0\s*$", own, re.MULTILINE) and not re.search(r"^1\s*$", own, re.MULTILINE), own

        check_memory(host)
        check_late(host)
        check_noise(host)
        assert not re.findall(r"Traceback|a bug|crashed", host.log_since(0))


BEFORE_NOISE = ("others", "manager", "endless", "twice")
NOT_THERE = "2"
EXPECTED = {
    **{f"write-{which}": NOT_THERE for which in ("next", "last", "none", "far")},
    "release-next": NOT_THERE,
    **dict.fromkeys(("introduce", "release", "stopped", "claim", "fault", "relay"), EPERM),
    "write": "EACCES",
    "second": "EIO",
    "manage": "EACCES",
    "endless": "done",
    "twice": "sent",
}


def records(listed: str) -> list[str]:
    return [line for line in listed.splitlines() if " = " in line]


def check_memory(host: HostUnderTest) -> None:
    """Logic keeps nothing of what it has done."""
    busy = "for i in $(seq 20); do xenstore-write data/$i $i; xenstore-ls data >/dev/null; done; "
    held, free = [], 0
    for before in ("", busy):
        start = host.log_position()
        host.run("asker", before + "xenstore-read attack/memory", timeout=280)
        found = host.wait_log(r"logic holds (\d+) bytes, (\d+) are free", start)
        held.append(int(found[1]))
        free = int(found[2])
    print(f"in Logic's heap: {held}, free: {free}")
    assert held[1] - held[0] < 16384
    assert held[1] < free, "more than half of the heap is in use"


def check_late(host: HostUnderTest) -> None:
    """Who does not answer is rolled back; a request at which each Logic fails is refused. Others wait
    meanwhile."""
    start = host.log_position()
    host.ask("asker", "xenstore-read attack/late", rb"read attack/late")
    began = time.monotonic()
    # `run` goes on after some seconds of silence, so these wait for what they expect
    host.ask("victim", "echo READ $(xenstore-read data/x)", rb"READ mine")
    assert time.monotonic() - began > 3
    host.wait_log("xenstore: no answer from Logic for 5 s", start)
    host.ask("asker", "xenstore-read attack/late; echo ENDED $?", rb"ENDED [1-9]")
    history = [entry for entry in host.json("reboot", "--history") if entry["shard"] == "logic"]
    assert {entry["cause"] for entry in history} == {"xenstore"}


def check_noise(host: HostUnderTest) -> None:
    """A Logic that breaks its link is rolled back; all else goes on."""
    start = host.log_position()
    host.ask("asker", "xenstore-read attack/noise", rb"read attack/noise")
    host.wait_log("the link to logic is broken", start)
    assert "READ mine" in host.run("victim", "echo READ $(xenstore-read data/x)")
    assert {*SHARDS} <= {row["name"] for row in host.json("ps")}
    assert "42" in host.run("victim", "echo $((6 * 7))")


def test_what_two_domains_cost(state: None, logs: Path, hostile_image: Path) -> None:
    config = f'[images.hostile]\nkernel = "{hostile_image}"\n'
    took = {}
    for name, replaced in (
        ("one-domain", {"xenstore": Replacement("direct_xenstore", ATTACKS)}),
        ("two-domains", {"xenstore": Replacement("xoar.shards.xenstore.patient", ATTACKS)}),
    ):
        with running(name, config, logs, replaced) as host:
            host.create("g", "hostile", "16MiB")
            host.wait_for("g", rb"hostile guest ready")
            before = cpu_time_of_logic(host)
            took[name] = time_of_a_request(host)
            worked = cpu_time_of_logic(host) - before > REQUESTS * 10_000
            assert worked == (name == "two-domains")
            print(f"{name}: {took[name]:.0f} us for each request, {1e6 / took[name]:.0f} requests/s")
    ratio = took["two-domains"] / took["one-domain"]
    print(f"two domains take {ratio:.1f} times as long")
    assert ratio < MOST_TIMES_SLOWER


def cpu_time_of_logic(host: HostUnderTest) -> int:
    """Nanoseconds."""
    with host.client() as client:
        return next(int(record.cpu_time_ns) for record in client.objects() if record.name == "logic")


def time_of_a_request(host: HostUnderTest) -> float:
    """Microseconds for one request of a guest; the best of three runs."""
    best = float("inf")
    for _ in range(3):
        said = host.ask("g", f"store-rate {REQUESTS}", rb"requests in \d+ us")
        count, took = map(int, re.findall(rb"(\d+) requests in (\d+) us", said)[0])
        best = min(best, took / count)
    return best
