"""Builder is rolled back when it is idle, in the middle of its work, and when it was taken over."""

from __future__ import annotations

import random
import re
import subprocess
import time
from pathlib import Path

from harness import CHECKOUT, HostUnderTest, running

from xoar.host.assembly import Replacement

LIVES = Path(__file__).parent / "lives"
TINY = '[images.tiny]\nbuiltin = "tiny"\n'
TRIES = 8
GUEST = 32


def shown(host: HostUnderTest) -> dict[str, object]:
    (row,) = [row for row in host.json("ps") if row["name"] == "builder"]
    return dict(row)


def test_it_begins_anew_after_each_request_and_nobody_sees_it(state: None, logs: Path) -> None:
    with running("lives", TINY, logs) as host:
        assert shown(host)["policy"] == "when idle and after 60 s"
        first = host.create("one")
        before = int(str(shown(host)["rollbacks"]))
        host.create("two")
        told = host.json("reboot", "builder")
        assert told["cause"] in ("toolstack", "itself") and told["found"] == "none"
        assert 0 < told["pages"] < 2048  # all of its memory but the library
        assert int(str(shown(host)["rollbacks"])) > before + 2
        causes = [entry["cause"] for entry in host.json("reboot", "--history") if entry["shard"] == "builder"]
        assert causes.count("itself") > 2
        assert [row["name"] for row in host.json("guest", "list")] == ["one", "two"]
        host.cli("guest", "reboot", "one")
        host.wait_for("one", rb"login: ")
        assert host.domid("one") != first
        host.destroy("one", "two")
        assert not re.findall(r"Traceback|a bug|crashed|recovery box|nobody knows", host.log_since(0))


def test_a_rollback_in_the_middle_of_its_work_leaves_no_half_built_guest(state: None, logs: Path) -> None:
    """An operator asks for it while guests are created: each is there, or is refused and leaves nothing."""
    draw = random.Random(7)
    with running("midway", TINY, logs) as host:
        host.create("kept")
        host.create("gone")
        host.destroy("gone")
        before, free = set(host.domains_in_xen()), host.free_kib()
        outcomes = []
        for number in range(TRIES):
            create = subprocess.Popen(
                [
                    str(CHECKOUT / "xoar"),
                    "guest",
                    "create",
                    f"g{number}",
                    "--image",
                    "tiny",
                    "--memory",
                    "32MiB",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=host.environment(),
            )
            while create.poll() is None:
                time.sleep(draw.uniform(0, 0.5))
                host.json("reboot", "builder")
            said = create.communicate()[0]
            outcomes.append(create.returncode)
            if create.returncode:
                assert "Builder was restarted" in said, said
                assert f"g{number}" not in [row["name"] for row in host.json("guest", "list")]
            else:
                host.destroy(f"g{number}")
        print(f"{outcomes.count(0)} of {TRIES} guests were created under rollbacks")
        deadline = time.monotonic() + 30
        while set(host.domains_in_xen()) != before or host.free_kib() != free:
            assert time.monotonic() < deadline, (host.domains_in_xen(), before, host.free_kib(), free)
            time.sleep(1)
        host.create("after")
        host.destroy("after", "kept")
        assert not re.findall(r"Traceback|a bug|crashed", host.log_since(0))


def test_what_is_planted_in_it_is_gone_in_its_next_life(state: None, logs: Path) -> None:
    replaced = {"builder": Replacement("planting_builder", LIVES)}
    with running("planted", TINY, logs, replaced) as host:
        host.create("victim")
        for _ in range(3):
            host.json("ps")
        host.wait_log("moved: ", 0)
        # it may take until the life ends in which the victim's pages are mapped: 60 s, more on a busy machine
        subprocess.run([str(CHECKOUT / "xoar"), "guest", "destroy", "victim"], env=host.environment())
        deadline = time.monotonic() + 150
        while GUEST in host.domains_in_xen():
            assert time.monotonic() < deadline, "something holds on to the guest's pages"
            host.json("ps")
        log = host.log_since(0)
    lives = re.findall(r"life \d+: (\w+)", log)
    assert len(lives) > 5 and set(lives) == {"whole"}
    moves = re.findall(r"moved: ([-\d ]+); memory is (.*)", log)
    assert len(moves) >= 2
    for said, memory in moves:
        assert said.split()[:4] == ["-16"] * 4 and said.split()[4] != "0", said
        assert memory.strip() == "the same"
    mapped = re.findall(r"mapped: (.*)", log)
    assert {found.strip() for found in mapped} == {"0 0 0 0 0"}
    refused = re.findall(r"builder: the recovery box: (.*)", log)
    assert len(refused) >= 6  # in a life that goes on to serve Builder stores its own records over them
