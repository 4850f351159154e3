"""A host in memory behind a real Unix socket: the line's server end, a Toolstack of few words, consoles.

It stands where the keeper's socket would be, so commands meet it through the files and calls of a real host.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_devices import FakeDevices, Refusal
from typer.testing import Result

import xoar
from xoar.host.state import CRASHED, RUNNING, Host, Record, start_time
from xoar.messages.codec import Decoder, Message, encode, encode_error
from xoar.messages.errors import EEXIST, ENOENT, ETIMEDOUT
from xoar.messages.line import LineServer
from xoar.messages.records import GUEST, IMAGE, OBJECT

SOURCES = Path(xoar.__file__).parents[1]
Run = Callable[..., Result]

KERNEL, RAMDISK, GRUB = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
PAGE = 2  # entries in one page of any list: so that lists come in several


class Shell:
    """A guest's console: a login prompt, then a shell that knows `uname`, `quiet` and `poweroff`."""

    def __init__(self, prompt: str = "debian login: ") -> None:
        self.prompt = prompt
        self.output = f"Booting\r\n\r\n{prompt}".encode()
        self.typed: list[str] = []
        self._rest = ""
        self.ended = False

    def type(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data.decode()).split("\r")
        for line in lines:
            self.typed.append(line)
            self._say(f"{line}\r\n")
            if self.prompt.endswith("login: "):
                if line == "root":
                    self.prompt = "root@debian:~# "
            elif line == "uname":
                self._say("Linux debian 6.1\r\n")
            elif line == "poweroff":
                self.ended = True
                return
            elif line == "quiet":
                return
            self._say(self.prompt + "\x1b[6n")  # as busybox does, which asks for the cursor's place

    def _say(self, text: str) -> None:
        self.output += text.encode()


class Connection:
    """One command's connection: its line, its request streams, its readers of consoles."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.line = LineServer()
        self.decoders: dict[int, Decoder] = {}
        self.answers: dict[int, bytes] = {}
        self.readers: dict[int, tuple[Shell, int, bool]] = {}


class FakeHost:
    """A context manager: runs until it crashes or the block ends. Attributes may be changed meanwhile."""

    def __init__(self, name: str = "xoar") -> None:
        self.host = Host(name)
        self.guests: dict[str, dict[str, Any]] = {}
        self.shells: dict[int, Shell] = {}
        self.images = [
            ("debian", "kernel", KERNEL),
            ("debian", "ramdisk", RAMDISK),
            ("builder", "shard", b"b" * 32),
        ]
        self.tenants: list[Any] = []
        self.permits = [
            ["console", "xen", "debug", 0],
            ["netback", "mmu", "stat", 0],
            ["guest", "hvm", "x", 0],
        ]
        self.journal: list[tuple[int, int, str, str, str]] = []
        self.keys_refused = ""
        self.absent = 0  # so often there is no Toolstack of a tenant
        self.policies: dict[str, str] = {}  # of shards that are rolled back
        self.rollbacks: list[Any] = []
        self.requests: list[Message] = []
        self.devices = FakeDevices(self.host)
        self.forwards: list[str] = []  # what the keeper was asked for
        self.forward_port = 2022
        self.deaf: set[str] = set()  # requests that are not answered
        self.greets = True
        self._stopping = threading.Event()

    def __enter__(self) -> FakeHost:
        self.host.folder.mkdir(parents=True)
        self.host.xen_log.write_bytes(
            b"(XEN) Xen version 4.17\r\nhello from domain 0\r\n"
            b"(d3) ready\r\n(d13) not yours\r\n(d3) (XEN) no\r\n"
        )
        self._listener = socket.socket(socket.AF_UNIX)
        folder = os.open(self.host.folder, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/control")
        os.close(folder)
        self._listener.listen()
        # a process of its own in the keeper's place, which `xoar down` may end
        self._keeper = subprocess.Popen(["sleep", "1000"])
        self._write(RUNNING, "")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        if (record := self.host.record()) and record.state == RUNNING:
            shutil.rmtree(self.host.folder)

    def crash(self, reason: str) -> None:
        """The host crashes while commands are connected."""
        self._write(CRASHED, reason)
        self._end()

    def _end(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._keeper.kill()
        self._keeper.wait()

    def _write(self, state: str, reason: str) -> None:
        pid = self._keeper.pid
        record = Record(self.host.name, state, pid, start_time(pid) or 0, pid, time.time(), "4.17", reason)
        self.host.write(record)

    def add_guest(self, name: str, **fields: Any) -> Shell:
        domid = 5 + len(self.guests)
        self.guests[name] = {
            "name": name, "uuid": bytes([domid]) * 16, "domid": domid, "previous_domid": 0,
            "state": "running", "reason": "none", "kernel": KERNEL, "ramdisk": RAMDISK,
            "command_line": f"console=hvc0 hostname={name}", "memory_kib": 131072, "vcpus": 1,
            "on_reboot": "restart", "on_crash": "keep", "age_ms": 65_000, "restarts": 0, "note": "",
            "group": "", "disks": [], "nics": [], **fields,
        }  # fmt: skip
        shell = self.shells[domid] = Shell()
        return shell

    def add_driver(self, name: str, kind: str, **fields: str) -> None:
        """A driver domain; with one a host can boot guests from their own disks."""
        self.devices.add_driver(name, kind, **fields)
        if not any(name == "grub" for name, _, _ in self.images):
            self.images.append(("grub", "kernel", GRUB))

    # the line

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            connections: dict[socket.socket, Connection] = {}
            while not self._stopping.is_set():
                for key, _ in selector.select(0.01):
                    if key.fileobj is self._listener:
                        accepted, _ = self._listener.accept()
                        connections[accepted] = Connection(accepted)
                        selector.register(accepted, selectors.EVENT_READ)
                        continue
                    connection = connections[key.fileobj]  # type: ignore[index]
                    data = connection.socket.recv(65536)
                    if not data:
                        selector.unregister(connection.socket)
                        connections.pop(connection.socket).socket.close()
                    elif self.greets:
                        self._received(connection, data)
                for connection in connections.values():
                    self._pump(connection)
            for connection in connections.values():
                connection.socket.close()
        self._listener.close()

    def _received(self, connection: Connection, data: bytes) -> None:
        line = connection.line
        for event in line.feed(data):
            if event.kind == "open":
                self._open(connection, event.channel, event.data)
            elif event.kind == "data" and event.channel in connection.decoders:
                line.consumed(event.channel, len(event.data))
                decoder = connection.decoders[event.channel]
                decoder.feed(event.data)
                while message := decoder.next():
                    self.requests.append(message)
                    if message.kind not in self.deaf:
                        connection.answers[event.channel] += self._answer(message)
            elif event.kind == "data" and event.channel in connection.readers:
                line.consumed(event.channel, len(event.data))
                connection.readers[event.channel][0].type(event.data)

    def _open(self, connection: Connection, channel: int, request: str) -> None:
        service, *arguments = request.split()
        if service == "toolstack" and arguments and self.absent:
            self.absent -= 1
            connection.line.close(channel, f"there is no Toolstack of tenant {arguments[0]}")
            return
        if service == "toolstack":
            connection.decoders[channel], connection.answers[channel] = Decoder(), b""
        elif service == "keys":
            if not self.keys_refused:
                connection.line.accept(channel)
            connection.line.close(channel, self.keys_refused)
            return
        elif service == "keeper":
            self.forwards.append(" ".join(arguments))
            connection.line.accept(channel)
            connection.line.write(channel, f"{self.forward_port}\n".encode())
            connection.line.close(channel)
        else:
            shell = self.shells.get(int(arguments[0]))
            if shell is None:
                connection.line.close(channel, f"there is no domain {arguments[0]}")
                return
            live = service == "console" or "follow" in arguments
            start = len(shell.output) if service == "console" else 0
            connection.readers[channel] = (shell, start, live)
        connection.line.accept(channel)

    def _pump(self, connection: Connection) -> None:
        line = connection.line
        for channel, answer in connection.answers.items():
            connection.answers[channel] = answer[line.write(channel, answer) :]
        for channel, (shell, position, live) in list(connection.readers.items()):
            position += line.write(channel, shell.output[position:])
            connection.readers[channel] = (shell, position, live)
            if position == len(shell.output) and (shell.ended or not live):
                line.close(channel)
                del connection.readers[channel]
        while line.pending:
            connection.socket.sendall(line.take(65536))

    # the Toolstack

    def _answer(self, message: Message) -> bytes:
        fields = message.fields
        if message.kind in ("guest_show", "guest_shutdown", "guest_reboot", "guest_destroy"):
            if fields.name not in self.guests:
                return encode_error(message.id, ENOENT, f"there is no guest {fields.name}")
        elif message.kind == "guest_create" and fields.name in self.guests:
            return encode_error(message.id, EEXIST, f"there is a guest {fields.name} already")
        if message.kind == "guest_shutdown" and self.guests[fields.name]["state"] == "stubborn":
            return encode_error(message.id, ETIMEDOUT, f"guest {fields.name} did not shut down in time")
        try:
            kind, reply = self._reply(message.kind, fields)
        except Refusal as refusal:
            return encode_error(message.id, *refusal.args)
        return encode(kind, message.id, **reply)

    def _reply(self, kind: str, fields: Any) -> tuple[str, dict[str, Any]]:
        if kind == "guest_show":
            guest = self.guests[fields.name]
            return "guest", {**guest, **self.devices.plugged(guest), "state": self._state(fields.name)}
        if kind == "guest_create":
            values = dict(zip(fields._fields, fields, strict=True))
            self.add_guest(**values)
            return "started", {"domid": self.guests[fields.name]["domid"]}
        if kind == "guest_reboot":
            return "started", {"domid": self.guests[fields.name]["domid"]}
        if kind in ("guest_shutdown", "guest_destroy"):
            del self.guests[fields.name]
            return "done", {}
        if kind == "host_info":
            memory = {"total_kib": 4 << 20, "free_kib": 3 << 20}
            return "host", {**memory, "xen_version": "4.17", "uptime_ms": 3_661_000, "domains": 3}
        if kind == "image_list":
            entries = [IMAGE.value(digest, name, what, 4096, 1024) for name, what, digest in self.images]
            return "library", self._page("images", entries[fields.start :])
        if kind == "guest_list":
            names = ("name", "domid", "state", "reason", "memory_kib", "vcpus", "age_ms", "restarts")
            shown = [{**guest, "state": self._state(name)} for name, guest in self.guests.items()]
            entries = [GUEST.value(*(guest[name] for name in names)) for guest in shown]
            return "guests", self._page("guests", entries[fields.start :])
        if kind == "permit_show":
            return "permit_list", self._page("permits", [tuple(row) for row in self.permits[fields.start :]])
        if kind == "permit_change":
            (row,) = [row for row in self.permits if row[:3] == list(fields[:3])]
            row[3] = fields.on
            return "done", {}
        if kind == "journal_show":
            page = self._page("entries", self.journal[fields.start :])
            return "journal_page", {"dropped": 2, "now_ns": 10**11, **page}
        if kind == "rollback_list":
            first = fields.start
            page = self.rollbacks[first : first + 2]
            rest = {"next": first + len(page), "now_ms": 10_000, "records": page}
            return "rollbacks", {"more": int(first + 2 < len(self.rollbacks)), **rest}
        if kind == "shard_reboot":
            if fields.name not in self.policies:
                raise Refusal(ENOENT, f"{fields.name} can't be rolled back on demand; these can: none")
            return "rolled", {"rollback": self.rollbacks[-1]}
        if kind == "tenant_list":
            return "tenants", self._page("tenants", self.tenants[fields.start :])
        answer = self.devices.reply(kind, fields, self.guests)
        if answer is not None:
            name, reply = answer
            if isinstance(reply, dict):
                return name, reply
            pools = {"pools": self.devices.pools()} if name == "volumes" else {}
            return name, {**self._page(name, reply[fields.start :]), **pools}
        assert kind == "ps"
        entries = [entry for entry in self.objects() if entry.id >= fields.start]
        return "objects", self._page("objects", entries)

    def _state(self, name: str) -> str:
        state: str = self.guests[name]["state"]
        return "running" if state == "stubborn" else state

    def objects(self) -> list[Any]:
        """What Xen would report; the processors' time goes on by itself."""
        used = time.monotonic_ns()
        shards = [
            OBJECT.value(
                domid,
                name,
                "shard",
                f"system_u:system_r:{name}_t",
                12288,
                1,
                "blocked",
                used // 2,
                90_500,
                "",
                self.policies.get(name, ""),
                41 if name in self.policies else 0,
                3000 if name in self.policies else 0,
            )
            for domid, name in ((1, "xenstore"), (2, "console"), (3, "builder"))
        ]
        guests = [
            OBJECT.value(
                guest["domid"],
                name,
                "guest",
                "system_u:system_r:guest_t",
                131072,
                1,
                "running",
                0,
                5000,
                "toolstack",
                "",
                0,
                0,
            )
            for name, guest in self.guests.items()
        ]
        drivers = [
            OBJECT.value(
                driver.domid,
                driver.name,
                "shard",
                f"system_u:system_r:{driver.kind}_t",
                98304,
                1,
                "blocked",
                0,
                9000,
                "toolstack",
                "",
                0,
                0,
            )
            for driver in self.devices.drivers.values()
        ]
        return shards + drivers + guests

    @staticmethod
    def _page(field: str, entries: list[Any]) -> dict[str, Any]:
        return {"more": int(len(entries) > PAGE), field: entries[:PAGE]}
