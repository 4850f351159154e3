"""Xen's own XenStore programs inside a running guest."""

from __future__ import annotations

from pathlib import Path

from harness import ATTACKS, HostUnderTest, running

from xoar.host.assembly import Replacement


def test_xens_commands_work_inside_a_guest(host: HostUnderTest) -> None:
    host.create("deb", "xentools", "160MiB")
    output = host.run(
        "deb",
        "xenstore-write data/x 1; xenstore-read data/x; echo READ $?",
        "xenstore-exists data/x; echo EXISTS $?",
        "xenstore-list data; echo LIST $?",
        "xenstore-ls data; echo LS $?",
        "xenstore-chmod data/x n$(xenstore-read domid) r0; echo CHMOD $?",
        "xenstore-rm data/x; echo RM $?",
        "(sleep 1; xenstore-write data/y 2) & xenstore-watch -n 2 data/y; echo WATCH $?",
        "xenstore-write /local/domain/1/x 1; echo FOREIGN $?",
        timeout=280,
    )
    for line in ("READ 0", "EXISTS 0", "LIST 0", "LS 0", "CHMOD 0", "RM 0", "WATCH 0", "FOREIGN 1"):
        assert line in output, output


def test_xens_own_test_passes_inside_a_guest(state: None, logs: Path) -> None:
    replaced = {"xenstore": Replacement("generous_xenstore", ATTACKS)}
    text = '[images.xentools]\nbuiltin = "debian-xentools"\n'
    with running("generous", text, logs, replaced) as host:
        host.create("deb", "xentools", "160MiB")
        output = host.run("deb", "test-xenstore; echo TEST $?", timeout=280)
        assert "TEST 0" in output, output
