"""Xen's own XenStore programs inside a running guest."""

from __future__ import annotations

from harness import HostUnderTest


def test_xens_own_test_and_commands_pass_inside_a_guest(host: HostUnderTest) -> None:
    host.create("deb", "xentools", "160MiB")
    output = host.run(
        "deb",
        "test-xenstore; echo TEST $?",
        "xenstore-write data/x 1; xenstore-read data/x; echo READ $?",
        "xenstore-exists data/x; echo EXISTS $?",
        "xenstore-ls data; echo LS $?",
        "xenstore-rm data/x; echo RM $?",
        "xenstore-write /local/domain/1/x 1; echo FOREIGN $?",
        timeout=280,
    )
    for line in ("TEST 0", "READ 0", "EXISTS 0", "LS 0", "RM 0", "FOREIGN 1"):
        assert line in output, output
