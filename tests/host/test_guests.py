"""The life of a guest: a real Debian kernel, its console, its ends."""

from __future__ import annotations

import pytest
from harness import HostUnderTest

SYSRQ_CRASH = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"


def test_a_debian_guest_boots_to_its_login_and_runs_commands(host: HostUnderTest) -> None:
    host.create("deb", "debian", "128MiB")
    assert "Linux deb 6.1" in host.run("deb", "uname -a")


def test_guests_see_ordinary_xenstore_records(host: HostUnderTest) -> None:
    domid = host.create("deb", "xentools", "160MiB")
    output = host.run(
        "deb", "xenstore-read domid name vm control/shutdown; xenstore-list /local/domain; echo end"
    )
    assert f"{domid}" in output.splitlines()
    assert "deb" in output.splitlines()
    assert "/vm/" in output


def test_a_guest_that_reboots_itself_comes_back(host: HostUnderTest) -> None:
    before = host.create("g")
    host.run("g", "reboot", timeout=60)
    shown = host.shown("g", "restarts", 1)
    assert shown["id"] != before
    host.wait_for("g", rb"login: ")


def test_reboot_and_shutdown_go_through_the_guest(host: HostUnderTest) -> None:
    host.create("g")
    host.wait_for("g", rb"login: ")
    host.cli("guest", "reboot", "g")
    host.wait_for("g", rb"login: ")
    host.cli("guest", "shutdown", "g")
    assert [row["name"] for row in host.json("ps") if row["kind"] == "guest"] == []
    assert host.json("guest", "show", "g")["reason"] == "poweroff"


def test_a_crashed_guest_is_kept_and_its_last_words_shown(host: HostUnderTest) -> None:
    host.create("g", "hostile", "16MiB")
    host.wait_for("g", rb"hostile guest ready")
    host.ask("g", "crash", b"crashing")
    host.shown("g", "reason", "crash")
    assert [row["state"] for row in host.json("ps") if row["name"] == "g"] == ["crashed"]
    assert "hostile guest ready" in host.cli("logs", "g")


def test_a_guest_that_restarts_on_a_crash_comes_back(host: HostUnderTest) -> None:
    host.create("g", "hostile", "16MiB", "--on-crash", "restart")
    host.wait_for("g", rb"hostile guest ready")
    host.ask("g", "crash", b"crashing")
    host.shown("g", "restarts", 1)
    host.wait_for("g", rb"hostile guest ready")


def test_a_guest_uses_the_vcpus_that_it_was_given(host: HostUnderTest) -> None:
    host.create("g", "debian", "128MiB", "--vcpus", "2")
    assert "CPUS 2" in host.run("g", "echo CPUS $(grep -c ^processor /proc/cpuinfo)")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("g", "--image", "tiny", "--memory", "100GiB"), 1, "no memory left"),
        (("bad name", "--image", "tiny"), 1, "is no name"),
        (("g", "--image", "tinny"), 3, 'Did you mean "tiny"'),
        (("g", "--image", "debian", "--memory", "32MiB"), 1, "does not fit"),
    ],
)
def test_a_create_that_fails_leaves_nothing(
    host: HostUnderTest, arguments: tuple[str, ...], status: int, text: str
) -> None:
    host.create("warm")
    host.destroy("warm")
    free, before = host.free_kib(), host.json("ps")
    assert text in host.cli("guest", "create", *arguments, status=status)
    assert [row["id"] for row in host.json("ps")] == [row["id"] for row in before]
    assert host.free_kib() == free
