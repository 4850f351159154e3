"""The host's Toolstack is rolled back after requests, and goes on managing its guests."""

from __future__ import annotations

from pathlib import Path

from harness import HostUnderTest, running

TEXT = """
[tenants.acme]
memory = "64MiB"

[images.tiny]
builtin = "tiny"
"""


def rollbacks(host: HostUnderTest) -> int:
    (row,) = [row for row in host.json("ps") if row["name"] == "toolstack"]
    return int(row["rollbacks"])


def test_it_knows_its_guests_in_each_life(state: None, logs: Path) -> None:
    with running("toolstack-lives", TEXT, logs) as host:
        before = rollbacks(host)
        start = host.log_position()
        web = host.create("web")
        host.create("old")
        host.destroy("old")
        for count in range(1, 5):
            (row,) = host.json("guest", "list")
            assert (row["name"], row["id"], row["state"]) == ("web", web, "running")
            while rollbacks(host) < before + count:  # at most every five seconds
                pass
        assert host.json("guest", "show", "old")["note"] == "destroyed by the operator"
        assert "42" in host.run("web", "echo $((6*7))")
        host.cli("guest", "reboot", "web")
        assert host.json("guest", "show", "web")["previous_id"] == web
        host.wait_json(
            lambda rows: rows[0]["state"] == "ready" and rows[0]["restarts"] == 0, "tenant", "list"
        )
        with host.client() as client:
            # one stream over many lives
            since = rollbacks(host)
            while rollbacks(host) < since + 2:
                assert [guest.name for guest in client.guests()] == ["web"]
        host.cli("guest", "shutdown", "web")
        assert host.json("guest", "list") == []
        log = host.log_since(start)
        assert "Traceback" not in log and "is dropped" not in log and "is of no guest" not in log
