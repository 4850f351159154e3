"""Logic is rolled back between requests and in the middle of them, and no client sees it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from test_model import Comparison
from two_domains import TwoDomains
from xenstore_peer import Peer

from xoar.xenstore import wire
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import MAX_TRIES, Gate

Call = tuple[int, tuple[bytes, ...], bool, bytes]


class SplitComparison(Comparison):
    """The model's rules against State and Logic with a ring between them, and a Logic that fails."""

    after = 1

    def new_server(self) -> Gate:
        self.domains = TwoDomains(self.after, transactions=1000)
        return self.domains

    def introduced(self, domid: int) -> Peer:
        return Peer(self.server.introduce(domid), self.domains.remote.settle)

    @rule(steps=st.integers(0, 12))
    def logic_fails_soon(self, steps: int) -> None:
        self.domains.remote.fail_in = steps


class NeverRolledBack(SplitComparison):
    after = 0


TestSplitComparison = SplitComparison.TestCase
TestSplitComparison.settings = settings(max_examples=80, stateful_step_count=50)
TestNeverRolledBack = NeverRolledBack.TestCase
TestNeverRolledBack.settings = settings(max_examples=20, stateful_step_count=50)


class World:
    """A manager, a guest that watches, and one transaction of the manager's."""

    def __init__(self, after: int = 0) -> None:
        self.domains = TwoDomains(after)
        self.manager = self.client(0)
        self.guest = self.client(5)
        self.manager.call(wire.WRITE, b"/a/b", tail=b"1")
        self.manager.call(wire.SET_PERMS, b"/a/b", b"n0", b"r5")
        self.guest.call(wire.WATCH, b"/a", b"token")
        self.transaction = int(self.manager.call(wire.TRANSACTION_START, b"")[:-1])
        self.manager.call(wire.READ, b"/a/b", transaction=self.transaction)
        self.manager.call(wire.WRITE, b"/a/b", transaction=self.transaction, tail=b"2")
        self.guest.events()

    def client(self, domid: int) -> Peer:
        return Peer(self.domains.introduce(domid), self.domains.remote.settle)

    def after(self, call: Call) -> object:
        """All that anybody can see of a request and after it."""
        kind, words, inside, tail = call
        try:
            answer: object = self.manager.call(
                kind, *words, transaction=self.transaction if inside else 0, tail=tail
            )
        except Refused as error:
            answer = error.name
        self.domains.remote.fail_in = None
        nodes = {path: self.domains.contents.fetch(path) for path in self.domains.contents._below(b"/")}
        mine = self.manager.connection
        watches = [(watch.path, watch.token) for watch in mine.watches]
        events = self.manager.events(), self.guest.events()
        problems = self.domains.contents.problems()
        return answer, nodes, watches, list(mine.transactions), mine._buffers, events, problems


CALLS: dict[str, Call] = {
    "read": (wire.READ, (b"/a/b",), False, b""),
    "read in a transaction": (wire.READ, (b"/a/b",), True, b""),
    "write": (wire.WRITE, (b"/a/b/c",), False, b"x" * 4000),
    "write in a transaction": (wire.WRITE, (b"/a/b/c",), True, b"x"),
    "mkdir": (wire.MKDIR, (b"/a/d",), False, b""),
    "rm": (wire.RM, (b"/a/b",), False, b""),
    "rm of what is not there": (wire.RM, (b"/x/y",), False, b""),
    "directory": (wire.DIRECTORY, (b"/a",), False, b""),
    "permissions": (wire.SET_PERMS, (b"/a/b", b"n0", b"b5"), False, b""),
    "get permissions": (wire.GET_PERMS, (b"/a/b",), False, b""),
    "watch": (wire.WATCH, (b"/a", b"mine"), False, b""),
    "unwatch": (wire.UNWATCH, (b"/a", b"mine"), False, b""),
    "start": (wire.TRANSACTION_START, (b"",), False, b""),
    "commit": (wire.TRANSACTION_END, (b"T",), True, b""),
    "abort": (wire.TRANSACTION_END, (b"F",), True, b""),
    "reset": (wire.RESET_WATCHES, (b"",), False, b""),
    "release": (wire.RELEASE, (b"5",), False, b""),
    "quota": (wire.CONTROL, (b"quota", b"set", b"nodes", b"7"), False, b""),
    "nonsense": (99, (b"x",), False, b""),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_request_is_done_once_wherever_logic_fails(name: str) -> None:
    undisturbed = World()
    before = undisturbed.domains.remote.steps
    expected = undisturbed.after(CALLS[name])
    steps = undisturbed.domains.remote.steps - before
    assert steps > 1
    for step in range(steps):
        world = World()
        world.domains.remote.fail_in = step
        starts = world.domains.remote.starts
        assert world.after(CALLS[name]) == expected, step
        assert world.domains.remote.starts == starts + 1


def test_logic_is_rolled_back_after_each_request_before_it_gets_another() -> None:
    world = World(after=1)
    starts = world.domains.remote.starts
    for number in range(5):
        world.manager.call(wire.WRITE, b"/n", tail=b"%d" % number)
    assert world.domains.remote.starts == starts + 5


def test_logic_is_rolled_back_after_some_requests() -> None:
    world = World(after=4)
    starts = world.domains.remote.starts
    for _ in range(40):
        world.manager.call(wire.READ, b"/a/b")
    assert world.domains.remote.starts == starts + 10


def test_requests_of_several_clients_that_wait_at_once_are_all_answered() -> None:
    world = World(after=1)
    connections = [world.manager.connection, world.guest.connection]
    for connection in connections:
        connection.receive(b"".join(wire.encode(wire.READ, number, 0, b"/a/b\0") for number in range(20)))
    world.domains.remote.settle()
    for connection in connections:
        decoder = wire.Decoder()
        while data := connection.output():
            decoder.feed(data)
            connection.sent(len(data))
        assert [(reply := decoder.next()) and reply.request for _ in range(20)] == list(range(20))


def test_a_request_at_which_logic_always_fails_is_refused_and_others_are_served() -> None:
    world = World()
    plan = world.domains.remote.step

    def step() -> None:
        if world.domains._request is not None and world.domains._request.asked.domid == 5:
            world.domains.remote.fail_in = 0
        plan()

    world.domains.remote.step = step  # type: ignore[method-assign]
    starts = world.domains.remote.starts
    assert world.guest.refusal(wire.READ, b"/a/b") == "EIO"
    assert world.domains.remote.starts == starts + MAX_TRIES
    assert world.manager.call(wire.READ, b"/a/b") == b"1"


def test_a_client_that_goes_while_logic_has_its_request_is_forgotten() -> None:
    world = World()
    world.guest.connection.receive(wire.encode(wire.READ, 1, 0, b"/a/b\0"))
    world.domains.release(5)
    assert world.manager.call(wire.READ, b"/a/b") == b"1"
    world.guest = world.client(5)
    assert world.guest.events() == []
    world.domains.remote.settle()
    assert world.domains.contents.problems() == []
