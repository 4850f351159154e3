"""The keeper as a real process, with a stand-in for QEMU: starting, carrying channels, failing, ending."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xoar.host import keeper, state
from xoar.host.emulator import Launch, Machine, Qemu
from xoar.host.errors import HostError
from xoar.messages.line import Event, LineClient

FAKE = Path(__file__).with_name("fake_qemu.py")

Start = Callable[..., state.Host]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts hosts with the stand-in in a given mode; ends them after the test."""
    # longer than a Unix socket's address may be
    monkeypatch.setenv("XOAR_STATE", str(tmp_path / ("long" * 30)))
    kernel = tmp_path / "a kernel, with a comma" / "kernel"
    kernel.parent.mkdir()
    kernel.write_bytes(b"")
    started = []

    def starter(mode: str, name: str = "test") -> state.Host:
        host = state.Host(name)
        machine = Machine(xen="xen", kernel=str(kernel), kernel_arguments=f"a=1,2 {mode}")
        started.append(host)
        keeper.launch(host, Launch(machine, Qemu((sys.executable, str(FAKE)), "7.2.0"), "4.17"))
        return host

    yield starter
    for host in started:
        host.stop()


class Client:
    """A command's end of the line, on a connection to the keeper."""

    def __init__(self, host: state.Host) -> None:
        self.socket = host.connect()
        self.socket.settimeout(10)
        self.line = LineClient()
        self.line.hello(7)
        self.until("hello")

    def until(self, kind: str) -> Event:
        while True:
            self.socket.sendall(self.line.take(1 << 20))
            data = self.socket.recv(4096)
            assert data, "the keeper closed the connection"
            for event in self.line.feed(data):
                if event.kind == kind:
                    return event

    def echo(self, text: bytes) -> bytes:
        channel = self.line.open("echo")
        self.until("opened")
        self.line.write(channel, text)
        return bytes(self.until("data").data)


def crashed(host: state.Host) -> state.Record:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        record = host.record()
        if record and record.state == state.CRASHED:
            return record
        time.sleep(0.02)
    raise AssertionError("the host did not crash")


def test_a_host_starts_answers_and_stops_without_leaving_anything(start: Start) -> None:
    host = start("serve")
    record = keeper.wait_running(host, 10)
    assert record.xen_version == "4.17"
    assert Client(host).echo(b"hello") == b"hello"
    assert state.hosts() == [host] or [found.name for found in state.hosts()] == ["test"]
    assert host.stop()
    assert list(state.root().iterdir()) == []
    assert state.start_time(record.keeper) is None
    assert state.start_time(record.emulator) is None


def test_stopping_does_not_wait_for_clients(start: Start) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    client = Client(host)
    assert host.stop(timeout=8)
    assert client.socket.recv(1) == b""


def test_a_client_that_reads_nothing_stalls_nobody(start: Start) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    greedy = Client(host)
    for _ in range(20):
        greedy.line.open("flood")
    greedy.socket.sendall(greedy.line.take(1 << 20))
    other = Client(host)
    for _ in range(20):
        assert other.echo(b"still there") == b"still there"


def test_garbage_from_a_client_does_no_harm(start: Start) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    with host.connect() as vandal:
        for _ in range(20):
            vandal.sendall(os.urandom(4096))
    assert Client(host).echo(b"fine") == b"fine"


def test_two_hosts_run_side_by_side(start: Start) -> None:
    hosts = [start("serve", "one"), start("serve", "two")]
    for host in hosts:
        keeper.wait_running(host, 10)
        assert Client(host).echo(host.name.encode()) == host.name.encode()


def test_a_second_start_is_refused_and_changes_nothing(start: Start) -> None:
    host = start("serve")
    record = keeper.wait_running(host, 10)
    with pytest.raises(HostError, match="running already"):
        start("serve")
    assert host.alive() == record


def test_nothing_is_sent_before_console_is_up(start: Start) -> None:
    host = start("silent")  # ends if it receives a byte
    with host.connect() as early:
        early.sendall(b"\x7e" + bytes(100) + b"\x7e")
        early.settimeout(0.5)
        with pytest.raises(TimeoutError):
            early.recv(1)
    with pytest.raises(HostError, match="no answer"):
        keeper.wait_running(host, 0.2)
    assert host.alive()


def test_a_panic_of_xen_ends_the_host_and_is_reported(start: Start) -> None:
    host = start("panic")
    with pytest.raises(HostError) as caught:
        keeper.wait_running(host, 10)
    assert "(XEN) Panic on CPU 0" in str(caught.value)
    assert crashed(host).reason == "(XEN) Panic on CPU 0:"
    assert host.xen_log.exists()


def test_an_emulator_that_ends_at_once_is_reported_with_its_output(start: Start) -> None:
    with pytest.raises(HostError, match="did not start") as caught:
        start("exit")
    assert "could not do it" in str(caught.value)
    assert "exit code 3" in str(caught.value)
    assert not state.Host("test").folder.exists()


def test_a_killed_emulator_is_reported(start: Start) -> None:
    host = start("serve")
    record = keeper.wait_running(host, 10)
    os.kill(record.emulator, signal.SIGKILL)
    assert "-9" in crashed(host).reason
    assert host.alive() is None
    with pytest.raises(HostError, match="not running"):
        host.connect()


def test_a_killed_keeper_takes_the_emulator_with_it(start: Start) -> None:
    host = start("serve")
    record = keeper.wait_running(host, 10)
    os.kill(record.keeper, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while state.start_time(record.emulator) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state.start_time(record.emulator) is None
    assert host.alive() is None


def test_a_host_that_crashed_can_be_started_again(start: Start) -> None:
    crashed(start("panic"))
    keeper.wait_running(start("serve"), 10)


def test_a_client_that_is_killed_frees_its_channels(start: Start) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    for _ in range(3):
        client = Client(host)
        for _ in range(40):  # the line has 64
            client.line.open("echo")
            client.until("opened")
        client.socket.shutdown(socket.SHUT_RDWR)
        client.socket.close()


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "..", "-a", "a" * 40])
def test_bad_host_names_are_refused(name: str) -> None:
    with pytest.raises(HostError, match="host name"):
        state.Host(name)


def test_a_port_of_a_guest_is_forwarded_once(start: Start) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    ports = []
    for words in ("forward net0 10.0.2.20 22", "forward net0 10.0.2.20 22", "forward net0 - 2222"):
        client = Client(host)
        client.line.open("keeper", words)
        ports.append(int(client.until("data").data))
    assert ports[0] == ports[1] != ports[2]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("forward absent 10.0.2.20 22", "unknown netdev"),
        ("forward net0 10.0.2.20 22,x", "no card, IPv4 address and port"),
        ("quit", "the keeper can't do this: quit"),
        ("", "the keeper can't do this"),
    ],
)
def test_what_the_keeper_cannot_do_is_answered_with_the_reason(start: Start, words: str, reason: str) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    client = Client(host)
    client.line.open("keeper", words)
    assert reason in client.until("closed").data
    assert client.echo(b"goes on") == b"goes on"


def test_disks_outlive_the_host_until_they_are_erased(start: Start) -> None:
    host = start("serve")
    keeper.wait_running(host, 10)
    disk = host.folder / state.DISKS / "disk0.raw"
    disk.parent.mkdir()
    disk.write_bytes(b"data")
    assert host.stop()
    assert [path.name for path in host.folder.iterdir()] == [state.DISKS]
    assert not host.stop()
    start("serve")
    assert disk.read_bytes() == b"data"
    assert host.stop(erase=True)
    assert not host.folder.exists()
