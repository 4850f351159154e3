"""Two ends of a link in one process, and a peer that writes rubbish."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xoar.abi import xen as abi
from xoar.messages.channel import MAX_QUEUE, Channel
from xoar.messages.codec import encode
from xoar.messages.renewal import CLIENT, SERVER, Renewal
from xoar.xen.ring import SharedPage, xenstore_rings


class Link:
    """A page with a channel at each end; `page` is what a hostile end writes to."""

    def __init__(self, client: str = "toolstack", server: str = "builder") -> None:
        memory = memoryview(bytearray(4096))
        self.page = SharedPage(memory, memory.cast("I"))
        self.to_server, self.to_client = xenstore_rings(self.page)
        self.notified: list[str] = []
        self.reports: list[str] = []
        self.client = Channel(
            self.to_client, self.to_server, lambda: self.notified.append("server"), server, client
        )
        self.server = Channel(
            self.to_server,
            self.to_client,
            lambda: self.notified.append("client"),
            client,
            server,
            self.reports.append,
        )


def test_a_request_and_its_reply_cross_the_link() -> None:
    link = Link()
    assert link.client.send("unpause", 5, domid=7)
    (request,) = link.server.receive()
    assert (request.kind, request.id, request.fields.domid) == ("unpause", 5, 7)
    link.server.send("done", 5)
    (reply,) = link.client.receive()
    assert (reply.kind, reply.id) == ("done", 5)


def test_an_error_that_is_not_expected_is_not_answered_with_another() -> None:
    link = Link("console", "toolstack")
    link.client.send("release", 1, domid=7)
    for _ in range(3):
        assert not link.server.receive() and not link.client.receive()
    assert len(link.reports) == 1 and not link.to_client.readable() and not link.to_server.readable()


def test_writing_and_reading_both_wake_the_other_end() -> None:
    link = Link()
    link.client.send("unpause", 5, domid=7)
    assert link.notified == ["server"]
    link.server.receive()
    assert link.notified == ["server", "client"]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    link = Link("console", "toolstack")
    sent = 0
    while link.client.send("relay", 0, channel=sent, data=bytes(1000)):
        sent += 1
    assert link.client.congested
    assert sent * 1018 >= MAX_QUEUE - 2 * 1018
    received = []
    while len(received) < sent:
        received += link.server.receive()
        link.client.flush()
    assert [message.fields.channel for message in received] == list(range(sent))
    assert link.client.flush() and not link.client.congested


def test_one_call_reads_a_bounded_amount_and_says_that_there_is_more() -> None:
    link = Link("console", "toolstack")
    ring = link.to_server
    original = ring.read
    frame = encode("hangup", 0, channel=1)

    def refill(limit: int) -> bytes:
        data = original(limit)
        ring.write(frame * 64)
        return data

    ring.write(frame * 64)
    ring.read = refill  # type: ignore[method-assign]
    messages = link.server.receive()
    assert 0 < len(messages) <= 4 * 64
    assert link.server.more


def test_a_forbidden_message_is_answered_with_an_error_and_reported() -> None:
    link = Link()
    link.to_server.write(encode("release", 8, domid=1))
    assert link.server.receive() == []
    (answer,) = link.client.receive()
    assert (answer.kind, answer.id, answer.fields.errno) == ("error", 8, 1)
    assert link.reports == ["refused a message from toolstack: toolstack may not send release"]


def test_an_impossible_ring_breaks_the_channel_and_nothing_else() -> None:
    link = Link()
    link.page.words[2052 // 4] = 0x9000
    assert link.server.receive() == []
    assert "claims" in link.server.broken
    assert link.server.send("done", 1) is False
    assert link.server.flush() is True
    assert link.server.receive() == []


def test_reports_about_a_peer_are_bounded() -> None:
    link = Link()
    for _ in range(100):
        link.to_server.write(encode("hangup", 1, channel=1))
        link.server.receive()
        link.to_client.read(1024)
    assert 0 < len(link.reports) <= 16


@given(
    st.lists(st.one_of(st.binary(max_size=1024), st.tuples(st.integers(0, 1023), st.integers(0, 2**32 - 1))))
)
def test_whatever_a_peer_writes_into_the_page_no_exception_leaves_the_channel(
    actions: list[bytes | tuple[int, int]],
) -> None:
    link = Link()
    for action in actions:
        if isinstance(action, bytes):
            link.page.bytes[0 : len(action)] = action
            link.page.words[2052 // 4] = (link.page.words[2048 // 4] + len(action)) & 0xFFFFFFFF
        else:
            link.page.words[action[0]] = action[1]
        link.server.receive()
        link.server.send("done", 1)
        link.server.flush()


class Renewed(Link):
    """Either end may begin the conversation anew."""

    def __init__(self) -> None:
        super().__init__()
        self.begin("client")
        self.begin("server")

    def begin(self, end: str) -> None:
        """An end that knows nothing of the conversation so far."""
        rings = (self.to_client, self.to_server) if end == "client" else (self.to_server, self.to_client)
        names = ("builder", "toolstack") if end == "client" else ("toolstack", "builder")
        renewal = Renewal(self.page, CLIENT if end == "client" else SERVER)
        setattr(self, end, Channel(*rings, lambda: None, *names, self.reports.append, renewal))


@given(st.sampled_from(["client", "server"]), st.integers(1, 40), st.integers(1, 40))
def test_who_lost_its_place_in_the_middle_of_messages_begins_anew(end: str, before: int, cut: int) -> None:
    link = Renewed()
    for id in range(before):
        link.client.send("unpause", id, domid=7)
    link.server.receive()
    link.server.send("done", 1)
    link.to_server.write(encode("unpause", 99, domid=7)[:cut])
    if end == "server":
        link.to_server.read(cut // 2)
    else:
        link.to_client.read(5)
    link.begin(end)
    mine, other = (link.client, link.server) if end == "client" else (link.server, link.client)
    mine.renew()
    kinds = {"client": ("unpause", {"domid": 8}), "server": ("stopped", {"domid": 8, "reason": "crash"})}
    kind, fields = kinds[end]
    assert mine.send(kind, 0, **fields)  # waits until the other end has looked
    assert mine.receive() == []
    assert other.renewals == 0
    assert other.receive() == [] and other.renewals == 1
    assert mine.receive() == [] and mine.flush()
    assert [message.kind for message in other.receive()] == [kind]
    assert other.renewals == 1 and mine.renewals == 0 and not link.reports


def test_both_ends_begin_anew_at_once() -> None:
    link = Renewed()
    link.client.send("unpause", 1, domid=7)
    for end in ("client", "server"):
        link.begin(end)
    link.client.renew()
    link.server.renew()
    link.client.send("unpause", 2, domid=7)
    found = []
    for _ in range(3):
        link.client.flush()
        found += link.server.receive()
        link.client.receive()
    assert [message.id for message in found] in ([2], [])
    link.client.send("unpause", 3, domid=7)
    assert [message.id for message in link.server.receive()] == [3]


def test_a_broken_conversation_can_begin_anew() -> None:
    link = Renewed()
    link.page.words[abi.xenstore_domain_interface.offset("req_prod") // 4] = 5000
    assert link.server.receive() == [] and link.server.broken
    assert link.server.idle
    link.server.renew()
    link.client.receive()
    link.client.send("unpause", 3, domid=7)
    assert [message.id for message in link.server.receive()] == [3]


def test_what_is_held_waits_for_the_next_flush_and_a_channel_tells_if_it_is_idle() -> None:
    link = Renewed()
    link.client.held = True
    link.client.send("unpause", 3, domid=7)
    assert not link.to_server.readable() and not link.client.idle
    link.client.held = False
    assert link.client.flush() and link.client.idle and not link.server.idle
    link.server.receive()
    assert link.server.idle
    link.to_server.write(encode("unpause", 99, domid=7)[:5])
    link.server.receive()
    assert not link.server.idle


def test_messages_can_be_taken_one_by_one() -> None:
    link = Link()
    for id in range(1, 4):
        link.client.send("unpause", id, domid=7)
    for id in range(1, 4):
        assert [message.id for message in link.server.receive(1)] == [id]
        assert link.server.more and link.server.idle == (id == 3)
    assert link.server.receive(1) == [] and not link.server.more
