"""The keeper: the one process per host that owns the emulator and the operator's line.

`launch` starts it detached (it outlives the command and its terminal); it writes host.json, carries
the channels of many commands over the one line, watches Xen's console for failures, and ends with
the emulator. SIGTERM ends both. A channel to the service `keeper` it answers itself: `forward` gives
a port of this machine that leads to one of a guest.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path

import msgspec

from xoar.host.cache import CHECKOUT
from xoar.host.emulator import Emulator, Launch, link_modules
from xoar.host.errors import HostError
from xoar.host.mux import CLIENT_LIMIT, Mux
from xoar.host.state import CRASHED, LAUNCH, RUNNING, STARTING, Host, Record, start_time

_TICK = 0.2  # seconds between two looks at Xen's console and at HELLO's answer
_GREETING = 2.0  # seconds to wait for the answer to HELLO before it is repeated
_CHUNK = 16 * 1024


def launch(host: Host, what: Launch, timeout: float = 30.0) -> Record:
    """Start a host under a detached keeper; returns when its emulator runs.

    Raises HostError, with nothing left behind, if the host runs already or the emulator doesn't start.
    """
    with host.locked():
        if host.alive():
            raise HostError(f"host {host.name} is running already", hint="Stop it with: xoar down")
        host.clear()  # of a host that crashed
        host.folder.mkdir(mode=0o700, exist_ok=True)
        (host.folder / LAUNCH).write_bytes(msgspec.json.encode(what))
        with open(host.keeper_log, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "xoar.host.keeper", host.name],
                cwd=host.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while True:
            record = host.record()
            if record is not None:
                return record
            late = time.monotonic() > deadline
            if process.poll() is not None or late:
                process.kill()
                detail = host.keeper_log.read_text(errors="replace").strip()
                host.clear()
                raise HostError(
                    f"host {host.name} did not start" + (f" within {timeout:.0f} s" if late else ""),
                    detail="\n".join(detail.splitlines()[-12:]),
                )
            time.sleep(0.02)


def wait_running(host: Host, timeout: float) -> Record:
    """Wait until the Console shard answers. Raises HostError with the end of Xen's log otherwise."""
    deadline = time.monotonic() + timeout
    while True:
        record = host.record()
        if record is not None and record.state == RUNNING:
            return record
        reason = ""
        if record is not None and record.state == CRASHED:
            reason = record.reason
        elif host.alive() is None:
            reason = "its keeper has ended"
        elif time.monotonic() > deadline:
            reason = f"no answer on the operator's line after {timeout:.0f} s"
        if reason:
            raise HostError(
                f"host {host.name} did not come up: {reason}", log=host.xen_log, detail=host.log_end()
            )
        time.sleep(0.05)


class Keeper:
    """One host's keeper: `run` until the emulator ends or `stop` is called."""

    def __init__(self, host: Host, what: Launch) -> None:
        self._host = host
        self._what = what
        self._mux = Mux()
        self._clients: dict[int, asyncio.StreamWriter] = {}
        self._forwards: dict[str, int] = {}  # "network card address port" -> port of this machine
        self._stopping = asyncio.Event()
        self._failure = ""
        self._work = asyncio.Event()  # something waits for the line
        self._room = asyncio.Event()  # the line has taken all that waited: commands may be read

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        link_modules(self._what.machine, Path())
        async with Emulator(self._what, Path()) as emulator:
            self._emulator = emulator
            reader, self._line = await asyncio.open_connection(sock=await emulator.start())
            me = os.getpid()
            self._record = Record(
                self._host.name, STARTING, me, start_time(me) or 0, emulator.pid, time.time(),
                self._what.xen_version,
            )  # fmt: skip
            # the working directory is the host's folder: its path may be too long for a socket's name
            server = await asyncio.start_unix_server(self._serve, "control")
            self._host.write(self._record)
            try:
                await self._until_first(
                    emulator.wait(),
                    self._stopping.wait(),
                    self._from_line(reader),
                    self._to_line(),
                    self._watch(),
                )
            finally:
                server.close()
                for client in list(self._clients):
                    self._drop(client)
            if not self._stopping.is_set():
                self._update(CRASHED, self._failure or await self._why_ended(emulator))

    async def _until_first(self, *work: Coroutine[None, None, object]) -> None:
        """Run all until one ends; cancel the others; raise what one of them raised."""
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _why_ended(self, emulator: Emulator) -> str:
        try:
            status = await asyncio.wait_for(emulator.wait(), 5)
        except TimeoutError:
            return "the operator's line was closed"
        if status == 0:
            return "Xen shut the machine down"
        return str(emulator.failure(f"QEMU ended with exit code {status}"))

    def _update(self, state: str, reason: str = "") -> None:
        self._record = msgspec.structs.replace(self._record, state=state, reason=reason)
        self._host.write(self._record)

    async def _from_line(self, reader: asyncio.StreamReader) -> None:
        """Carry what the Console shard sends; ends when the emulator closes the line."""
        while data := await reader.read(_CHUNK):
            heard = self._mux.heard
            self._mux.from_line(data)
            if self._mux.heard and not heard:
                self._greet()
            if self._mux.ready and self._record.state == STARTING:
                self._update(RUNNING)
            self._send()

    async def _to_line(self) -> None:
        """Put on the line what waits for it."""
        self._line.transport.set_write_buffer_limits(high=0)
        while True:
            await self._work.wait()
            self._work.clear()
            self._line.write(self._mux.take_line())
            await self._line.drain()
            self._room.set()

    def _greet(self) -> None:
        self._mux.greet(secrets.randbelow(0xFFFFFFFF) + 1)
        self._greeted = time.monotonic()

    async def _watch(self) -> None:
        """Look for failures in Xen's console; repeat the greeting until it is answered."""
        failures = re.compile("|".join(f"(?:{pattern})" for pattern in self._what.failures) or r"(?!)")
        rest = b""
        with open(self._host.xen_log, "rb") as log:
            while not self._failure:
                await asyncio.sleep(_TICK)
                if self._mux.heard and not self._mux.ready and time.monotonic() - self._greeted > _GREETING:
                    self._greet()
                    self._send()
                *lines, rest = (rest + log.read(1 << 20)).split(b"\n")
                rest = rest[-_CHUNK:]
                for line in lines:
                    text = line.decode("utf-8", errors="replace").strip("\r")
                    if failures.match(text):
                        self._failure = text
                        await asyncio.sleep(1)  # what follows it in the log explains it
                        break

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one command's channels until it closes its connection."""
        client = self._mux.attach()
        self._clients[client] = writer
        try:
            while (data := await reader.read(_CHUNK)) and client in self._clients:
                self._mux.from_client(client, data)
                await self._answer_requests()
                self._send()
                while self._mux.congested:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionError:
            pass  # it was killed; that closes its channels all the same
        finally:
            self._drop(client)

    async def _answer_requests(self) -> None:
        """Do what commands ask the keeper itself for."""
        while self._mux.requests:
            request = self._mux.requests.pop(0)
            try:
                answer, reason = f"{await self._requested(request.words)}\n", ""
            except HostError as error:
                answer, reason = "", error.message
            self._mux.answer(request, answer.encode(), reason)

    async def _requested(self, untrusted_words: list[str]) -> int:
        match untrusted_words:
            case ["forward", card, address, port]:
                key = " ".join((card, address, port))
                if key not in self._forwards:
                    self._forwards[key] = await self._emulator.forward(card, address, port)
                return self._forwards[key]
        raise HostError(f"the keeper can't do this: {' '.join(untrusted_words)}")

    def _drop(self, client: int) -> None:
        self._mux.detach(client)
        writer = self._clients.pop(client, None)
        if writer is not None:
            writer.transport.abort()
        self._send()

    def _send(self) -> None:
        """Hand over what the mux has for the line and for the commands; waits for nobody."""
        self._work.set()
        for client, writer in list(self._clients.items()):
            writer.write(self._mux.take(client))
            if writer.transport.get_write_buffer_size() > CLIENT_LIMIT:
                print(f"a command does not read its answers: dropped (client {client})", flush=True)
                self._drop(client)


async def _main(name: str) -> int:
    host = Host(name)
    what = msgspec.json.decode((host.folder / LAUNCH).read_bytes(), type=Launch)
    keeper = Keeper(host, what)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, keeper.stop)
    try:
        await keeper.run()
    except (HostError, OSError) as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1])))
