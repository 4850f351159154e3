"""Console over rollbacks: nobody notices one at rest; after another one, everybody begins anew."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from xoar.messages.codec import encode
from xoar.messages.consoles import KEPT_CONSOLES

from .test_console_core import TOOLSTACK, Client, Host, introduced

ACME = 32512


class Lives(Host):
    """Two guests, a tenant, and what everybody has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.guest, self.other = self.introduce(40), self.introduce(41)
        self.tenant("acme", ACME)
        self.taken: dict[int, bytes] = {}  # by guests
        self.asked: list[tuple[int, str, Any]] = []  # what Toolstacks were told
        self.channels = [self.open("toolstack"), self.open("toolstack", "acme"), self.open("console", "40")]
        for channel in self.channels[:2]:
            self.operator.write(channel, b"a request")
        self.run()
        self.hear()

    def step(self, what: str, which: int, data: bytes) -> None:
        """Something that one of them does."""
        guest = (self.guest, self.other)[which % 2]
        channel = self.channels[which % len(self.channels)] if self.channels else 0
        if what == "print":
            guest.print(data)
        elif what == "open":
            service, argument = SERVICES[which % len(SERVICES)]
            self.channels.append(self.operator.open(service, argument))
        elif what == "write" and channel in self.operator.channels:
            self.operator.write(channel, data)
        elif what == "close" and channel:
            self.operator.close(channel)
        elif what == "take":
            self.taken[which % 2] = self.taken.get(which % 2, b"") + guest.to_guest.read(len(data))
        elif what == "xen":
            self.xen_log += data
        elif what == "answer" and self.asked:
            domid, _, fields = self.asked[which % len(self.asked)]
            toolstack = self.clients[domid].channel
            toolstack.send("relay", 0, channel=fields.channel, data=data)
            if which % 5 == 4:
                toolstack.send("hangup", 0, channel=fields.channel)
            elif which % 5 == 3:
                toolstack.send("attach", 0, channel=fields.channel, domid=40 + which % 2, what="follow")
                if which % 2:
                    toolstack.send("hangup", 0, channel=fields.channel)
        elif what == "run":
            self.run(1 + which % 3)

    def hear(self) -> None:
        for domid in (TOOLSTACK, ACME):
            for message in self.clients[domid].channel.receive():
                self.asked.append((domid, message.kind, message.fields))
        # a new life may serve streams in another order; what counts is the order within each
        self.asked.sort(key=lambda told: (told[0], told[2].channel))

    def settle(self) -> tuple[Any, ...]:
        """What everybody has seen in the end."""
        for _ in range(6):
            self.run(30)
            self.hear()
        for which, guest in enumerate((self.guest, self.other)):
            self.taken[which] = self.taken.get(which, b"") + guest.to_guest.read(1024)
        return self.received, self.closed, self.taken, self.asked, self.operator.channels, self.greeted


SERVICES = [
    ("toolstack", ""),
    ("toolstack", "acme"),
    ("console", "40"),
    ("log", "41 follow"),
    ("log", "40"),
    ("xen", "follow"),
    ("console", "41"),
    ("xen", ""),
]
NO_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]
"""To shrink an example of so many steps takes minutes, and the steps say enough."""
STEPS = st.tuples(
    st.sampled_from(["print", "open", "write", "write", "close", "take", "xen", "answer", "answer", "run"]),
    st.integers(0, 19),
    st.builds(
        lambda size, byte: bytes([byte]) * size, st.sampled_from([1, 90, 1500, 3900]), st.integers(0, 255)
    ),
    st.booleans(),
)


@settings(deadline=None, max_examples=100, phases=NO_SHRINKING)
@given(st.lists(STEPS, max_size=30), st.booleans())
def test_nobody_notices_a_rollback_at_rest(steps: list[tuple[str, int, bytes, bool]], reads: bool) -> None:
    """The line is cut into pieces by what is fed and taken, so frames and messages are in the middle."""
    quiet, restless = Lives(), Lives()
    for host in (quiet, restless):
        host.keep_reading = reads
        for what, which, data, rolls_back in steps:
            host.step(what, which, data)
            part = host.operator.take(1 + which * 7)
            host.turn(part)
            if rolls_back and host is restless:
                host.roll_back()
            for event in host.operator.feed(host.console.line.take(100 + which)):
                host.note(event)
            host.hear()
    assert restless.settle() == quiet.settle()


@pytest.fixture
def host() -> Lives:
    return Lives()


def test_a_stream_that_becomes_a_guests_console_does_so_in_the_next_life(host: Lives) -> None:
    host.keep_reading = False
    channel, toolstack = host.channels[0], host.clients[TOOLSTACK].channel
    number = host.asked[0][2].channel
    for _ in range(2):
        toolstack.send("relay", 0, channel=number, data=bytes(3900))
        host.run()
    toolstack.send("attach", 0, channel=number, domid=40, what="console")
    toolstack.send("hangup", 0, channel=number)
    host.run()
    host.guest.print(b"hello")
    host.run()
    seen = len(host.received[channel])
    assert seen < 7800
    host.roll_back()
    host.keep_reading = True
    host.operator.consumed(channel, seen)
    host.run()
    assert host.received[channel] == bytes(7800) + b"hello"
    host.guest.print(b" there")
    host.operator.write(channel, b"root")
    host.run()
    assert host.received[channel][7805:] == b" there" and host.guest.to_guest.read(9) == b"root"


def test_a_toolstack_hears_in_the_next_life_of_streams_that_ended(host: Lives) -> None:
    stream = host.asked[0][2].channel
    host.toolstack.receive()
    toolstack = host.console.toolstacks._all[0]
    toolstack.hangups.append(stream)  # no room in the link
    host.roll_back()
    host.turn()
    (message,) = host.toolstack.receive()
    assert (message.kind, message.fields.channel) == ("hangup", stream)


def test_a_life_that_was_cut_off_greets_anew_and_knows_all_domains(host: Lives) -> None:
    host.open("console", "40")
    host.open("toolstack")
    host.guest.print(b"before ")
    host.run()
    host.roll_back(at_rest=False)
    host.guest.print(b"after")
    host.run()
    assert host.greeted == 2 and host.operator.channels == []
    log = host.open("log", "40")
    assert host.received[log] == b"before after"
    host.open("toolstack", "acme")
    host.operator.write(host.operator.channels[0], b"hello")
    host.run()
    assert [message.fields.data for message in host.clients[ACME].channel.receive()] == [b"hello"]
    host.hear()
    assert host.clients[TOOLSTACK].channel.renewals == 1
    assert host.reports == []


def test_logs_of_domains_that_have_ended_are_still_there(host: Lives) -> None:
    host.guest.print(b"last words")
    host.ask("release", domid=40)
    for at_rest in (True, False, True):
        host.roll_back(at_rest)
        host.run()
    log = host.open("log", "40")
    assert host.received[log] == b"last words"
    assert host.ask("release", domid=40).kind == "error"
    assert host.ask("release", domid=41).kind == "done"
    assert host.introduce(42).page is not None


def test_a_domain_and_a_toolstack_that_went_meanwhile_can_be_released(host: Lives) -> None:
    host.memory.store(True)

    def gone(domid: int, gref: int, port: int, *peer: str) -> Any:
        raise OSError(3, "no such domain")

    real = host.connect, host.reach
    host.connect = gone  # type: ignore[method-assign]
    host.begin()
    host.reach = lambda domid, *rest: gone(domid, 0, 0) if domid == ACME else real[1](domid, *rest)  # type: ignore
    host.console._reach = host.reach
    host.begun(True)
    assert host.ask("release", domid=40).kind == "done"
    assert host.ask("release", domid=ACME).kind == "done"
    assert host.reports == [f"console: the recovery box: remember_service: domain {ACME} is no Toolstack"]
    host.run()
    assert host.closed == {
        host.channels[1]: "what it was connected to is gone",
        host.channels[2]: "",  # the guest has ended
    }


def test_a_page_that_is_not_granted_any_more_ends_its_own_console_only(host: Lives) -> None:
    mine, theirs = host.open("console", "40"), host.open("console", "41")
    host.copies[40].refused = True
    host.other.print(b"alive")
    host.run()
    assert host.received[theirs] == b"alive"
    assert host.closed[mine] == "the guest broke its console ring"
    stream = host.open("toolstack", "acme")
    host.copies[ACME].refused = True
    host.run()
    assert host.closed[stream] == "the link to the Toolstack is broken"
    assert host.ask("release", domid=ACME).kind == "done"


CONSOLE_FIELDS = {"domid": 50, "parent": 4, "gref": 0, "port": 3, "slot": 9, "ended": 0, "broken": 0}
CHANNEL = {
    "channel": 9,
    "accepted": 1,
    "sent": 0,
    "send_limit": 0,
    "received": 0,
    "receive_limit": 0,
    "announced": 0,
}
SERVICE = {"channel": 9, "service": "log", "domid": 40, "position": 1 << 60, "stop": 1 << 63, "follow": 1}
SERVICE |= {"number": 7, "hung_up": 0}


@pytest.mark.parametrize(
    "records",
    [
        [encode("remember_console", 0, **{**CONSOLE_FIELDS, "slot": 60000})],
        [encode("remember_console", 0, **{**CONSOLE_FIELDS, "slot": 0})],
        [encode("remember_console", 0, **{**CONSOLE_FIELDS, "domid": 40})],
        [encode("remember_channel", 0, **{**CHANNEL, "channel": 0})],
        [encode("remember_service", 0, **SERVICE)],
        [encode("remember_channel", 0, **CHANNEL), encode("remember_service", 0, **{**SERVICE, "domid": 77})],
        [
            encode("remember_channel", 0, **CHANNEL),
            encode("remember_service", 0, **SERVICE),
            encode("remember_service", 0, **SERVICE),
        ],
        [
            encode("remember_channel", 0, **CHANNEL),
            encode("remember_service", 0, **{**SERVICE, "service": "relay"}),
        ],
        [encode("remember_hangup", 0, domid=40, number=3)],
        [encode("domains", 0, start=0)],
        [b"rubbish"],
    ],
)
def test_what_can_not_be_is_left_out_and_said(host: Lives, records: list[bytes]) -> None:
    host.memory.store(True)
    host.box.store([*host.box.load(), *records])
    host.begin()
    host.begun(True)
    assert len(host.reports) == 1 and host.reports[0].startswith("console: the recovery box: ")
    works(host)


NUMBERS = st.sampled_from([kind.number for kind in KEPT_CONSOLES])
ANY = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda number, body: number.to_bytes(4, "little") + bytes(4) + len(body).to_bytes(4, "little") + body,
        NUMBERS,
        st.binary(max_size=40),
    ),
    st.builds(
        lambda changes: encode("remember_service", 0, **{**SERVICE, **changes}),
        st.fixed_dictionaries(
            {
                "channel": st.sampled_from([1, 9]),
                "service": st.sampled_from(["console", "log", "xen", "relay"]),
                "domid": st.sampled_from([4, 40, ACME]),
                "position": st.integers(0, (1 << 64) - 1),
                "stop": st.integers(0, (1 << 64) - 1),
            }
        ),
    ),
    st.just(encode("remember_channel", 0, **CHANNEL)),
)


@settings(deadline=None)
@given(st.lists(ANY, max_size=12), st.booleans(), st.binary(min_size=8, max_size=8))
def test_any_box_can_be_begun_with(records: list[bytes], at_rest: bool, end: bytes) -> None:
    host = Lives()
    host.memory.store(True)
    host.box.store([*host.box.load(), *records])
    host.kept[:8] = end  # of the first history
    host.begin()
    host.begun(at_rest)
    host.run()
    host.roll_back()
    works(host)


def works(host: Lives) -> None:
    """A new session, a console, a guest."""
    host.operator.hello(77)
    host.run()
    assert host.ask("release", domid=41).kind in ("done", "error")
    guest = host.introduce(60)
    channel = host.open("console", "60")
    guest.print(b"ok")
    host.run()
    assert host.received[channel] == b"ok"


def test_a_box_without_room_is_said_once_and_the_life_goes_on() -> None:
    host = Lives()
    host.keep_reading = False
    channels = [host.open("toolstack") for _ in range(12)]
    for channel in channels:
        host.operator.write(channel, b"ask")
    host.run()
    host.hear()
    for _ in range(8):
        for _, kind, fields in host.asked:
            if kind == "relay":
                host.clients[TOOLSTACK].channel.send("relay", 0, channel=fields.channel, data=bytes(4000))
                host.run(10)
    assert not host.memory.store(True) and not host.memory.store(True)
    assert len([line for line in host.reports if "no room" in line]) == 1
    assert host.memory.store(False)


def test_introductions_are_remembered_before_they_are_answered() -> None:
    host = Lives()
    host.clients[3].channel.send("introduce", 7, **introduced(50))
    host.console.fired(None)
    host.console.turn()
    assert host.console.changed and host.clients[3].channel.receive() == []
    assert isinstance(host.clients[3], Client)


def test_what_is_printed_and_read_by_nobody_needs_no_storing(host: Lives) -> None:
    console, printed = host.console, [host.guest.port]
    assert console.fired(printed) and not console.idle  # somebody watches, and may type
    host.operator.close(host.channels[2])
    host.run()
    assert console.idle
    watched = host.operator.open("log", "40 follow")
    host.run()
    assert console.fired(printed) and console.idle  # who reads a log is woken by what the domain prints
    host.operator.close(watched)
    host.run()
    assert console.services and not console.fired(printed)
    assert not console.fired([])
    assert console.fired([host.clients[ACME].port]) and console.fired(None)


def test_console_is_not_idle_while_something_waits_for_the_line(host: Lives) -> None:
    host.operator.close(host.channels[2])
    host.run()
    host.operator.open("xen")
    host.console.turn(host.operator.take(1000))
    assert not host.console.idle
    host.run()
    assert host.console.idle
