"""Logic's domain as State sees it: late, gone, noisy, rolled back or not."""

import pytest
from two_domains import shared_page
from xenstore_peer import Peer

from xoar.host.build import nano
from xoar.messages.channel import Channel
from xoar.shards.xenstore.replacing import PATIENCE, LogicDomain
from xoar.xen.ring import xenstore_rings
from xoar.xenstore import wire
from xoar.xenstore.domains import Domains
from xoar.xenstore.gate import Gate
from xoar.xenstore.logiclink import DOUBT, ROLLBACK_TIME
from xoar.xenstore.quotas import quotas
from xoar.xenstore.statelink import StateLink


class Rig:
    """State; Logic runs only where a test lets it."""

    def __init__(self, restorer: bool = False, after: int = 0) -> None:
        self.page = shared_page()
        self.now = 1
        self.asked = 0
        self.log: list[str] = []
        ask = self._ask if restorer else None
        self.logic = LogicDomain(
            self.page, lambda: None, lambda: self.now, ask, after, lambda line: self.log.append(line)
        )
        self.gate = Gate(Domains({0}), quotas(), self.logic.link)
        self.manager, self.guest = (Peer(self.gate.introduce(domid)) for domid in (0, 5))
        self.logic.start(self.gate)
        self.to_state, self.to_logic = xenstore_rings(self.page)

    def _ask(self) -> None:
        self.asked += 1

    def ask_for(self, peer: Peer, kind: int, payload: bytes) -> None:
        peer.connection.receive(wire.encode(kind, 77, 0, payload))

    def wait(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.logic.turn(self.gate)

    def new_logic(self) -> StateLink:
        channel = Channel(self.to_logic, self.to_state, lambda: None, "xenstore", "logic", self.log.append)
        return StateLink(channel, lambda: [self.logic.turn(self.gate)], self.log.append)

    def serve(self) -> None:
        """Logic comes, and serves all that there is."""
        link = self.new_logic()
        while self.gate.outstanding:
            link.serve()
            self.logic.turn(self.gate)

    def answers(self, peer: Peer) -> list[bytes]:
        return [message.payload for message in peer._drain()]


def test_requests_wait_until_logic_is_there() -> None:
    rig = Rig()
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    assert rig.answers(rig.manager) == rig.answers(rig.guest) == []
    rig.serve()
    assert rig.answers(rig.manager) == [b"OK\0"]
    assert rig.answers(rig.guest) == [b"EACCES\0"]
    assert rig.log == []


def test_with_nobody_to_ask_state_says_so_once_and_a_late_answer_is_one() -> None:
    rig = Rig()
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    assert rig.logic.link.deadline(rig.gate) == 1 + PATIENCE
    rig.wait(PATIENCE - 1)
    assert rig.log == []
    rig.wait(1)
    rig.wait(PATIENCE)
    assert rig.log == ["xenstore: no answer from Logic for 5 s; it has not read the request"]
    assert rig.logic.link.deadline(rig.gate) is None
    rig.serve()
    assert rig.answers(rig.manager) == [b"OK\0"]
    # the next request is watched again
    rig.ask_for(rig.manager, wire.READ, b"/a\0")
    rig.wait(PATIENCE)
    assert len(rig.log) == 2


@pytest.mark.parametrize("restorer", [False, True])
def test_a_logic_that_breaks_its_ring_is_not_listened_to_any_more(restorer: bool) -> None:
    rig = Rig(restorer)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    rig.page.words[2052 // 4] = 5000
    rig.wait(0)
    rig.wait(DOUBT)
    rig.to_state.reset()
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    assert rig.logic.link.deadline(rig.gate) == rig.now + ROLLBACK_TIME
    rig.wait(2 * PATIENCE)
    assert rig.answers(rig.manager) == rig.answers(rig.guest) == []
    assert rig.gate.contents.fetch(b"/a") is None
    if restorer:
        assert rig.asked == 1
        rig.logic.rolled_back(rig.gate)
        rig.serve()
        assert rig.answers(rig.manager) == [b"OK\0"]
        assert rig.answers(rig.guest) == [b"EACCES\0"]
    else:
        assert "nobody can replace it" in rig.log[-1]


@pytest.mark.parametrize("after", [0, 1])
def test_while_nobody_rolls_logic_back_requests_are_refused(after: int) -> None:
    rig = Rig(restorer=True, after=after)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    if after:
        rig.serve()
        assert rig.answers(rig.manager) == [b"OK\0"]
        refused = 0
    else:
        rig.wait(PATIENCE)
        refused = 1
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    rig.wait(ROLLBACK_TIME - 1)
    assert rig.answers(rig.manager) == rig.answers(rig.guest) == []
    rig.wait(1)
    assert rig.answers(rig.manager) == [b"EIO\0"] * refused
    assert rig.answers(rig.guest) == [b"EIO\0"]
    assert "requests are refused" in rig.log[-1]
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    assert rig.answers(rig.guest) == [b"EIO\0"]
    assert rig.logic.link.deadline(rig.gate) is None
    # it was only slow
    rig.logic.rolled_back(rig.gate)
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    rig.serve()
    assert rig.answers(rig.guest) == [b"EACCES\0"]
    assert rig.asked == 1 + after


def test_who_takes_too_long_is_rolled_back_and_its_request_is_done_by_the_next() -> None:
    rig = Rig(restorer=True)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    rig.wait(PATIENCE)
    rig.wait(PATIENCE)
    assert rig.asked == 1
    # what the old one still says is for nobody
    stale = Channel(rig.to_logic, rig.to_state, lambda: None, "xenstore", "logic", lambda line: None)
    stale.send("store_answer", rig.gate.outstanding, payload=b"lie")
    rig.wait(0)
    assert rig.answers(rig.manager) == []
    rig.logic.rolled_back(rig.gate)
    rig.serve()
    assert rig.answers(rig.manager) == [b"OK\0"]
    assert rig.log == ["xenstore: no answer from Logic for 5 s; it has not read the request"]


def test_a_rollback_that_nobody_asked_for_changes_nothing() -> None:
    rig = Rig(restorer=True)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    for _ in range(10):
        rig.logic.rolled_back(rig.gate)
    rig.serve()
    rig.logic.rolled_back(rig.gate)
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    rig.serve()
    assert rig.answers(rig.manager) == [b"OK\0"]
    assert rig.answers(rig.guest) == [b"EACCES\0"]


def test_a_request_that_comes_while_there_is_no_logic_has_all_its_tries() -> None:
    rig = Rig(restorer=True)
    rig.page.words[2052 // 4] = 5000
    rig.wait(0)
    rig.wait(DOUBT)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    for _ in range(2):
        rig.logic.rolled_back(rig.gate)
        rig.wait(PATIENCE)
    rig.logic.rolled_back(rig.gate)
    assert rig.answers(rig.manager) == []
    rig.serve()
    assert rig.answers(rig.manager) == [b"OK\0"]


def test_nonsense_in_the_page_of_a_logic_that_somebody_else_has_rolled_back_is_no_try() -> None:
    rig = Rig(restorer=True)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    for _ in range(10):
        rig.page.words[2052 // 4] = 5000  # it is being put back
        rig.wait(0)
        assert rig.logic.link.deadline(rig.gate) == rig.now + DOUBT
        rig.wait(DOUBT - 1)
        rig.logic.rolled_back(rig.gate)
    rig.serve()
    assert rig.answers(rig.manager) == [b"OK\0"] and rig.asked == 0


def test_a_request_at_which_each_logic_fails_is_refused_and_others_go_on() -> None:
    rig = Rig(restorer=True)
    rig.ask_for(rig.manager, wire.WRITE, b"/a\x001")
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    for tries in range(1, 4):
        rig.wait(PATIENCE)
        assert rig.asked == tries
        rig.logic.rolled_back(rig.gate)
    rig.serve()
    assert rig.answers(rig.manager) == [b"EIO\0"]
    assert rig.answers(rig.guest) == [b"EACCES\0"]


def test_a_logic_that_is_noisy_says_a_bounded_number_of_lines() -> None:
    rig = Rig(restorer=True)
    for _ in range(100):
        rig.page.words[2052 // 4] = 5000
        rig.wait(0)
        rig.wait(DOUBT)
        rig.logic.rolled_back(rig.gate)
    assert rig.asked == 100
    assert len(rig.log) == 64


def test_a_bug_in_logic_is_an_answer_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    table = "xoar.xenstore.logic._REQUESTS"
    monkeypatch.setattr(table, {wire.READ: (lambda asked, operate: 1 // 0, False, True)})
    rig.ask_for(rig.guest, wire.READ, b"/a\0")
    rig.serve()
    assert rig.answers(rig.guest) == [b"EIO\0"]
    assert "bug while answering a request of domain 5: ZeroDivisionError" in rig.log[0]


def test_no_image_has_a_module_of_the_other() -> None:
    state, logic = (
        {
            name.rpartition(".")[2]
            for name in nano.modules(f"xoar.shards.{shard}.main")
            if ".xenstore." in name
        }
        for shard in ("xenstore", "logic")
    )
    assert state & logic == {"errors", "paths", "quotas", "wire"}
    assert logic - state == {"logic", "statelink"}
    assert {"contents", "domains", "gate", "nodes", "request", "logiclink"} <= state
