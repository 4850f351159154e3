"""A tenant's Toolstack ends, is built again, and manages the guests that were there before it."""

from __future__ import annotations

import time
from pathlib import Path

from harness import running
from test_tenants import Tenant

from xoar.cli.failures import ERROR
from xoar.host.assembly import Replacement

TEXT = """
[host]
memory = "2GiB"

[tenants.acme]
memory = "160MiB"
vcpus = 4
guests = 4

[images.tiny]
builtin = "tiny"
"""
RIGHTS = Path(__file__).parents[1] / "rights"


def test_the_next_life_manages_the_guests_of_the_last(state: None, logs: Path) -> None:
    replaced = {"tenant": Replacement("ending_tenant", RIGHTS)}
    with running("built-again", TEXT, logs, replaced) as host:
        acme = Tenant(host, "acme")
        for name in ("web", "mail", "old"):
            acme.create(name)
        acme.cli("guest", "destroy", "old")
        acme.cli("console", "web", "--login", "root", input="echo remembered > /tmp/mark\n")
        before = host.json("guest", "show", "web", tenant="acme")
        start = host.log_position()

        for life in (1, 2):
            refusal = acme.cli("guest", "reboot", "web", status=ERROR)
            assert "closed the connection" in refusal
            host.wait_json(
                lambda rows, life=life: (rows[0]["restarts"], rows[0]["state"]) == (life, "ready"),
                *("tenant", "list"),
            )
            guests = host.wait_json(lambda rows: len(rows) >= 2, "guest", "list", tenant="acme")
            assert [row["name"] for row in guests] == ["web", "mail"]
            after = host.json("guest", "show", "web", tenant="acme")
            for key in ("id", "uuid", "state", "restarts", "note", "memory_kib", "vcpus"):
                assert after[key] == before[key], key
            assert host.json("guest", "show", "old", tenant="acme")["note"] == "destroyed by the operator"

        said = acme.cli("console", "web", "--login", "root", input="cat /tmp/mark\n")
        assert "remembered" in said
        assert "login: " in acme.cli("logs", "mail")
        acme.cli("guest", "shutdown", "mail")
        acme.cli("guest", "destroy", "web")
        acme.create("new")
        assert acme.guests() == ["new"]

        # it was used: as soon as it is a minute old it ends itself, and no command hears of that
        deadline = time.monotonic() + 180
        age = 0
        while age <= (now := host.json("tenant", "list")[0]["age_ms"]):
            assert time.monotonic() < deadline, "it is not built anew"
            assert acme.guests() == ["new"]
            age = now
        assert acme.guests() == ["new"] and host.json("tenant", "list")[0]["restarts"] == 2
        log = host.log_since(start)
        assert "is of no guest" not in log and "is dropped" not in log and "Traceback" in log
