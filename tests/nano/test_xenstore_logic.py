"""State and Logic with a ring between them, as two nano domains have it (CPython and MicroPython)."""

from test_messages import shared_page

from xoar.messages.channel import Channel
from xoar.xen.ring import xenstore_rings
from xoar.xenstore import wire
from xoar.xenstore.domains import Domains
from xoar.xenstore.gate import Gate
from xoar.xenstore.logiclink import LogicLink
from xoar.xenstore.quotas import quotas
from xoar.xenstore.statelink import StateLink


class Failure(BaseException):
    pass


class Pair:
    """Both domains; Logic fails after `fail_in` of its steps, if that is not None."""

    def __init__(self, after):
        self.link = LogicLink(self.roll_back, after)
        self.gate = Gate(Domains({0}), quotas(), self.link)
        self.fail_in = None
        self.starts = 0
        self.start()

    def roll_back(self):
        self.stale = True

    def start(self):
        self.stale = False
        self.starts += 1
        to_state, to_logic = xenstore_rings(shared_page())
        self.logic = StateLink(
            Channel(to_logic, to_state, self.step, "xenstore", "logic", lambda line: None), self.wait
        )
        mine = Channel(to_state, to_logic, lambda: None, "logic", "xenstore", lambda line: None)
        self.link.started(self.gate, mine)

    def wait(self):
        self.step()
        self.link.receive(self.gate)
        self.step()

    def step(self):
        if self.fail_in is not None:
            self.fail_in -= 1
            if self.fail_in < 0:
                self.fail_in = None
                raise Failure

    def call(self, connection, kind, payload, transaction=0):
        """All that the client gets for a request: the payloads of the reply and of events."""
        connection.receive(wire.encode(kind, 1, transaction, payload))
        while self.gate.outstanding or self.stale:
            try:
                if self.stale:
                    self.start()
                else:
                    self.logic.serve()
                    self.link.receive(self.gate)
            except Failure:
                self.stale = True
        got = []
        while connection.output():
            message = connection.output()
            got.append(message[wire.HEADER_SIZE :])
            connection.sent(len(message))
        return got


REQUESTS = (
    (wire.WRITE, b"/a/b\0" + b"x" * 4000, [b"OK\0"]),
    (wire.READ, b"/a/b\0", [b"x" * 4000]),
    (wire.SET_PERMS, b"/a/b\0n0\0r5\0", [b"OK\0"]),
    (wire.GET_PERMS, b"/a/b\0", [b"n0\0r5\0"]),
    (wire.WATCH, b"/a\0t\0", [b"OK\0", b"/a\0t\0"]),
    (wire.MKDIR, b"/a/c\0", [b"/a/c\0t\0", b"OK\0"]),
    (wire.DIRECTORY, b"/a\0", [b"b\0c\0"]),
    (wire.TRANSACTION_START, b"\0", [b"1\0"]),
    (wire.RM, b"/a/c\0", [b"/a/c\0t\0", b"OK\0"]),
    (wire.UNWATCH, b"/a\0t\0", [b"OK\0"]),
    (wire.READ, b"/a/c\0", [b"ENOENT\0"]),
    (wire.CONTROL, b"check\0", [b"OK\0"]),
    (wire.GET_DOMAIN_PATH, b"7\0", [b"/local/domain/7\0"]),
)


def test_requests_are_answered_by_a_logic_that_is_new_each_time():
    pair = Pair(1)
    client, _ = pair.gate.introduce(0), pair.gate.introduce(5)
    starts = pair.starts
    for kind, payload, expected in REQUESTS:
        assert pair.call(client, kind, payload) == expected
    assert pair.starts == starts + len(REQUESTS)
    assert pair.gate.contents.problems() == []


def test_requests_are_answered_once_wherever_logic_fails():
    for step in range(14):
        pair = Pair(0)
        client, _ = pair.gate.introduce(0), pair.gate.introduce(5)
        for kind, payload, expected in REQUESTS:
            pair.fail_in = step
            assert pair.call(client, kind, payload) == expected
        assert pair.gate.contents.problems() == []


def test_a_transaction_outlives_logic():
    pair = Pair(1)
    one, two = pair.gate.introduce(0), pair.gate.introduce(4)
    pair.gate.domains.managers.add(4)
    pair.call(one, wire.WRITE, b"/n\x001")
    assert pair.call(one, wire.TRANSACTION_START, b"\0") == [b"1\0"]
    assert pair.call(one, wire.READ, b"/n\0", 1) == [b"1"]
    assert pair.call(one, wire.WRITE, b"/m\x001", 1) == [b"OK\0"]
    pair.call(two, wire.WRITE, b"/n\x002")
    assert pair.call(one, wire.TRANSACTION_END, b"T\0", 1) == [b"EAGAIN\0"]
    assert pair.call(one, wire.READ, b"/m\0") == [b"ENOENT\0"]
