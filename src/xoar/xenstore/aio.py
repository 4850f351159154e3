"""XenStore for asyncio programs on Linux: over /dev/xen/xenbus, or over the Unix socket of a server.

    async with await connect() as store:
        await store.write("data/greeting", "hello")
        async with store.watch("data") as changes:
            async for path in changes:
                print(path, await store.read(path))

Any number of tasks may use one connection; requests are sent in the order of the calls. Paths that begin
without "/" are below the domain's home; paths are str (ASCII), values bytes.

Errors, of all calls: Refused with the error's name (xoar.xenstore.errors); ConnectionError once the server
has closed the connection, or has broken the protocol. Only for CPython; needs nothing of Xoar but its wire
format (`wire`, `client.Listing`, the generated `xoar.abi`).
"""

import asyncio
import errno
import os
import socket
import stat
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from xoar.xenstore import wire
from xoar.xenstore.client import Listing
from xoar.xenstore.domains import READ_ACCESS, WRITE_ACCESS
from xoar.xenstore.errors import ProtocolError, Refused

DEVICE = "/dev/xen/xenbus"

_CHUNK = 65536
_ATTEMPTS = 100

Result = TypeVar("Result")
_Reply = asyncio.Future[bytes]


@dataclass(frozen=True)
class Permission:
    """What a domain may do with a node. The first one of a node names its owner, who may do everything,
    and what all domains may do that are not named."""

    domid: int
    read: bool = False
    write: bool = False


class Operations:
    """What can be done with nodes, inside a transaction or outside of any."""

    async def call(self, kind: int, payload: bytes) -> bytes:
        """The reply to a request (wire.READ ...)."""
        raise NotImplementedError

    async def read(self, path: str) -> bytes:
        """The value at a path."""
        return await self.call(wire.READ, wire.words(path))

    async def write(self, path: str, value: str | bytes) -> None:
        """Stores a value; makes what is missing of the path."""
        data = value.encode() if isinstance(value, str) else value
        await self.call(wire.WRITE, wire.words(path) + data)

    async def mkdir(self, path: str) -> None:
        """Makes sure that a path exists."""
        await self.call(wire.MKDIR, wire.words(path))

    async def rm(self, path: str) -> None:
        """Makes sure that a path and all below it do not exist."""
        await _or_missing(self.call(wire.RM, wire.words(path)))

    async def exists(self, path: str) -> bool:
        """Whether there is a node at a path."""
        return await _or_missing(self.read(path)) is not None

    async def directory(self, path: str) -> list[str]:
        """The names of a node's children, in no particular order."""
        try:
            names = await self.call(wire.DIRECTORY, wire.words(path))
        except Refused as error:
            if error.name != "E2BIG":
                raise
            listing = Listing()
            while not listing.take(
                await self.call(wire.DIRECTORY_PART, wire.words(path, f"{listing.start}"))
            ):
                pass
            names = listing.names
        return [name.decode("ascii") for name in wire.strings(names)]

    async def get_permissions(self, path: str) -> list[Permission]:
        """A node's permissions."""
        words = wire.strings(await self.call(wire.GET_PERMS, wire.words(path)))
        found = [wire.parse_permission(word) for word in words]
        return [
            Permission(domid, bool(bits & READ_ACCESS), bool(bits & WRITE_ACCESS)) for domid, bits in found
        ]

    async def set_permissions(self, path: str, permissions: Iterable[Permission]) -> None:
        """Replaces a node's permissions."""
        entries = [
            (entry.domid, (READ_ACCESS if entry.read else 0) | (WRITE_ACCESS if entry.write else 0))
            for entry in permissions
        ]
        words = [wire.format_permission(entry).decode() for entry in entries]
        await self.call(wire.SET_PERMS, wire.words(path, *words))


class Transaction(Operations):
    """Operations of one transaction: see Store.transaction."""

    def __init__(self, store: "Store", number: int) -> None:
        self._store = store
        self._number = number

    async def call(self, kind: int, payload: bytes) -> bytes:
        """The reply to a request of this transaction."""
        return await self._store.request(kind, payload, self._number)


class Changes:
    """Paths that changed at or below a watched one; an asynchronous iterator that never ends by itself.

    The watched path itself comes first, at once, and whenever events were lost. A path that changes several
    times before it is taken comes once.
    """

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}
        self._some = asyncio.Event()
        self._failure: Exception | None = None

    def __aiter__(self) -> "Changes":
        return self

    async def __anext__(self) -> str:
        while not self._paths:
            if self._failure is not None:
                raise ConnectionError(str(self._failure)) from self._failure
            self._some.clear()
            await self._some.wait()
        path = next(iter(self._paths))
        del self._paths[path]
        return path

    def _add(self, path: str) -> None:
        self._paths[path] = None
        self._some.set()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._some.set()


class Store(Operations):
    """A connection; made by `connect`. An asynchronous context manager, which closes it."""

    def __init__(self, fd: int, close: Callable[[], object]) -> None:
        self._fd = fd
        self._close = close
        self._loop = asyncio.get_running_loop()
        self._decoder = wire.Decoder()
        self._unsent: deque[tuple[int, bytes]] = deque()
        self._last_request = 0
        self._last_token = 0
        self._replies: dict[int, _Reply] = {}
        self._watches: dict[str, Changes] = {}
        self._failure: Exception | None = None
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._receive)

    async def __aenter__(self) -> "Store":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; its watches and transactions go with it, and what still waits fails."""
        self._fail(ConnectionError("the connection to XenStore was closed"))

    def request(self, kind: int, payload: bytes, transaction: int = 0) -> _Reply:
        """Sends a request; its reply can be awaited, or left alone."""
        if len(payload) > wire.PAYLOAD_MAX:
            raise Refused("E2BIG")
        if self._failure is not None:
            raise ConnectionError(str(self._failure)) from self._failure
        self._last_request = self._last_request % 0xFFFFFFFF + 1
        reply = self._replies[self._last_request] = self._loop.create_future()
        # a reply that nobody waits for any more may be an error
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._unsent.append((self._last_request, wire.encode(kind, self._last_request, transaction, payload)))
        self._send()
        return reply

    async def call(self, kind: int, payload: bytes) -> bytes:
        """The reply to a request outside of transactions."""
        return await self.request(kind, payload)

    async def transaction(self, body: Callable[[Transaction], Awaitable[Result]]) -> Result:
        """Does `await body(transaction)`, as often as others interfere, and returns what it returned last.

        If the body raises, nothing of it is done. Refused(EAGAIN) if others interfered a hundred times.
        """
        for _ in range(_ATTEMPTS):
            number = await self._begin()
            try:
                result = await body(Transaction(self, number))
            except BaseException:
                self._abort(number)
                raise
            try:
                await self.request(wire.TRANSACTION_END, b"T\0", number)
                return result
            except Refused as error:
                if error.name != "EAGAIN":
                    raise
        raise Refused("EAGAIN")

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[Changes]:
        """Watches a path (or @introduceDomain, @releaseDomain) while the context lasts."""
        self._last_token += 1
        token = f"{self._last_token}"
        changes = self._watches[token] = Changes()
        try:
            await self.request(wire.WATCH, wire.words(path, token))
            yield changes
        finally:
            del self._watches[token]
            if self._failure is None:
                self.request(wire.UNWATCH, wire.words(path, token))

    async def _begin(self) -> int:
        reply = self.request(wire.TRANSACTION_START, b"\0")
        try:
            return int((await asyncio.shield(reply))[:-1])
        except asyncio.CancelledError:
            reply.add_done_callback(self._abort_begun)
            raise

    def _abort_begun(self, reply: _Reply) -> None:
        if not reply.cancelled() and reply.exception() is None:
            self._abort(int(reply.result()[:-1]))

    def _abort(self, number: int) -> None:
        if self._failure is None:
            self.request(wire.TRANSACTION_END, b"F\0", number)

    # bytes

    def _send(self) -> None:
        """Writes what the file takes. Each write is of one message: so the device wants it."""
        while self._unsent:
            number, message = self._unsent[0]
            try:
                count = os.write(self._fd, message)
            except BlockingIOError:
                self._loop.add_writer(self._fd, self._send)
                return
            except ConnectionError as error:
                self._fail(error)
                return
            except OSError as error:
                # the kernel's device refuses watches, and what is no request, in this way
                self._answer(number, Refused(errno.errorcode.get(error.errno or 0, "EIO")))
                count = len(message)
            self._unsent.popleft()
            if count < len(message):
                self._unsent.appendleft((number, message[count:]))
        self._loop.remove_writer(self._fd)

    def _receive(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
            if not data:
                raise ConnectionError("XenStore has closed the connection")
            self._decoder.feed(data)
            while (message := self._decoder.next()) is not None:
                self._take(message)
        except BlockingIOError:
            pass
        except (OSError, ProtocolError) as error:
            self._fail(error)

    def _take(self, message: wire.Message) -> None:
        if message.kind == wire.ERROR:
            self._answer(message.request, Refused(message.payload[:-1].decode("ascii", "replace")))
        elif message.kind != wire.WATCH_EVENT:
            self._answer(message.request, message.payload)
        else:
            words = wire.strings(message.payload)
            if len(words) < 2:
                raise ProtocolError("a watch event without path and token")
            path, token = (word.decode("ascii", "replace") for word in words[:2])
            if token in self._watches:
                self._watches[token]._add(path)

    def _answer(self, number: int, answer: bytes | Exception) -> None:
        reply = self._replies.pop(number, None)
        if reply is None or reply.done():
            return
        if isinstance(answer, bytes):
            reply.set_result(answer)
        else:
            reply.set_exception(answer)

    def _fail(self, failure: Exception) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._close()
        for number in list(self._replies):
            self._answer(number, ConnectionError(str(failure)))
        for changes in self._watches.values():
            changes._fail(failure)


async def connect(path: str = DEVICE) -> Store:
    """Connects to the kernel's device, or to a server's Unix socket. Raises OSError."""
    if stat.S_ISSOCK(os.stat(path).st_mode):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(client, path)
        except BaseException:
            client.close()
            raise
        return Store(client.fileno(), client.close)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return Store(fd, lambda: os.close(fd))


async def _or_missing(result: Awaitable[Result]) -> Result | None:
    try:
        return await result
    except Refused as error:
        if error.name != "ENOENT":
            raise
        return None
