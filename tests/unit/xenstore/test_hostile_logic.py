"""A Logic that does what it likes: it gets one operation, with the rights of the client that asked."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_domains import shared_page
from xenstore_peer import Peer

from xoar.messages import schema, store
from xoar.messages.channel import Channel
from xoar.messages.codec import encode
from xoar.messages.fields import Array, Blob, Choice, Number, Record, Text
from xoar.xen.ring import xenstore_rings
from xoar.xenstore import paths, wire
from xoar.xenstore.domains import WRITE_ACCESS, Domains
from xoar.xenstore.gate import Gate
from xoar.xenstore.logiclink import LogicLink
from xoar.xenstore.nodes import Node
from xoar.xenstore.quotas import quotas
from xoar.xenstore.server import Direct

GUEST, OTHER = 5, 6
OPERATIONS = sorted(
    kind.name for kind in schema.TABLE if kind.routes == (("logic", "xenstore"),) and kind.reply
)
PATHS = st.sampled_from(
    [
        *(b"/", b"/a", b"/a/b", b"/local/domain/5", b"/local/domain/5/x", b"/local/domain/6"),
        *(
            b"",
            b"x",
            b"//",
            b"/a\0b",
            b"/a/",
            b"@releaseDomain",
            b"@other",
            b"/local/domain/5/" + b"y" * 2048,
        ),
    ]
)


def values_of(field: Any, name: str) -> st.SearchStrategy[Any]:
    if name == "path":
        return PATHS
    if isinstance(field, Number):
        return st.sampled_from([0, 1, 5, 6, 7, (1 << (8 * field.largest)) - 1])
    if isinstance(field, Blob):
        return st.binary(max_size=20) | st.just(bytes(field.maximum))
    if isinstance(field, Choice):
        return st.sampled_from(field.words)
    if isinstance(field, Text):
        return st.sampled_from(["", "nodes", "output", "nonsense"])
    if isinstance(field, Array):
        return st.lists(values_of(field.record, ""), max_size=3)
    assert isinstance(field, Record)
    return st.tuples(*[values_of(inner, part) for part, inner in field.fields])


def messages(names: list[str]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    kinds = [schema.BY_NAME[name] for name in names]
    return st.one_of(
        *[
            st.tuples(
                st.just(kind.name),
                st.fixed_dictionaries({name: values_of(field, name) for name, field in kind.record.fields}),
            )
            for kind in kinds
        ]
    )


class Prey:
    """A State whose Logic is the test; the guest has asked for something, nobody else has."""

    def __init__(self) -> None:
        self.rolled_back = False
        self.log: list[str] = []
        # what there is was made by an honest Logic
        self.gate = Gate(Domains({0}), quotas(nodes=20), Direct())
        self.gate.host.log = self.log.append  # type: ignore[method-assign]
        self.peers = {domid: Peer(self.gate.introduce(domid)) for domid in (0, GUEST, OTHER)}
        for path, owner in ((b"/a/b", b"n0"), (b"/local/domain/5", b"n5"), (b"/local/domain/6", b"n6")):
            self.peers[0].call(wire.WRITE, path, tail=b"old")
            self.peers[0].call(wire.SET_PERMS, path, owner)
        for peer in (self.peers[0], self.peers[OTHER]):
            peer.call(wire.WATCH, b"/a", b"token")
            peer.call(wire.TRANSACTION_START, b"")
            peer.events()
        self.link = LogicLink(self._roll_back)
        self.gate.logic = self.link
        self.page = shared_page()
        self.to_state, self.to_logic = xenstore_rings(self.page)
        channel = Channel(self.to_state, self.to_logic, lambda: None, "logic", "xenstore", lambda line: None)
        self.link.started(self.gate, channel)
        self.peers[GUEST].connection.receive(wire.encode(wire.READ, 1, 0, b"/local/domain/5\0"))
        self.request = self.gate.outstanding
        self.before = self.others()

    def _roll_back(self) -> None:
        self.rolled_back = True

    def say(self, data: bytes) -> None:
        """Logic sends bytes, and reads whatever comes."""
        while data and not self.rolled_back:
            data = data[self.to_state.write(data) :]
            self.link.receive(self.gate)
            while self.to_logic.readable():
                self.to_logic.read(1024)

    def others(self) -> object:
        """All that the guest has no right to change."""
        access = self.gate.domains
        nodes: dict[bytes, Node] = self.gate.contents._nodes
        # not their lists of children: who may remove a node thereby changes that of the node above
        foreign = {
            path: (node.value, node.permissions)
            for path, node in nodes.items()
            if not access.may(GUEST, path, node.permissions, WRITE_ACCESS)
        }
        connections = []
        for domid in (0, OTHER):
            connection = self.peers[domid].connection
            watches = [(watch.path, watch.token) for watch in connection.watches]
            connections.append((watches, list(connection.transactions), connection._queued))
        return foreign, connections, dict(self.gate.limits), sorted(self.gate.connections)


@given(
    st.lists(
        st.tuples(st.sampled_from(["now", "now", "now", "before", "zero"]), messages(OPERATIONS)), max_size=6
    ),
    messages(["store_answer", "store_refusal"]),
)
@settings(max_examples=400)
def test_logic_can_do_one_operation_that_the_client_may_do_and_lie_to_this_client(
    operations: list[tuple[str, tuple[str, dict[str, Any]]]], answer: tuple[str, dict[str, Any]]
) -> None:
    prey = Prey()
    numbers = {"now": prey.request, "before": prey.request - 1, "zero": 0}
    done = []
    for which, (kind, fields) in operations:
        generation = prey.gate.contents._generation
        prey.say(encode(kind, numbers[which], **fields))
        if prey.gate.contents._generation != generation:
            done.append(kind)
    prey.say(encode(answer[0], prey.request, **answer[1]))
    assert len(done) <= 1
    assert prey.others() == prey.before
    assert prey.gate.contents.problems() == []
    assert prey.log == []
    assert prey.gate.outstanding == 0
    assert prey.peers[GUEST].connection.output()
    # no more can be done until somebody asks for something
    prey.say(encode("store_put", prey.request, path=b"/local/domain/5/late", value=b""))
    assert prey.gate.contents.fetch(b"/local/domain/5/late") is None


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 0xFFFFFFFF))
@settings(deadline=None)
def test_bytes_that_are_no_messages_change_nothing(pieces: list[bytes], index: int) -> None:
    prey = Prey()
    for piece in pieces:
        prey.say(piece)
    assert prey.others() == prey.before
    assert prey.gate.contents.problems() == []


@given(st.integers(1025, 0xFFFFFFFF))
def test_who_breaks_the_link_is_rolled_back(claimed: int) -> None:
    prey = Prey()
    prey.page.words[2052 // 4] = (prey.page.words[2048 // 4] + claimed) & 0xFFFFFFFF
    prey.link.receive(prey.gate)
    assert prey.rolled_back
    assert prey.others() == prey.before


@pytest.mark.parametrize("kind", OPERATIONS)
def test_every_operation_is_refused_while_nobody_asks(kind: str) -> None:
    prey = Prey()
    prey.say(encode("store_answer", prey.request, payload=b"OK\0"))
    fields = {name: _some(field) for name, field in schema.BY_NAME[kind].record.fields}
    for number in (0, prey.request, prey.request + 1):
        prey.say(encode(kind, number, **fields))
    assert prey.others() == prey.before


def _some(field: Any) -> Any:
    if isinstance(field, Number):
        return 1
    if isinstance(field, Array):
        return [(0, 0)]
    return "nodes" if isinstance(field, Text) else b"/local/domain/5/x"


def test_the_table_carries_every_path_and_error_that_there_is() -> None:
    assert store.PATH.maximum == paths.ABSOLUTE_MAX
    assert store.PAYLOAD.maximum == wire.PAYLOAD_MAX
    assert len(store.REFUSAL.words) == 16
