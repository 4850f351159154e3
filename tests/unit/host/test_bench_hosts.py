"""Waiting for lines in the log of a host that is being measured."""

import os
import threading
import time

import pytest

from xoar.host.bench import hosts
from xoar.host.errors import HostError
from xoar.host.state import CRASHED, RUNNING, Host, Record, start_time


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose keeper is this test."""
    monkeypatch.setenv("XOAR_STATE", str(tmp_path))
    made = Host("measured")
    made.folder.mkdir()
    made.xen_log.write_bytes(b"")
    write(made, RUNNING)
    return made


def write(host: Host, state: str, reason: str = "") -> None:
    me = os.getpid()
    host.write(Record(host.name, state, me, start_time(me) or 0, me, 0.0, "4.17", reason))


def test_each_text_is_looked_for_after_the_one_before(host):
    host.xen_log.write_bytes(b"bench: create 1\r\nbench: created 1\r\nbench: create 2\r\n")
    log = hosts.Log(host)
    log.until("bench: create 1")
    log.until("bench: created 1")
    with pytest.raises(HostError, match="no 'bench: created 1' within"):
        log.until("bench: created 1", timeout=0)


def test_a_text_that_comes_in_pieces_is_found_when_it_is_whole(host):
    host.xen_log.write_bytes(b"debian lo")
    before = hosts.now()

    def rest() -> None:
        time.sleep(0.1)
        with open(host.xen_log, "ab") as file:
            file.write(b"gin: ")

    writer = threading.Thread(target=rest)
    writer.start()
    seen = hosts.Log(host).until("login:", 5)
    writer.join()
    assert 0.1 <= seen - before < 5


def test_a_host_that_crashes_ends_the_wait_with_its_reason(host):
    write(host, CRASHED, "(XEN) Panic on CPU 0")
    with pytest.raises(HostError, match="Panic on CPU 0"):
        hosts.Log(host).until("login:", 5)


def test_the_clock_is_that_of_processes(host):
    started = (start_time(os.getpid()) or 0) / os.sysconf("SC_CLK_TCK")
    assert 0 < hosts.now() - started < 24 * 3600


def test_a_benchmark_does_not_end_the_host_of_another(host):
    with pytest.raises(HostError, match="another benchmark"), hosts.running(host.name, None):
        pass
    assert host.alive()
