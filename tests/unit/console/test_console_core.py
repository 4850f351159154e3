"""The Console's core with real rings over plain memory, a client at the other end of the line, bad guests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.messages.channel import Channel
from xoar.messages.codec import Message
from xoar.messages.line import NOT_PERMITTED, Event, LineClient
from xoar.messages.renewal import CLIENT, SERVER, Renewal
from xoar.shards.console.console import Console
from xoar.shards.console.domains import MAX_DOMAINS, MAX_ENDED, SLOTS
from xoar.shards.console.history import History
from xoar.shards.console.links import Link
from xoar.shards.console.memory import ConsoleMemory
from xoar.xen.box import Box
from xoar.xen.copied import CONSOLE, MESSAGES, Copied
from xoar.xen.ring import SharedPage, console_rings, xenstore_rings

BUILDER, TOOLSTACK = 3, 4
"""Domids, the second of the host's Toolstack."""
SLOT = 16384


def shared_page() -> SharedPage:
    memory = memoryview(bytearray(4096))
    return SharedPage(memory, memory.cast("I"))


class Copies:
    """What Xen copies between a page of another domain and a buffer of Console's."""

    def __init__(self, theirs: SharedPage, buffer: SharedPage) -> None:
        self.theirs = theirs
        self.buffer = buffer
        self.refused = False

    def fetch(self) -> None:
        self._check()
        self.buffer.bytes[:] = self.theirs.bytes

    def store(self, runs: list[tuple[int, int]]) -> None:
        self._check()
        for offset, length in runs:
            self.theirs.bytes[offset : offset + length] = self.buffer.bytes[offset : offset + length]

    def _check(self) -> None:
        if self.refused:
            raise OSError(13, "copy")


class Guest:
    """A guest's side of its console ring; also its event channel."""

    def __init__(self, domid: int) -> None:
        self.page = shared_page()
        self.to_guest, self.from_guest = console_rings(self.page)
        self.port = 100 + domid
        self.notified = 0
        self.closed = False

    def notify(self) -> None:
        self.notified += 1

    def close(self) -> None:
        self.closed = True

    def print(self, data: bytes) -> int:
        return self.from_guest.write(data)


class Client:
    """A shard with a link to Console; also the link's event channel."""

    def __init__(self, port: int, name: str, reports: list[str]) -> None:
        self.page = shared_page()
        to_server, to_client = xenstore_rings(self.page)
        renewal = Renewal(self.page, CLIENT)
        self.channel = Channel(to_client, to_server, lambda: None, "console", name, reports.append, renewal)
        self.port = port
        self.closed = False

    def notify(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def introduced(domid: int, **changes: Any) -> dict[str, Any]:
    """The fields of `introduce` for a guest."""
    fields = {"link": "console", "name": "", "parent": TOOLSTACK, "uuid": bytes(16), "gref": 0, "port": 3}
    return {"domid": domid, **fields, **changes}


class Host:
    """A Console with its neighbours: Builder and Toolstack at links, an operator at the line."""

    def __init__(self) -> None:
        self.guests: dict[int, Guest] = {}
        self.copies: dict[int, Copies] = {}
        self.reports: list[str] = []
        self.xen_log = b""
        self.pressed: list[str] = []
        self.may_press = True
        self.clients: dict[int, Client] = {}
        self.kept = memoryview(bytearray(SLOTS * SLOT + 2 * 262144))
        self.box = Box(self.kept[SLOTS * SLOT :])
        self.begin()
        self.console.line.greet()
        self.operator = LineClient()
        self.operator.hello(1)
        self.received: dict[int, bytes] = {}
        self.closed: dict[int, str] = {}
        self.keep_reading = True
        self.greeted = 0
        self.run()

    def begin(self) -> None:
        """A life of Console's, as far as the boot has made it."""
        self.buffer = shared_page()
        slots = [self.kept[i * SLOT : (i + 1) * SLOT] for i in range(SLOTS)]
        self.console = Console(
            self.connect, self.reach, slots, self.read_xen, self.press, self.reports.append
        )
        self.console.builder(BUILDER, 2, 1)
        self.console.toolstack("toolstack", TOOLSTACK, 2, 1)
        self.memory = ConsoleMemory(self.console, self.box, self.reports.append)

    def roll_back(self, at_rest: bool = True) -> None:
        """The next life."""
        if at_rest:
            assert self.memory.store(True)
        self.begin()
        self.begun(at_rest)

    def begun(self, at_rest: bool) -> None:
        """Takes back what the last life left; after one that was cut off the others hear of it."""
        self.memory.load(at_rest)
        if not at_rest:
            self.turn()
            for client in self.clients.values():
                client.channel.receive()

    def connect(self, domid: int, gref: int, port: int) -> Copied:
        if gref != 0:
            raise OSError(13, "no such grant")
        guest = self.guests.setdefault(domid, Guest(domid))
        self.copies[domid] = Copies(guest.page, self.buffer)
        return Copied(self.buffer, CONSOLE, self.copies[domid], guest)

    def reach(self, domid: int, gref: int, port: int, peer: str) -> Link:
        if gref not in (2, 3):
            raise OSError(13, "no such grant")
        if domid not in self.clients:
            self.clients[domid] = Client(500 + domid, peer, self.reports)
        client, buffer = self.clients[domid], shared_page()
        copies = self.copies[domid] = Copies(client.page, buffer)
        end = Copied(buffer, MESSAGES, copies, client)
        renewal = Renewal(buffer, SERVER)
        channel = Channel(
            end.to_server, end.to_client, lambda: None, peer, "console", self.reports.append, renewal
        )
        return Link(domid, end, channel)

    @property
    def toolstack(self) -> Channel:
        """The other end of the host's Toolstack."""
        return self.clients[TOOLSTACK].channel

    def read_xen(self, position: int, limit: int) -> tuple[bytes, int]:
        data = self.xen_log[position : position + limit]
        return data, position + len(data)

    def press(self, keys: str) -> None:
        if not self.may_press:
            raise OSError(13, "press debug keys")
        self.pressed.append(keys)

    def turn(self, data: bytes = b"") -> None:
        """As the main loop does it; everybody is taken to have signalled."""
        self.console.fired(None)
        self.console.turn(data)
        if self.console.changed:
            self.memory.store(False)
            self.console.changed = False
        self.console.go_on()

    def ask(self, kind: str, **fields: Any) -> Message:
        builder = self.clients[BUILDER].channel
        builder.send(kind, 7, **fields)
        self.turn()
        (reply,) = builder.receive()
        return reply

    def introduce(self, domid: int) -> Guest:
        assert self.ask("introduce", **introduced(domid)).kind == "done"
        return self.guests[domid]

    def tenant(self, name: str, domid: int) -> Channel:
        """The other end of the Toolstack of a new tenant."""
        fields = introduced(domid, link="operator", name=f"tenant-{name}", gref=3, parent=TOOLSTACK)
        assert self.ask("introduce", **fields).kind == "done"
        return self.clients[domid].channel

    def run(self, turns: int = 50) -> None:
        """Lets everything move."""
        for _ in range(turns):
            self.turn(self.operator.take(512))
            for client in self.clients.values():
                client.channel.flush()
            for event in self.operator.feed(self.console.line.take(4096)):
                self.note(event)

    def note(self, event: Event) -> None:
        """The operator's end has heard something."""
        if event.kind == "data":
            self.received[event.channel] = self.received.get(event.channel, b"") + event.data
            if self.keep_reading:
                self.operator.consumed(event.channel, len(event.data))
        elif event.kind == "closed":
            self.closed[event.channel] = event.data
        elif event.kind == "hello":
            self.greeted += 1

    def open(self, service: str, argument: str = "") -> int:
        channel = self.operator.open(service, argument)
        self.run()
        return channel


def test_a_console_shows_what_the_guest_prints_and_takes_input() -> None:
    host = Host()
    guest = host.introduce(5)
    channel = host.open("console", "5")
    guest.print(b"login: ")
    host.operator.write(channel, b"root\n")
    host.run()
    assert host.received[channel] == b"login: "
    assert guest.to_guest.read(100) == b"root\n"
    assert guest.notified


def test_debug_keys_that_only_print_are_pressed() -> None:
    host = Host()
    channel = host.open("keys", "qr")
    assert (host.pressed, host.closed[channel]) == (["qr"], "")


@pytest.mark.parametrize("keys", ["R", "qC", "S", "*", "0", "%", "q" * 17, "\x7f"])
def test_no_other_debug_keys_reach_xen(keys: str) -> None:
    host = Host()
    channel = host.open("keys", keys)
    assert host.pressed == []
    assert host.closed[channel]


def test_debug_keys_that_are_not_permitted_say_what_is_missing() -> None:
    host = Host()
    host.may_press = False
    channel = host.open("keys", "q")
    assert host.closed[channel] == f"{NOT_PERMITTED} (xen.debug of console)"


def test_several_operators_see_the_same_console() -> None:
    host = Host()
    guest = host.introduce(5)
    channels = [host.open("console", "5") for _ in range(3)]
    guest.print(b"hello")
    host.run()
    assert [host.received[channel] for channel in channels] == [b"hello"] * 3


def test_input_waits_for_the_guest_and_is_bounded_by_credit() -> None:
    host = Host()
    guest = host.introduce(5)
    channel = host.open("console", "5")
    typed = bytes(range(256)) * 40
    sent, taken = 0, b""
    while sent < len(typed):
        count = host.operator.write(channel, typed[sent:])
        sent += count
        host.run(20)
        if not count:
            taken += guest.to_guest.read(300)
    for _ in range(40):
        taken += guest.to_guest.read(1024)
        host.run(3)
    assert taken == typed


def test_a_log_gives_what_was_kept_and_ends() -> None:
    host = Host()
    guest = host.introduce(5)
    guest.print(b"panic: no root\n")
    host.run()
    channel = host.open("log", "5")
    assert host.received[channel] == b"panic: no root\n"
    assert host.closed[channel] == ""


def test_a_followed_log_goes_on_until_the_domain_ends() -> None:
    host = Host()
    guest = host.introduce(5)
    guest.print(b"one ")
    host.run()
    channel = host.open("log", "5 follow")
    guest.print(b"two ")
    host.run()
    assert channel not in host.closed
    guest.print(b"last words")
    assert host.ask("release", domid=5).kind == "done"
    host.run()
    assert host.received[channel] == b"one two last words"
    assert host.closed[channel] == ""


def test_the_log_of_a_guest_that_has_ended_can_still_be_read() -> None:
    host = Host()
    host.introduce(5).print(b"oops")
    host.ask("release", domid=5)
    assert host.guests[5].closed
    channel = host.open("log", "5")
    assert host.received[channel] == b"oops"
    channel = host.open("console", "5")
    assert host.closed[channel] == "domain 5 has ended"


def test_a_log_without_follow_ends_though_the_guest_never_stops_printing() -> None:
    host = Host()
    guest = host.introduce(5)
    guest.print(b"x" * 2000)
    host.run()
    channel = host.operator.open("log", "5")
    for _ in range(100):
        guest.print(b"y" * 2048)
        host.run(1)
    assert host.closed[channel] == ""


def test_only_the_last_ended_logs_are_kept() -> None:
    host = Host()
    for domid in range(5, 5 + MAX_ENDED + 3):
        host.introduce(domid)
        host.ask("release", domid=domid)
    channel = host.open("log", "5")
    assert host.closed[channel] == "domain 5 has no console"


def test_a_slow_reader_loses_bytes_with_a_notice_and_stalls_nobody() -> None:
    host = Host()
    guest, other = host.introduce(5), host.introduce(6)
    host.keep_reading = False
    slow = host.open("console", "5")
    for _ in range(40):
        guest.print(b"f" * 2048)
        host.run(2)
    quick = host.open("console", "6")
    other.print(b"fine")
    host.run()
    assert host.received[quick] == b"fine"
    assert len(host.received[slow]) <= 4096
    host.keep_reading = True
    host.operator.consumed(slow, len(host.received[slow]))
    host.run()
    assert b"bytes skipped]" in host.received[slow]


def test_a_flooding_guest_is_read_one_ring_a_turn() -> None:
    host = Host()
    flooder, quiet = host.introduce(5), host.introduce(6)
    channel = host.open("console", "6")
    reads = 0
    original = host.copies[5].fetch

    def refill() -> None:
        nonlocal reads
        reads += 1
        flooder.print(b"z" * 2048)
        original()

    host.copies[5].fetch = refill  # type: ignore[method-assign]
    flooder.print(b"z" * 2048)
    quiet.print(b"still served")
    host.run(10)
    assert 0 < reads <= 10
    assert host.received[channel] == b"still served"


@given(st.lists(st.tuples(st.integers(768, 771), st.integers(0, 2**32 - 1)), min_size=1))
def test_a_guest_that_writes_rubbish_indices_harms_only_itself(writes: list[tuple[int, int]]) -> None:
    host = Host()
    bad, good = host.introduce(5), host.introduce(6)
    mine, theirs = host.open("console", "5"), host.open("console", "6")
    for index, value in writes:
        bad.page.words[index] = value
        host.operator.write(mine, b"input")
        host.run(3)
    good.print(b"alive")
    host.run()
    assert host.received[theirs] == b"alive"
    assert len(host.reports) <= 1


def test_a_broken_console_is_reported_once_and_its_log_says_why() -> None:
    host = Host()
    guest = host.introduce(5)
    channel = host.open("console", "5")
    guest.page.words[3084 // 4] = 0x80000000
    host.run()
    host.run()
    assert len(host.reports) == 1 and "domain 5" in host.reports[0]
    assert host.closed[channel] == "the guest broke its console ring"
    log = host.open("log", "5")
    assert b"[xoar: console of domain 5 stopped" in host.received[log]
    assert host.ask("release", domid=5).kind == "done"


@pytest.mark.parametrize(
    ("service", "argument", "reason"),
    [
        ("console", "77", "domain 77 has no console"),
        ("console", "five", "'five' is no domain id"),
        ("console", "", "there is no service 'console'"),
        ("log", "5 backwards", "there is no service"),
        ("weather", "", "there is no service 'weather'; there are: toolstack, console, log, xen"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_the_reason(service: str, argument: str, reason: str) -> None:
    host = Host()
    channel = host.open(service, argument)
    assert reason in host.closed[channel]


def test_xens_own_log_is_read_and_followed() -> None:
    host = Host()
    host.xen_log = b"(XEN) Xen version 4.17.5\n" * 200
    once, follow = host.open("xen"), host.open("xen", "follow")
    host.xen_log += b"(d5) more\n"
    host.run()
    assert host.closed[once] == ""
    assert host.received[follow] == host.xen_log
    assert follow not in host.closed


def test_requests_reach_the_toolstack_and_answers_come_back() -> None:
    host = Host()
    channel = host.open("toolstack")
    host.operator.write(channel, b"a request")
    host.run()
    (piece,) = host.toolstack.receive()
    assert piece.fields.data == b"a request"
    host.toolstack.send("relay", 0, channel=piece.fields.channel, data=b"an answer")
    host.run()
    assert host.received[channel] == b"an answer"


def test_the_toolstack_hears_when_an_operator_leaves_and_streams_never_mix() -> None:
    host = Host()
    first = host.open("toolstack")
    host.operator.write(first, b"1")
    host.run()
    host.operator.close(first)
    second = host.open("toolstack")
    host.operator.write(second, b"2")
    host.run()
    one, gone, two = host.toolstack.receive()
    assert (one.kind, gone.kind, two.kind) == ("relay", "hangup", "relay")
    assert one.fields.channel == gone.fields.channel != two.fields.channel
    host.toolstack.send("relay", 0, channel=one.fields.channel, data=b"late")
    host.toolstack.send("hangup", 0, channel=two.fields.channel)
    host.run()
    assert second not in host.received and host.closed[second] == ""


def test_an_operator_who_never_reads_answers_is_cut_off() -> None:
    host = Host()
    host.keep_reading = False
    channel = host.open("toolstack")
    host.operator.write(channel, b"ask")
    host.run()
    (piece,) = host.toolstack.receive()
    for _ in range(40):
        host.toolstack.send("relay", 0, channel=piece.fields.channel, data=bytes(4000))
        host.run(10)
    assert host.closed[channel] == "the answers are not being read"
    assert [message.kind for message in host.toolstack.receive()] == ["hangup"]


def test_a_toolstack_that_does_not_read_holds_back_its_clients_only() -> None:
    host = Host()
    guest = host.introduce(5)
    channel, console = host.open("toolstack"), host.open("console", "5")
    sent = 0
    for _ in range(200):
        sent += host.operator.write(channel, bytes(1000))
        host.run(3)
    assert sent < 64 * 1024
    guest.print(b"fine")
    host.run()
    assert host.received[console] == b"fine"
    received = 0
    for _ in range(200):
        received += sum(len(message.fields.data) for message in host.toolstack.receive())
        host.run(3)
    assert received == sent


def test_a_new_operator_session_hangs_up_the_old_ones_streams() -> None:
    host = Host()
    channel = host.open("toolstack")
    host.operator.write(channel, b"x")
    host.run()
    host.operator = LineClient()
    host.operator.hello(9)
    host.run()
    assert [message.kind for message in host.toolstack.receive()] == ["relay", "hangup"]
    assert host.operator.ready and host.console.line.channels == []


def test_a_channel_opened_and_closed_in_one_piece_leaves_nothing() -> None:
    host = Host()
    for service in ("toolstack", "console", "weather"):
        channel = host.operator.open(service, "")
        host.operator.close(channel)
    host.operator.hello(4)
    host.run()
    assert host.console.line.channels == []
    assert not host.console.services


def test_introductions_are_answered_with_what_is_wrong() -> None:
    host = Host()
    host.introduce(5)
    again = host.ask("introduce", **introduced(5))
    assert again.fields.text == "domain 5 has a console already"
    refused = host.ask("introduce", **introduced(6, gref=9))
    assert (refused.kind, refused.fields.errno) == ("error", 13)
    assert host.ask("release", domid=6).fields.text == "domain 6 has no console here"
    for domid in range(100, 100 + MAX_DOMAINS - 1):
        host.introduce(domid)
    assert "most allowed" in host.ask("introduce", **introduced(9000)).fields.text


@given(st.lists(st.binary(max_size=400), max_size=20))
def test_garbage_on_the_line_ends_nothing(pieces: list[bytes]) -> None:
    host = Host()
    guest = host.introduce(5)
    for piece in pieces:
        host.console.receive(piece)
        host.console.turn()
    host.console.receive(b"\x7e")
    host.operator = LineClient()
    host.operator.hello(3)
    host.run()
    channel = host.open("console", "5")
    guest.print(b"ok")
    host.run()
    assert host.received[channel] == b"ok"


@given(st.lists(st.binary(max_size=8192), max_size=8), st.integers(1, 600))
def test_a_history_keeps_exactly_the_last_bytes(pieces: list[bytes], limit: int) -> None:
    history = History(memoryview(bytearray(1008)), True)
    for piece in pieces:
        history.append(piece)
    written = b"".join(pieces)
    assert history.end == len(written)
    position, read = history.start, b""
    while position < history.end:
        data = history.read(position, limit)
        read += data
        position += len(data)
    assert read == written[-1000:]
