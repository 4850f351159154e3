"""The line to the agent in the guest that is measured, and what a download comes from."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from xoar.host.bench import agent, hosts
from xoar.host.errors import HostError

_CHUNK = bytes(1 << 20)


class Done(NamedTuple):
    """What a program in the guest printed; seconds on this machine's clock, from asking to the answer, and on
    the guest's, without the way there and back."""

    output: str
    seconds: float
    guest_seconds: float


class Listener:
    """Waits for the guest's agent from the start of the host on, so that the time of its call is known."""

    def __init__(self) -> None:
        self._socket = listen(agent.PORT)
        self._arrived = threading.Event()
        self._connection: socket.socket | None = None
        self._when = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed without a call
            self._connection, _ = self._socket.accept()
            self._when = hosts.now()
            self._socket.close()  # another host's guest may be waited for
            self._arrived.set()

    def wait(self, timeout: float) -> tuple[Agent, float]:
        """The agent, and when it called (`hosts.now`). Raises HostError after `timeout` seconds."""
        if not self._arrived.wait(timeout):
            raise HostError(f"the guest has not called port {agent.PORT} for {timeout:.0f} s")
        assert self._connection is not None
        return Agent(self._connection), self._when

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        for open_socket in (self._socket, self._connection):
            if open_socket is not None:
                with contextlib.suppress(OSError):  # it hung up first
                    open_socket.shutdown(socket.SHUT_RDWR)  # closing wakes nobody who accepts or reads
                open_socket.close()


class Agent:
    """Tells the agent in the guest what to do, one thing at a time."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(hosts.LONG)
        self._lines = connection.makefile("rw")

    def run(self, *words: str) -> Done:
        """Runs a program. Raises HostError if it fails, with what it printed, or takes too long."""
        return self._ask(" ".join(words), {"run": words})

    def download(self, length: int, path: str) -> Done:
        """Has the guest fetch `length` bytes over the network and write them to the device `path`."""
        with sending(length) as port:
            return self._ask("a download", {"download": length, "port": port, "file": path})

    def _ask(self, what: str, request: dict[str, Any]) -> Done:
        began = hosts.now()
        try:
            self._lines.write(json.dumps(request) + "\n")
            self._lines.flush()
            line = self._lines.readline()
        except OSError as error:
            raise HostError(f"the guest does not answer to {what}: {error}") from error
        seconds = hosts.now() - began
        if not line:
            raise HostError(f"the guest hung up at {what}")
        reply = json.loads(line)
        if reply["status"]:
            raise HostError(f"in the guest, {what}: exit code {reply['status']}", detail=reply["output"])
        return Done(reply["output"], seconds, reply["seconds"])


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback. Raises HostError if another benchmark has the port."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError as error:
        made.close()
        raise HostError(f"port {port} of 127.0.0.1 is in use: {error.strerror}") from error
    made.listen(1)
    return made


@contextlib.contextmanager
def sending(length: int) -> Iterator[int]:
    """A port that sends `length` bytes to the first who connects."""
    with listen(0) as server:

        def send() -> None:
            with contextlib.suppress(OSError):  # the guest reports what went wrong
                connection, _ = server.accept()
                with connection:
                    for start in range(0, length, len(_CHUNK)):
                        connection.sendall(_CHUNK[: length - start])

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            port: int = server.getsockname()[1]
            yield port
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
