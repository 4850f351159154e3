"""The server with Logic in a process of its own, which is killed and stopped at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xoar.xenstore import linux, wire
from xoar.xenstore.errors import ProtocolError, Refused

CLIENTS = 8
KILLS = 20


def children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


class Server:
    def __init__(self, folder: Path, after: int) -> None:
        self.socket = str(folder / "xs")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "xoar.host.xenstored", "--socket", self.socket),
                *("--split", "--after", str(after), "--patience", "2"),
            ],
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while not os.path.exists(self.socket) and time.monotonic() < end:
            time.sleep(0.02)

    def snapshot(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    def hit(self, which: signal.Signals) -> bool:
        """Sends a signal to Logic; False if there was none just now."""
        try:
            os.kill(children(self.snapshot())[0], which)
        except (IndexError, ProcessLookupError):
            return False
        return True

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture(params=[0, 1], ids=["never", "each"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, request.param)
    yield server
    server.close()


def increment(store: linux.Connection, path: str) -> None:
    """Adds one to two nodes, in a transaction."""
    while True:
        number = int(store.call(wire.TRANSACTION_START, b"\0")[:-1])
        value = int(store.call(wire.READ, f"{path}/one\0".encode(), number)) + 1
        for name in ("one", "two"):
            store.call(wire.WRITE, f"{path}/{name}\0{value}".encode(), number)
        try:
            store.call(wire.TRANSACTION_END, b"T\0", number)
        except Refused as error:
            assert error.name == "EAGAIN"
        else:
            return


class Client(threading.Thread):
    """Increments a counter that another shares, and writes what it watches, until it is told to stop."""

    def __init__(self, socket: str, number: int, stop: threading.Event) -> None:
        super().__init__()
        self._socket = socket
        self._number = number
        self._stop_now = stop
        self.rounds = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with linux.connect(self._socket) as store:
                mine = f"/client/{self._number}"
                store.watch(mine, "token")
                assert store.next_event(30) == (mine, "token")
                while not self._stop_now.is_set() or self.rounds < 3:
                    increment(store, f"/shared/{self._number // 2}")
                    store.write(f"{mine}/{self.rounds}", "x" * 500)
                    assert store.next_event(30) == (f"{mine}/{self.rounds}", "token")
                    assert store.next_event(0) is None
                    self.rounds += 1
        except BaseException as failure:
            self.failure = failure


def test_clients_see_nothing_of_a_logic_that_is_killed_or_hangs(server: Server) -> None:
    with linux.connect(server.socket) as store:
        counters = [f"/shared/{number}" for number in range(CLIENTS // 2)]
        for counter in counters:
            for name in ("one", "two"):
                store.write(f"{counter}/{name}", "0")
        stop = threading.Event()
        clients = [Client(server.socket, number, stop) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        choice = random.Random(7)
        hits = 0
        end = time.monotonic() + 60
        while hits < KILLS and time.monotonic() < end:
            # somebody gets on between two hits, so no request is hit so often that it is given up
            before = sum(client.rounds for client in clients)
            while sum(client.rounds for client in clients) == before and time.monotonic() < end:
                time.sleep(0.001)
            time.sleep(choice.random() * 0.01)
            # now and then one that stands still, which costs the server's patience
            hits += server.hit(signal.SIGSTOP if hits % 10 == 9 else signal.SIGKILL)
        stop.set()
        for client in clients:
            client.join(60)
            assert not client.is_alive()
            assert client.failure is None
        assert hits == KILLS
        for counter, one, two in zip(counters, clients[::2], clients[1::2], strict=True):
            rounds = str(one.rounds + two.rounds)
            assert store.text(f"{counter}/one") == store.text(f"{counter}/two") == rounds
        for client in clients:
            assert len(store.children(f"/client/{client._number}")) == client.rounds
        assert store.call(wire.CONTROL, b"check\0") == b"OK\0"


def test_the_server_ends_with_a_message_if_logic_can_not_be_started_again(tmp_path: Path) -> None:
    server = Server(tmp_path, 1)
    os.kill(server.snapshot(), signal.SIGKILL)
    with pytest.raises((ProtocolError, OSError)), linux.connect(server.socket) as store:
        for _ in range(3):
            store.text("/")
    assert server.process.wait(10) == 1
