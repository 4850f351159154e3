"""The client for asyncio, against our server on a Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from xoar.xenstore import wire
from xoar.xenstore.aio import Changes, Permission, Store, Transaction, connect
from xoar.xenstore.errors import Refused

Result = TypeVar("Result")
SOON = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("xs") / "socket")
    process = subprocess.Popen([sys.executable, "-m", "xoar.host.xenstored", "--socket", path])
    end = time.monotonic() + SOON
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.02)
    yield path
    process.terminate()
    process.wait()


def run(path: str, body: Callable[[Store], Awaitable[Result]]) -> Result:
    """What the body returns, on a connection of its own."""

    async def connected() -> Result:
        async with await connect(path) as store:
            return await body(store)

    return asyncio.run(asyncio.wait_for(connected(), SOON))


async def refusal(call: Awaitable[object]) -> str:
    with pytest.raises(Refused) as caught:
        await call
    return caught.value.name


def test_nodes(server: str) -> None:
    async def body(store: Store) -> None:
        await store.write("/nodes/a", "one")
        await store.write("/nodes/b", b"\0\xff")
        await store.mkdir("/nodes/c")
        assert await store.read("/nodes/a") == b"one"
        assert await store.read("/nodes/b") == b"\0\xff"
        assert sorted(await store.directory("/nodes")) == ["a", "b", "c"]
        assert await store.exists("/nodes/c") and not await store.exists("/nodes/d")
        await store.rm("/nodes")
        await store.rm("/nodes")
        assert await refusal(store.read("/nodes/a")) == "ENOENT"
        assert await refusal(store.write("bad path", "")) == "EINVAL"
        assert await refusal(store.write("/x", bytes(wire.PAYLOAD_MAX))) == "E2BIG"

    run(server, body)


def test_permissions(server: str) -> None:
    async def body(store: Store) -> None:
        await store.write("/permissions", "")
        wanted = [Permission(3, read=True), Permission(5, read=True, write=True), Permission(7)]
        await store.set_permissions("/permissions", wanted)
        assert await store.get_permissions("/permissions") == wanted
        await store.rm("/permissions")

    run(server, body)


def test_a_long_directory_is_listed_whole(server: str) -> None:
    names = [f"a-node-with-a-long-name-{number}" for number in range(300)]

    async def body(store: Store) -> None:
        await asyncio.gather(*[store.write(f"/long/{name}", "") for name in names])
        assert sorted(await store.directory("/long")) == sorted(names)
        await store.rm("/long")

    run(server, body)


def test_many_tasks_get_their_own_answers(server: str) -> None:
    async def body(store: Store) -> None:
        async def task(number: int) -> None:
            for turn in range(20):
                await store.write(f"/tasks/{number}", f"{number} {turn}")
                assert await store.read(f"/tasks/{number}") == f"{number} {turn}".encode()

        await asyncio.gather(*[task(number) for number in range(20)])
        await store.rm("/tasks")

    run(server, body)


async def counted(change: Transaction) -> int:
    value = int(await change.read("/counter")) + 1
    await asyncio.sleep(0)
    await change.write("/counter", f"{value}")
    return value


def test_transactions_are_repeated_until_nobody_interfered(server: str) -> None:
    async def body(store: Store) -> None:
        async with await connect(server) as other:
            await store.write("/counter", "0")
            found = await asyncio.gather(*[which.transaction(counted) for which in (store, other) * 5])
            assert sorted(found) == list(range(1, 11))
            assert await store.read("/counter") == b"10"

    run(server, body)


def test_a_transaction_whose_body_fails_or_is_cancelled_changes_nothing_and_stays_not_open(
    server: str,
) -> None:
    async def failing(change: Transaction) -> None:
        await change.write("/failed", "")
        raise ValueError

    async def slow(change: Transaction) -> None:
        await change.write("/failed", "")
        await asyncio.sleep(SOON)

    async def body(store: Store) -> None:
        for _ in range(30):
            with pytest.raises(ValueError):
                await store.transaction(failing)
            for delay in (0.0, 0.005):
                task = asyncio.create_task(store.transaction(slow))
                await asyncio.sleep(delay)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert not await store.exists("/failed")
        usage = await store.call(wire.CONTROL, b"quota\x000\0")
        assert b"transactions" not in usage or b"transactions    :        0" in usage

    run(server, body)


async def following(changes: Changes, count: int) -> list[str]:
    return [await anext(changes) for _ in range(count)]


def test_a_watch_tells_of_changes_until_its_context_ends(server: str) -> None:
    async def body(store: Store) -> None:
        async with store.watch("/watched") as changes, store.watch("/watched/b") as inner:
            assert await following(changes, 1) == ["/watched"]
            assert await following(inner, 1) == ["/watched/b"]
            await store.write("/watched/a", "")
            await store.write("/watched/b", "")
            assert await following(changes, 2) == ["/watched/a", "/watched/b"]
            assert await following(inner, 1) == ["/watched/b"]
            # what changes again before somebody looks comes once
            for _ in range(5):
                await store.write("/watched/a", "")
            await store.write("/watched/c", "")
            assert await following(changes, 2) == ["/watched/a", "/watched/c"]
        await store.rm("/watched")
        assert changes._paths == {}
        assert store._watches == {}

    run(server, body)


def test_a_watch_that_is_refused_is_none(server: str) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(Refused):
            async with store.watch("bad path"):
                pass
        assert store._watches == {}
        assert await store.exists("/")

    run(server, body)


def test_a_call_that_is_cancelled_leaves_others_alone(server: str) -> None:
    async def body(store: Store) -> None:
        for _ in range(50):
            task = asyncio.create_task(store.read("/"))
            await asyncio.sleep(0)
            task.cancel()
            assert await store.exists("/")
        assert store._replies == {}

    run(server, body)


class Other:
    """A server that does what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()

    def accept(self) -> socket.socket:
        return self._listener.accept()[0]


@pytest.mark.parametrize(
    "farewell", [b"", wire.encode(wire.READ, 1, 0, b"")[:12] + b"\xff" * 4, b"\xff" * 64]
)
def test_who_waits_is_told_when_the_server_goes_or_talks_nonsense(tmp_path: Path, farewell: bytes) -> None:
    async def body(server: Other) -> None:
        async with await connect(server.path) as store:
            peer = server.accept()
            read = asyncio.create_task(store.read("/a"))
            await asyncio.sleep(0)
            watching = asyncio.create_task(_first(store))
            await asyncio.sleep(0)
            peer.sendall(farewell)
            if not farewell:
                peer.close()
            for task in (read, watching):
                with pytest.raises(ConnectionError):
                    await task
            with pytest.raises(ConnectionError):
                await store.read("/a")
            peer.close()

    asyncio.run(asyncio.wait_for(body(Other(tmp_path)), SOON))


async def _first(store: Store) -> str:
    async with store.watch("/a") as changes:
        return await anext(changes)


def test_what_the_server_does_not_read_waits_and_then_goes_out_in_order(tmp_path: Path) -> None:
    async def body(server: Other) -> None:
        async with await connect(server.path) as store:
            peer = server.accept()
            tasks = [asyncio.create_task(store.write("/a", bytes(4000))) for _ in range(300)]
            await asyncio.sleep(0.1)
            peer.settimeout(SOON)
            decoder, seen = wire.Decoder(), 0
            while seen < len(tasks):
                decoder.feed(await asyncio.to_thread(peer.recv, 65536))
                while (message := decoder.next()) is not None:
                    seen += 1
                    assert message.request == seen
                    peer.sendall(wire.encode(message.kind, message.request, 0, b"OK\0"))
            await asyncio.gather(*tasks)
            peer.close()

    asyncio.run(asyncio.wait_for(body(Other(tmp_path)), SOON))
