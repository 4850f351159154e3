"""A command's way into a running host: requests to the Toolstack, consoles, logs, over the keeper's socket.

Synchronous: one `Client` is one connection, used by one thread. The protocol is docs/operator-line.md; this
adds the socket, timeouts, and errors that say what the operator can do. A connection that ends says why: the
host crashed (with the end of its log), was stopped, or the keeper dropped this command.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from xoar.host import tenants
from xoar.host.config import DEFAULT_HOST
from xoar.host.errors import HostError
from xoar.host.state import CRASHED, STARTING, Host, hosts
from xoar.messages.codec import Decoder, Message, encode
from xoar.messages.errors import ENOENT, ETIMEDOUT, MessageError
from xoar.messages.line import WINDOW, LineClient
from xoar.messages.seal import NONCE_SIZE, TO_OPERATOR, TO_TOOLSTACK, Seal, stream_key

QUERY_SECONDS = 20.0
"""For requests that change nothing; software emulation on a busy machine is slow."""
BUILD_SECONDS = 120.0
"""For requests that build or end a domain."""
ANEW_SECONDS = 30.0
"""For a tenant's Toolstack to be there, which now and then is built anew."""

_ANEW_PAUSE = 0.5
_REFRESH = 5.0  # seconds of silence after which credit is repeated, in case a frame was lost
_CHUNK = 65536


class NotRunning(HostError):
    """There is no such host, it has crashed, or it ended during the command."""


class RequestRefused(HostError):
    """The Toolstack's answer to a request was `error`; `errno` as in xoar.messages.errors."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text or os.strerror(errno))
        self.errno = errno

    @property
    def absent(self) -> bool:
        """Whether what the request names does not exist."""
        return self.errno == ENOENT


class Closed(HostError):
    """The other end has closed the channel."""


class TimedOut(HostError):
    """No answer in time; what was asked may still happen."""


def is_timeout(error: HostError) -> bool:
    """Whether something took longer than it was given, here or in the Toolstack."""
    return isinstance(error, TimedOut) or (isinstance(error, RequestRefused) and error.errno == ETIMEDOUT)


class Stream:
    """One channel: bytes in both directions. Made by `Client.open`."""

    def __init__(self, client: Client, channel: int, what: str) -> None:
        self._client = client
        self._channel = channel
        self.what = what
        self.opened = False
        self.received = b""
        self.reason: str | None = None  # why it is closed; "" is a normal end

    @property
    def ended(self) -> bool:
        """Whether all has been read and nothing more will come."""
        return self.reason is not None and not self.received

    def read(self, timeout: float | None = None) -> bytes:
        """What has arrived; waits for it up to `timeout` seconds (None: for ever). b"" if nothing came.

        Raises HostError if the channel was closed for a reason that is an error, NotRunning if the host ends.
        """
        self._client.wait(lambda: bool(self.received) or self.reason is not None, timeout)
        data, self.received = self.received, b""
        self._client.consumed(self._channel, len(data))
        if not data and self.reason:
            raise HostError(f"{self.what}: {self.reason}")
        return data

    def write(self, data: bytes, timeout: float = QUERY_SECONDS) -> None:
        """Sends all of `data`. Raises Closed, or TimedOut if the other end takes nothing for `timeout`
        seconds."""
        while data:
            if self.reason is not None:
                raise Closed(f"{self.what}: {self.reason or 'it has ended'}")
            count = self._client.write(self._channel, data)
            data = data[count:]
            if not count and not self._client.wait(self._writable, timeout):
                raise TimedOut(f"{self.what} takes no input")

    def close(self) -> None:
        """Ends the channel for both ends."""
        if self.reason is None:
            self.reason = ""
            self._client.close_channel(self._channel)

    def _writable(self) -> bool:
        return self.reason is not None or self._client.writable(self._channel)


class _Requests:
    """Messages over a stream to a Toolstack."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._decoder = Decoder()
        self._seal: Seal | None = None

    def begin(self, key: bytes) -> None:
        """Shows that the key is here, and from now on takes only what comes from who has it, too."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        self.send("greet", 1, QUERY_SECONDS, {"nonce": nonce})
        reply = self.next(QUERY_SECONDS)
        if reply is None:
            raise TimedOut(f"{self.stream.what} does not answer")
        own = stream_key(key, nonce, _unless_error(reply).fields.nonce)
        self._decoder.seal, self._seal = Seal(own, TO_OPERATOR), Seal(own, TO_TOOLSTACK)

    def send(self, kind: str, number: int, timeout: float, fields: dict[str, Any]) -> None:
        """Raises HostError, TimedOut."""
        try:
            frame = encode(kind, number, **fields)
        except MessageError as error:
            raise HostError(f"the request can't be sent: {error}") from error
        self.stream.write(frame + self._seal.tag(frame) if self._seal else frame, timeout)

    def next(self, timeout: float) -> Message | None:
        """The next message; None if none comes in time. Raises HostError."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self._decoder.next()
            except MessageError as error:
                text = f"{self.stream.what}: its answer is not understood: {error}"
                hint = "Is it the right key?" if self._seal else ""
                raise HostError(text, hint=hint) from error
            if message is not None:
                return message
            if self.stream.ended:
                hint = "If it began anew, what was asked may be half done: look with xoar ps, then try again."
                raise Closed(f"{self.stream.what} closed the connection", hint=hint)
            if (left := deadline - time.monotonic()) <= 0:
                return None
            self._decoder.feed(self.stream.read(left))

    def into(self, what: str) -> Stream:
        """The stream itself, which is something else now."""
        self.stream.what = what
        self.stream.received = self._decoder.rest() + self.stream.received
        return self.stream


def _unless_error(reply: Message) -> Message:
    if reply.kind == "error":
        raise RequestRefused(reply.fields.errno, reply.fields.text)
    return reply


class Client:
    """A connection to one host. Use it as a context manager. It speaks for `tenant`, "": for the host's own
    operator."""

    def __init__(self, connection: socket.socket, host: Host, tenant: str = "", key: bytes = b"") -> None:
        self.host = host
        self.tenant = tenant
        self._key = key
        self._socket = connection
        self._socket.setblocking(False)
        self._line = LineClient(max(WINDOW, 16384))
        self._streams: dict[int, Stream] = {}
        self._requests: _Requests | None = None
        self._last_id = 0
        self._asked: set[int] = set()
        self._replies: dict[int, Message] = {}
        self._ready = False

    @classmethod
    def connect(cls, host_name: str, timeout: float = 15.0) -> Client:
        """Connects to a running host, as a tenant of it if that is named: tenant@host. Raises NotRunning,
        TimedOut (seconds), HostError."""
        tenant, name = tenants.split(host_name)
        host = Host(name)
        if host.alive() is None:
            raise not_running(host)
        client = cls(host.connect(), host, tenant, tenants.key(tenant, name) if tenant else b"")
        try:
            client._line.hello(secrets.randbelow(0xFFFFFFFF) + 1)
            if not client.wait(lambda: client._ready, timeout):
                raise client._no_answer(timeout)
        except BaseException:
            client.close()
            raise
        return client

    def close(self) -> None:
        """Ends the connection and with it all channels."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """For select: readable when `wait` has something to do."""
        return self._socket.fileno()

    # requests

    def request(self, kind: str, timeout: float = QUERY_SECONDS, **fields: Any) -> Message:
        """Sends a request of messages/schema.py to the Toolstack; its reply.

        Raises RequestRefused, TimedOut after `timeout` seconds, NotRunning if the host ends meanwhile.
        """
        deadline = time.monotonic() + timeout
        number = self.ask(kind, timeout, **fields)
        message = self.reply(number, max(deadline - time.monotonic(), 0))
        if message is None:
            self._asked.discard(number)
            raise TimedOut(
                f"the Toolstack of host {self.host.name} has not answered {kind} for {timeout:.0f} s",
                log=self.host.xen_log,
                hint="What was asked may still happen; look with: xoar ps",
            )
        return message

    def ask(self, kind: str, timeout: float = QUERY_SECONDS, **fields: Any) -> int:
        """Sends a request, without waiting; the number to ask `reply` with. Raises as `request`."""
        if self._requests is None or self._requests.stream.reason is not None:
            self._requests = self._toolstack()
            self._asked.clear()
        self._last_id += 1
        self._requests.send(kind, self._last_id, timeout, fields)
        self._asked.add(self._last_id)
        return self._last_id

    def reply(self, number: int, timeout: float) -> Message | None:
        """The reply to what `ask` has sent; None if none comes in `timeout` seconds. Raises as `request`."""
        assert self._requests is not None
        deadline = time.monotonic() + timeout
        while number not in self._replies:
            message = self._requests.next(max(deadline - time.monotonic(), 0))
            if message is None:
                return None
            if message.id in self._asked:  # nobody waits any more for any other
                self._replies[message.id] = message
        self._asked.discard(number)
        return _unless_error(self._replies.pop(number))

    def objects(self) -> list[Any]:
        """All domains, as `object` records of the schema, by domid."""
        return self._pages("ps", "objects", lambda entries: entries[-1].id + 1)

    def guests(self) -> list[Any]:
        """The guests, as `guest` records of the schema, in the order of their creation."""
        return self._pages("guest_list", "guests", len)

    def images(self) -> list[Any]:
        """The image library, as `image` records of the schema."""
        return self._pages("image_list", "images", len)

    def drivers(self) -> list[Any]:
        """The driver domains, as `driver` records of the schema, by domid."""
        return self._pages("driver_list", "drivers", len)

    def networks(self) -> list[Any]:
        """The networks, as `network` records of the schema, in the order of their creation."""
        return self._pages("network_list", "networks", len)

    def devices(self) -> list[Any]:
        """The host's devices, as `found_device` records of the schema, in ascending order."""
        return self._pages("device_show", "devices", len)

    def permits(self) -> list[Any]:
        """The optional rights, as `permit` records of the schema, in the order of the boot plan."""
        return self._pages("permit_show", "permits", len)

    def journal(self) -> tuple[list[Any], Any]:
        """All `entry` records of the journal that are kept, the oldest first, and the last page."""
        entries: list[Any] = []
        while True:
            page = self.request("journal_show", start=entries[-1].number + 1 if entries else 0).fields
            entries += page.entries
            if not page.more or not page.entries:
                return entries, page

    def press(self, keys: str) -> None:
        """Has Console press debug keys of Xen's. Raises HostError with the reason if it does not."""
        self.open("keys", keys, "Xen's debug keys").close()

    def tenants(self) -> list[Any]:
        """The tenants, as `tenant` records of the schema, in the order of the host's configuration."""
        return self._pages("tenant_list", "tenants", len)

    def delegations(self) -> list[Any]:
        """What is delegated to tenants, as `delegation` records of the schema, in order of their making."""
        return self._pages("delegation_list", "delegations", len)

    def restarted(self) -> list[Any]:
        """The shards that can be rolled back, as `object` records."""
        return [entry for entry in self.objects() if entry.policy]

    def rollbacks(self) -> tuple[list[Any], int]:
        """What is known of rollbacks, as `rollback` records of the schema, the oldest first; Xen's clock
        (ms)."""
        records: list[Any] = []
        start = 0
        while True:
            reply = self.request("rollback_list", start=start).fields
            records += reply.records
            if not reply.more or reply.next <= start:
                return records, reply.now_ms
            start = reply.next

    def volumes(self) -> list[Any]:
        """The volumes, as `volume` records of the schema, by driver domain and name."""
        return self._pages("volume_list", "volumes", len)

    def pools(self) -> list[Any]:
        """What holds the volumes, as `pool` records of the schema."""
        pools: list[Any] = self.request("volume_list", start=0).fields.pools
        return pools

    def keeper(self, *words: str) -> str:
        """What the keeper answers to a request of its own (docs/operator-line.md). Raises HostError."""
        stream = self.open("keeper", " ".join(words), "the keeper")
        return b"".join(chunks(stream)).decode().strip()

    def _pages(self, kind: str, field: str, following: Callable[[list[Any]], int]) -> list[Any]:
        entries: list[Any] = []
        while True:
            reply = self.request(kind, start=following(entries) if entries else 0).fields
            page = getattr(reply, field)
            entries += page
            if not reply.more or not page:
                return entries

    def _toolstack(self) -> _Requests:
        """A new stream of requests to the Toolstack."""
        if not self.tenant:
            return _Requests(self.open("toolstack", "", "the Toolstack"))
        deadline = time.monotonic() + ANEW_SECONDS
        while True:
            requests = _Requests(self.tenants_toolstack(self.tenant))
            try:
                requests.begin(self._key)
                return requests
            except Closed:  # it has ended to be built anew, and nothing was asked yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(_ANEW_PAUSE)

    # channels

    def tenants_toolstack(self, tenant: str) -> Stream:
        """A stream to a tenant's Toolstack, which has to be sealed. Waits up to ANEW_SECONDS for one that is
        being built anew. Raises HostError."""
        deadline = time.monotonic() + ANEW_SECONDS
        while True:
            stream = self.begin("toolstack", tenant, f"the Toolstack of tenant {tenant}")
            try:
                self.finish(stream)
                return stream
            except HostError:
                if stream.reason is None or time.monotonic() > deadline:
                    raise
                time.sleep(_ANEW_PAUSE)

    def console(self, domid: int) -> Stream:
        """A guest's console from now on; both directions."""
        return self.open("console", str(domid), f"the console of domain {domid}")

    def log(self, domid: int, follow: bool = False) -> Stream:
        """What a guest's console showed lately (16 KiB), with `follow` also what comes."""
        argument = f"{domid} follow" if follow else str(domid)
        return self.open("log", argument, f"the log of domain {domid}")

    def attach(self, guest: str, what: str) -> Stream:
        """A guest's console, through its Toolstack: records.CONSOLE says `what` of it. Raises HostError."""
        requests = self._toolstack()
        requests.send("guest_console", 1, QUERY_SECONDS, {"name": guest, "what": what})
        reply = requests.next(QUERY_SECONDS)
        if reply is None:
            raise TimedOut(f"{requests.stream.what} does not answer", log=self.host.xen_log)
        _unless_error(reply)
        return requests.into(f"the console of {guest}")

    def open(self, service: str, argument: str = "", what: str = "") -> Stream:
        """A channel to a service of docs/operator-line.md. Raises HostError if it is refused."""
        stream = self.begin(service, argument, what)
        self.finish(stream)
        return stream

    def begin(self, service: str, argument: str = "", what: str = "") -> Stream:
        """Asks for a channel without waiting, so that two can be asked for at once; `finish` it."""
        channel = self._line.open(service, argument)
        stream = self._streams[channel] = Stream(self, channel, what or f"the service {service}")
        return stream

    def finish(self, stream: Stream, timeout: float = QUERY_SECONDS) -> None:
        """Waits until a channel is open. Raises HostError with the reason if it was refused, TimedOut."""
        if not self.wait(lambda: stream.opened or stream.reason is not None, timeout):
            stream.close()
            raise TimedOut(f"{stream.what}: no answer within {timeout:.0f} s", log=self.host.xen_log)
        if not stream.opened:
            raise HostError(f"{stream.what}: {stream.reason or 'it was refused'}")

    # what streams use

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Moves bytes until `done()` or the time is over; the last `done()`. Raises NotRunning."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while True:
                self._send()
                if done():
                    return True
                left = _REFRESH if deadline is None else max(deadline - time.monotonic(), 0)
                if selector.select(min(left, _REFRESH)):
                    self._receive()
                elif left >= _REFRESH:
                    self._line.refresh()
                else:
                    return False

    def writable(self, channel: int) -> bool:
        """Whether the channel takes bytes now."""
        return self._line.writable(channel) > 0

    def write(self, channel: int, data: bytes) -> int:
        """Sends what the channel takes now; how many bytes that was."""
        count = self._line.write(channel, data)
        self._send()
        return count

    def consumed(self, channel: int, count: int) -> None:
        """Bytes of the channel have been read."""
        self._line.consumed(channel, count)
        self._send()

    def close_channel(self, channel: int) -> None:
        """Ends a channel."""
        self._streams.pop(channel, None)
        self._line.close(channel)
        self._send()

    def _send(self) -> None:
        while self._line.pending:
            data = self._line.take(_CHUNK)
            while data:
                try:
                    data = data[self._socket.send(data) :]
                except BlockingIOError:
                    selector = selectors.DefaultSelector()
                    with selector:
                        selector.register(self._socket, selectors.EVENT_WRITE)
                        if not selector.select(QUERY_SECONDS):
                            raise TimedOut(
                                f"the keeper of host {self.host.name} takes no input",
                                log=self.host.keeper_log,
                            ) from None
                except OSError as error:
                    raise self._cut_off() from error

    def _wait_for_room(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_WRITE)
            if not selector.select(QUERY_SECONDS):
                name = self.host.name
                raise TimedOut(f"the keeper of host {name} takes no input", log=self.host.keeper_log)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._cut_off() from error
        if not data:
            raise self._cut_off()
        for event in self._line.feed(data):
            if event.kind == "hello":
                self._greeted(event.data)
                continue
            stream = self._streams.get(event.channel)
            if stream is None:
                continue
            if event.kind == "opened":
                stream.opened = True
            elif event.kind == "data":
                stream.received += event.data
            elif event.kind == "closed":
                stream.reason = event.data
                del self._streams[event.channel]

    def _greeted(self, mismatch: str) -> None:
        if mismatch:
            raise HostError(
                f"host {self.host.name}: {mismatch}",
                hint="The host was started by another version of Xoar: xoar down, then xoar up.",
            )
        for stream in self._streams.values():
            stream.reason = "the Console shard was restarted"
        self._streams.clear()
        self._ready = True

    def _cut_off(self) -> HostError:
        """Why the connection ended."""
        deadline = time.monotonic() + 2
        while self.host.alive() is not None and time.monotonic() < deadline:
            time.sleep(0.05)  # the keeper closes its connections before it says why
        if self.host.alive() is None:
            return not_running(self.host)
        return HostError(
            f"the keeper of host {self.host.name} ended the connection", log=self.host.keeper_log
        )

    def _no_answer(self, timeout: float) -> HostError:
        record = self.host.record()
        starting = record is not None and record.state == STARTING
        return TimedOut(
            f"host {self.host.name} is {'still starting' if starting else 'not answering'}"
            f" after {timeout:.0f} s",
            log=self.host.xen_log,
            detail=self.host.log_end(),
            hint="Wait and try again, or end it with: xoar down",
        )


def not_running(host: Host) -> NotRunning:
    """What to say of a host that does not run: a crashed one with the end of Xen's log."""
    record = host.record()
    if record is not None:
        reason = record.reason if record.state == CRASHED else "its keeper process was killed"
        return NotRunning(
            f"host {host.name} has crashed: {reason}",
            log=host.xen_log,
            detail=host.log_end(),
            hint=f"Start it again with: {command(host.name, 'up')}",
        )
    running = [other.name for other in hosts() if other.alive() is not None]
    others = f" Running: {', '.join(running)} (choose with --host)." if running else ""
    hint = f"Start it with: {command(host.name, 'up')}.{others}"
    return NotRunning(f"host {host.name} is not running", hint=hint)


def command(host_name: str, words: str) -> str:
    """The command line that does something to a host."""
    return f"xoar {words}" if host_name == DEFAULT_HOST else f"xoar {words} --host {host_name}"


def chunks(stream: Stream) -> Iterator[bytes]:
    """All that a stream gives, until it ends."""
    while not stream.ended:
        data = stream.read()
        if data:
            yield data
