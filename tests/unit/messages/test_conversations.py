"""When Builder's links are at rest, and what is done with one that never is."""

from __future__ import annotations

from tests.unit.messages.test_channel import Renewed

from xoar.messages.codec import encode
from xoar.messages.conversations import Conversations

SECOND = 1_000_000_000
FRAME = encode("unpause", 9, domid=7)


def test_half_a_message_is_waited_for_a_while_and_then_the_conversation_begins_anew() -> None:
    link, other = Renewed(), Renewed()
    talks = Conversations({"toolstack": link.server, "tenant": other.server}, {})
    assert not talks.more and talks.expire(0) is None
    link.to_server.write(FRAME[:7])
    other.client.send("unpause", 1, domid=7)
    link.server.receive()
    other.server.receive()
    assert not talks.more
    assert talks.expire(SECOND) == 6 * SECOND
    link.to_server.write(FRAME[7:])
    assert [message.id for message in link.server.receive()] == [9]
    assert talks.expire(2 * SECOND) is None

    link.to_server.write(FRAME[:7])
    link.server.receive()
    assert talks.expire(3 * SECOND) == 8 * SECOND
    assert talks.expire(8 * SECOND) is None
    link.client.receive()
    assert (link.client.renewals, other.client.renewals) == (1, 0)
    link.client.send("unpause", 3, domid=7)
    assert [message.id for message in link.server.receive()] == [3]


def test_only_what_has_waited_all_the_time_is_given_up() -> None:
    link = Renewed()
    talks = Conversations({"toolstack": link.server}, {})
    for turn in range(2):
        # each time it is looked at half a message is there, and between the looks the rest of it came
        link.to_server.write(FRAME[:7])
        link.server.receive()
        assert talks.expire(turn * 10 * SECOND) == (turn * 10 + 5) * SECOND
        link.to_server.write(FRAME[7:])
        assert [message.id for message in link.server.receive()] == [9]
    assert talks.expire(15 * SECOND) is None
    for turn in range(2, 4):
        while link.server.idle:
            link.server.send("done", 1)
        assert talks.expire(turn * 10 * SECOND) == (turn * 10 + 5) * SECOND
        while not link.server.flush():
            link.client.receive()
    link.client.receive()
    assert link.client.renewals == 0


def test_who_always_leaves_something_waiting_is_given_up_too() -> None:
    link = Renewed()
    talks = Conversations({"toolstack": link.server}, {})
    link.to_server.write(FRAME[:7])
    for second in range(21):
        link.server.receive()
        assert talks.expire(second * SECOND) is not None or second == 20
        link.to_server.write(FRAME[7:] + FRAME[:7])
    link.client.receive()
    assert link.client.renewals == 1


def test_a_request_that_has_not_been_received_yet_is_no_reason_to_begin_anew() -> None:
    link = Renewed()
    talks = Conversations({"toolstack": link.server}, {})
    for second in (0, 10):
        link.client.send("unpause", second, domid=7)
        assert talks.more
        assert talks.expire(second * SECOND) is None
        assert [message.id for message in link.server.receive()] == [second]
        assert not talks.more


def test_what_nobody_takes_does_not_wait_for_ever() -> None:
    link = Renewed()
    talks = Conversations({"toolstack": link.server}, {})
    while link.server.idle:
        link.server.send("done", 1)
    talks.expire(0)
    assert talks.expire(5 * SECOND) is None
    assert link.server.idle


def test_what_is_sent_is_held_until_all_is_remembered_and_a_broken_link_begins_anew() -> None:
    link = Renewed()
    talks = Conversations({"toolstack": link.server}, {})
    talks.hold()
    link.server.send("done", 1)
    assert not link.to_client.readable()
    talks.go_on()
    assert link.to_client.readable()
    link.page.words[2048 // 4 + 1] = 60000  # what the client says that it has sent
    link.server.receive()
    assert link.server.broken
    talks.hold()
    assert not link.server.broken
    talks.begin_anew()
    link.client.receive()
    assert link.client.renewals == 1
