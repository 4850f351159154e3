"""Garbage from outside and from guests: the host goes on, and other guests don't notice."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness import SHARDS, HostUnderTest

from xoar.host.errors import HostError

SEED = 20261124


@contextmanager
def bystander(host: HostUnderTest) -> Iterator[None]:
    """A guest that must work before and after, with its uptime going on, while the block runs."""
    domid = host.create("bystander")
    host.wait_for("bystander", rb"login: ")
    assert "I am bystander" in host.run("bystander", "echo I am $(hostname)")
    yield
    assert "I am bystander" in host.run("bystander", "echo I am $(hostname)")
    assert host.domid("bystander") == domid


def hostile(host: HostUnderTest, command: str, answer: bytes) -> None:
    host.create("g", "hostile", "16MiB")
    host.wait_for("g", rb"hostile guest ready")
    host.ask("g", command, answer)


def shards_run(host: HostUnderTest) -> None:
    assert [
        row["state"] for row in host.json("ps") if row["kind"] == "shard" and row["state"] == "crashed"
    ] == []
    assert len([row for row in host.json("ps") if row["kind"] == "shard"]) == len(SHARDS)


def test_garbage_on_the_operators_line(host: HostUnderTest) -> None:
    noise = random.Random(SEED)
    with bystander(host):
        for _ in range(20):
            with host.host.connect() as connection:
                connection.sendall(noise.randbytes(2000))
        shards_run(host)


def test_a_client_that_connects_and_reads_nothing(host: HostUnderTest) -> None:
    with bystander(host):
        host.create("g", "hostile", "16MiB")
        host.wait_for("g", rb"hostile guest ready")
        with host.client() as idle:
            idle.console(host.domid("g"))
            host.ask("g", "flood-console", rb"x{1000}")
            shards_run(host)


def test_a_guest_that_writes_rubbish_into_its_xenstore_ring(host: HostUnderTest) -> None:
    with bystander(host):
        hostile(host, "rubbish-xenstore", rb"rubbish written")
        shards_run(host)


def test_a_guest_that_never_reads_its_xenstore_answers(host: HostUnderTest) -> None:
    with bystander(host):
        hostile(host, "full-xenstore", rb"requests sent")
        shards_run(host)


def test_a_guest_that_writes_rubbish_into_its_console_ring(host: HostUnderTest) -> None:
    with bystander(host):
        # whether Console still reads the last words is a matter of who is first
        with pytest.raises(HostError, match="the guest broke its console ring"):
            hostile(host, "rubbish-console", rb"words never said")
        shards_run(host)


def test_a_guest_that_floods_its_console(host: HostUnderTest) -> None:
    with bystander(host):
        hostile(host, "flood-console", rb"x{1000}")
        shards_run(host)


def test_a_guest_that_takes_its_own_page_tables_away(host: HostUnderTest) -> None:
    with bystander(host):
        start = host.log_position()
        host.create("g", "hostile", "16MiB", "--on-reboot", "destroy")
        host.wait_for("g", rb"hostile guest ready")
        host.ask("g", "triple-fault", rb"no more code")
        host.wait_log(r"Triple fault - invoking HVM shutdown", start)
        shards_run(host)


def test_garbage_behind_a_valid_greeting(host: HostUnderTest) -> None:
    noise = random.Random(SEED + 1)
    with bystander(host), host.client() as client:
        raw: socket.socket = client._socket
        raw.setblocking(True)
        for _ in range(50):
            raw.sendall(b"\x7e" + noise.randbytes(noise.randrange(1, 200)) + b"\x7e")
        shards_run(host)
