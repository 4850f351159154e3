"""Twenty Toolstacks on a host: the last one costs what the first one does."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from harness import running

COUNT = 20
NAMES = [f"t{number}" for number in range(COUNT)]
TEXT = """
[host]
memory = "3GiB"

[images.tiny]
builtin = "tiny"
""" + "".join(f'[tenants.{name}]\nmemory = "64MiB"\nguests = 2\n' for name in NAMES)
_LIMIT_KIB = 16 << 10


def test_memory_and_time_to_create_a_guest_stay_flat(state: None, logs: Path) -> None:
    with running("many-tenants", TEXT, logs) as host:
        deadline = time.monotonic() + 120
        while host.json("tenant", "list")[-1]["state"] != "ready":
            assert time.monotonic() < deadline
            time.sleep(1)
        assert {row["state"] for row in host.json("tenant", "list")} == {"ready"}
        memory = {row["name"]: row["memory_kib"] for row in host.json("ps") if row["owner"] == "toolstack"}
        assert set(memory) == {f"tenant-{name}" for name in NAMES}
        assert max(memory.values()) <= _LIMIT_KIB
        seconds = []
        for name in NAMES:
            start = time.monotonic()
            host.cli("guest", "create", "one", "--image", "tiny", "--memory", "32MiB", tenant=name)
            seconds.append(time.monotonic() - start)
            if name not in (NAMES[0], NAMES[-1]):
                host.cli("guest", "destroy", "one", tenant=name)
        first, last = statistics.median(seconds[:7]), statistics.median(seconds[-7:])
        print(
            f"{COUNT} tenants of {max(memory.values())} KiB each; a guest is created in {first:.2f} s by the"
        )
        print(f"first seven (median), in {last:.2f} s by the last seven: x{last / first:.2f}")
        # seconds of one machine in one run; a cost that grows with the number of tenants would show
        assert last < 2 * first
        guests = [row["guests"] for row in host.json("tenant", "list")]
        assert guests == [1] + [0] * (COUNT - 2) + [1]
        for name in (NAMES[0], NAMES[-1]):
            said = host.cli("console", "one", "--login", "root", input="echo $((6*7))\n", tenant=name)
            assert "42" in said
