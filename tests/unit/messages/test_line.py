"""The operator's line: two ends in memory, and a wire that damages what passes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xoar.messages import frames
from xoar.messages.frames import FrameDecoder, encode_frame
from xoar.messages.line import WINDOW, Event, LineClient, LineError, LineServer, encode_hello


class Pair:
    """Both ends; `pump` carries bytes until nothing moves and keeps the events of each end."""

    def __init__(self) -> None:
        self.server = LineServer()
        self.client = LineClient()
        self.at_server: list[Event] = []
        self.at_client: list[Event] = []

    def pump(self) -> None:
        while self.client.pending or self.server.pending:
            self.at_server += self.server.feed(self.client.take(4096))
            self.at_client += self.client.feed(self.server.take(4096))

    def greeted(self) -> Pair:
        self.client.hello(1)
        self.pump()
        return self

    def opened(self, service: str = "console", argument: str = "7") -> int:
        channel = self.client.open(service, argument)
        self.pump()
        self.server.accept(channel)
        self.pump()
        return channel


def data_of(events: list[Event], channel: int) -> bytes:
    return b"".join(event.data for event in events if event.kind == "data" and event.channel == channel)


@given(
    st.integers(1, 6), st.integers(0, 0xFFFF), st.binary(max_size=frames.MAX_PAYLOAD), st.binary(max_size=50)
)
def test_a_frame_survives_whatever_stands_before_it(
    kind: int, channel: int, payload: bytes, garbage: bytes
) -> None:
    decoder = FrameDecoder()
    found = decoder.feed(garbage)
    for byte in encode_frame(kind, channel, payload):
        found += decoder.feed(bytes([byte]))
    assert found[-1] == (kind, channel, payload)


@given(st.lists(st.binary(max_size=3000)))
def test_random_bytes_never_raise(pieces: list[bytes]) -> None:
    server, client = LineServer(), LineClient()
    for piece in pieces:
        server.feed(piece)
        client.feed(piece)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.binary(max_size=40))))
def test_well_formed_frames_in_any_order_never_raise(parts: list[tuple[int, int, bytes]]) -> None:
    server, client = LineServer(), LineClient()
    client.hello(5)
    for kind, channel, payload in parts:
        frame = encode_frame(kind, channel, payload)
        for event in server.feed(frame):
            if event.kind == "open":
                server.accept(event.channel)
        client.feed(frame)


def test_a_channel_carries_data_both_ways() -> None:
    pair = Pair().greeted()
    channel = pair.opened("console", "7")
    assert Event("open", channel, "console 7") in pair.at_server
    assert pair.client.write(channel, b"uname -a\n") == 9
    assert pair.server.write(channel, b"Linux") == 5
    pair.pump()
    assert data_of(pair.at_server, channel) == b"uname -a\n"
    assert data_of(pair.at_client, channel) == b"Linux"


def test_a_reader_that_stops_stalls_only_its_own_channel() -> None:
    pair = Pair().greeted()
    slow, quick = pair.opened(), pair.opened()
    sent = 0
    while count := pair.server.write(slow, bytes(1000)):
        sent += count
        pair.pump()
    assert sent == WINDOW
    for _ in range(10):
        assert pair.server.write(quick, bytes(2000)) == 2000
        pair.pump()
        pair.client.consumed(quick, 2000)
        pair.pump()
    pair.client.consumed(slow, sent)
    pair.pump()
    assert pair.server.writable(slow) == WINDOW


def test_a_line_that_is_not_read_bounds_what_waits() -> None:
    pair = Pair().greeted()
    channels = [pair.opened() for _ in range(20)]
    for channel in channels:
        pair.server.write(channel, bytes(WINDOW))
    assert pair.server.pending < 16384 + 2048
    pair.server.feed(encode_frame(frames.DATA, 999, b"1234") * 2000)
    assert pair.server.congested


def test_more_than_the_credit_closes_the_channel() -> None:
    pair = Pair().greeted()
    channel = pair.opened()
    for offset in range(0, WINDOW + 1, 1000):
        frame = encode_frame(frames.DATA, channel, offset.to_bytes(4, "little") + bytes(1000))
        pair.at_server += pair.server.feed(frame)
    assert pair.at_server[-1] == Event("closed", channel, "more bytes came than there was credit for")
    pair.pump()
    assert pair.client.channels == []


def test_a_repeated_frame_changes_nothing() -> None:
    pair = Pair().greeted()
    channel = pair.opened()
    pair.client.write(channel, b"once")
    wire = pair.client.take(4096)
    pair.at_server += pair.server.feed(wire) + pair.server.feed(wire)
    assert data_of(pair.at_server, channel) == b"once"
    assert pair.server.channels == [channel]


def test_lost_data_closes_the_channel_with_the_reason() -> None:
    pair = Pair().greeted()
    channel, other = pair.opened(), pair.opened()
    pair.client.write(channel, b"lost")
    pair.client.take(4096)
    pair.client.write(channel, b"kept")
    pair.client.write(other, b"fine")
    pair.pump()
    assert Event("closed", channel, "bytes were lost on the line") in pair.at_client
    assert data_of(pair.at_server, channel) == b""
    assert data_of(pair.at_server, other) == b"fine"


def test_a_lost_credit_is_made_up_for_by_a_refresh() -> None:
    pair = Pair().greeted()
    channel = pair.opened()
    pair.server.write(channel, bytes(WINDOW))
    pair.client.write(channel, bytes(WINDOW))
    pair.pump()
    pair.client.consumed(channel, WINDOW)
    pair.server.consumed(channel, WINDOW)
    pair.client.take(4096), pair.server.take(4096)
    assert pair.server.writable(channel) == pair.client.writable(channel) == 0
    pair.client.refresh()
    pair.pump()
    assert pair.server.writable(channel) == WINDOW
    pair.client.refresh()
    pair.pump()
    assert pair.client.writable(channel) == WINDOW


def test_a_new_client_closes_the_channels_of_the_old_one() -> None:
    pair = Pair().greeted()
    pair.opened()
    successor = LineClient()
    successor.hello(2)
    assert pair.server.feed(successor.take(100)) == [Event("hello", 0, "")]
    assert pair.server.channels == []


def test_a_server_that_starts_anew_closes_the_clients_channels() -> None:
    pair = Pair().greeted()
    channel = pair.opened()
    pair.server = LineServer()
    pair.server.greet()
    pair.pump()
    assert pair.at_client[-1] == Event("hello", 0, "")
    assert channel not in pair.client.channels
    assert pair.opened() != channel


def test_a_late_answer_to_an_earlier_greeting_closes_nothing() -> None:
    pair = Pair()
    pair.client.hello(1)
    pair.client.hello(2)
    pair.pump()
    channel = pair.opened()
    pair.client.feed(encode_hello(2) + encode_hello(1))
    assert pair.client.channels == [channel]


def test_another_version_is_said_and_nothing_can_be_opened() -> None:
    client = LineClient()
    client.hello(3)
    (event,) = client.feed(encode_frame(frames.HELLO, 0, b"\x09\x03\x00\x00\x00"))
    assert "version 9" in event.data
    with pytest.raises(LineError):
        client.open("toolstack")


def test_nothing_is_opened_before_the_greeting() -> None:
    client = LineClient()
    client.feed(encode_frame(frames.HELLO, 0, b"\x01\x00\x00\x00\x00"))
    with pytest.raises(LineError, match="not answered"):
        client.open("toolstack")


def test_channels_are_bounded() -> None:
    pair = Pair().greeted()
    for number in range(1, 100):
        pair.server.feed(encode_frame(frames.OPEN, number, b"\x00\x10\x00\x00xen"))
    assert len(pair.server.channels) == 64
    assert b"too many channels" in pair.server.take(99999)


def test_reasons_are_shown_without_control_characters() -> None:
    pair = Pair().greeted()
    channel = pair.opened()
    pair.client.feed(encode_frame(frames.CLOSE, channel, b"\x1b[2Jbye\xff"))
    assert not pair.client.channels
    pair2 = Pair().greeted()
    channel = pair2.opened()
    assert pair2.client.feed(encode_frame(frames.CLOSE, channel, b"\x1b[2Jbye"))[-1].data == "?[2Jbye"


FAULTS = st.lists(
    st.tuples(
        st.sampled_from(("flip", "drop", "insert", "double")), st.integers(0, 10**6), st.integers(1, 255)
    ),
    max_size=6,
)


def damage(wire: bytes, faults: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(wire)
    for fault, where, value in faults:
        if not data:
            break
        at = where % len(data)
        if fault == "flip":
            data[at] ^= value
        elif fault == "drop":
            del data[at : at + value]
        elif fault == "insert":
            data[at:at] = bytes([value]) * value
        else:
            data[at:at] = data[max(0, at - value) : at]
    return bytes(data)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=600), FAULTS), max_size=8))
def test_a_damaged_line_never_delivers_wrong_bytes_and_can_be_used_again(
    pieces: list[tuple[bytes, list[tuple[str, int, int]]]],
) -> None:
    pair = Pair().greeted()
    channel = pair.opened()
    sent = b""
    for piece, faults in pieces:
        count = pair.client.write(channel, piece)
        sent += piece[:count]
        pair.at_server += pair.server.feed(damage(pair.client.take(99999), faults))
        pair.at_client += pair.client.feed(damage(pair.server.take(99999), faults))
    assert sent.startswith(data_of(pair.at_server, channel))
    pair.client.hello(99)
    pair.client.feed(b"\x7e")
    pair.server.feed(b"\x7e")
    pair.pump()
    assert pair.client.ready
    pair.at_server = []
    again = pair.opened()
    pair.client.write(again, b"still here")
    pair.pump()
    assert data_of(pair.at_server, again) == b"still here"
