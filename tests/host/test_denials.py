"""What a guest, and a Toolstack that an attacker has taken over, can do to others: nothing."""

from __future__ import annotations

import re
from pathlib import Path

from harness import ATTACKS, SHARDS, HostUnderTest, running

from xoar.host.assembly import Replacement

EPERM, ESRCH, ENOMEM, EACCES = 1, 3, 12, 13
# Xen checks these before it asks FLASK; the call fails all the same
_OTHER_REFUSALS = {
    "bind_port": {EACCES, ESRCH, 22},  # a port that was not offered to this domain is no valid argument
    "populate": {ENOMEM},  # denied, Xen says "no page was given"
    "map_grant": {EACCES},  # the status of a grant that was not made for this domain
}


def outcomes(text: str) -> dict[tuple[str, int], int]:
    found = re.findall(r"attempt (\w+) (\d+) (\d+)", text)
    return {(name, int(victim)): int(errno) for name, victim, errno in found}


def check_refused(results: dict[tuple[str, int], int], victims: list[int]) -> None:
    assert {victim for _, victim in results} == {*victims, 99}
    for (name, victim), errno in results.items():
        allowed = _OTHER_REFUSALS.get(name, {EPERM, EACCES})
        assert errno in allowed, f"{name} on domain {victim}: {errno}"


def test_from_inside_a_guest_everything_on_others_is_refused(host: HostUnderTest) -> None:
    victim = host.create("victim")
    host.create("g", "hostile", "16MiB")
    host.wait_for("g", rb"hostile guest ready")
    start = host.log_position()
    victims = [*range(1, len(SHARDS) + 1), victim]
    answer = host.ask("g", "attempts " + " ".join(map(str, victims)), rb"attempts done")
    check_refused(outcomes(answer.decode()), victims)
    denials = host.said_since(start)
    for permission in ("create", "pause", "map_read|map_write", "destroy"):
        assert re.search(
            rf"avc:\s+denied\s+{{ ({permission}).*scontext=system_u:system_r:guest_t", denials
        ), permission
    # and the others don't notice
    host.wait_for("victim", rb"login: ")
    assert [row["name"] for row in host.json("ps")][: len(SHARDS)] == SHARDS


def test_a_toolstack_taken_over_can_do_nothing_to_others_by_itself(state: None, logs: Path) -> None:
    text = '[images.tiny]\nbuiltin = "tiny"\n'
    replaced = {"toolstack": Replacement("toolstack", ATTACKS)}
    with running("taken-over", text, logs, replaced) as host:
        host.wait_log(r"attempts done", 0)
        log = host.log_since(0)
        results = outcomes(log)
        check_refused(results, [1, 2, 3, 4])
        for permission in ("create", "pause", "map_read|map_write", "destroy"):
            assert re.search(
                rf"avc:\s+denied\s+{{ ({permission}).*scontext=system_u:system_r:toolstack_t", log
            ), permission
