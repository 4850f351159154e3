"""Messages, numbers and permissions on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.xenstore import wire
from xoar.xenstore.errors import ProtocolError, Refused

U32 = st.integers(0, 0xFFFFFFFF)
MESSAGES = st.builds(wire.Message, U32, U32, U32, st.binary(max_size=200))


@given(st.lists(MESSAGES, max_size=8), st.lists(st.integers(1, 60), max_size=40))
def test_messages_survive_any_way_of_cutting_the_stream(
    messages: list[wire.Message], cuts: list[int]
) -> None:
    stream = b"".join(wire.encode(*message) for message in messages)
    decoder = wire.Decoder()
    found = []
    for size in [*cuts, len(stream)]:
        decoder.feed(stream[:size])
        stream = stream[size:]
        while (message := decoder.next()) is not None:
            found.append(message)
    assert found == messages


def test_the_longest_payload_passes_and_a_longer_one_does_not() -> None:
    decoder = wire.Decoder()
    decoder.feed(wire.encode(wire.READ, 1, 0, b"x" * wire.PAYLOAD_MAX))
    message = decoder.next()
    assert message is not None and len(message.payload) == wire.PAYLOAD_MAX
    decoder.feed(wire.encode(wire.READ, 1, 0, b"x" * (wire.PAYLOAD_MAX + 1))[: wire.HEADER_SIZE])
    with pytest.raises(ProtocolError, match="4097"):
        decoder.next()


@given(st.binary(max_size=64))
def test_decoding_garbage_raises_protocol_errors_only(garbage: bytes) -> None:
    decoder = wire.Decoder()
    decoder.feed(garbage)
    try:
        while decoder.next() is not None:
            pass
    except ProtocolError:
        pass


@given(st.integers(0, 0xFFFF), st.integers(0, 3))
def test_permissions_survive_the_round_trip(domid: int, access: int) -> None:
    assert wire.parse_permission(wire.format_permission((domid, access))) == (domid, access)


@given(st.binary(max_size=8))
def test_permissions_and_numbers_are_parsed_or_refused(text: bytes) -> None:
    for parse in (wire.parse_permission, wire.number, wire.one_string):
        try:
            parse(text)
        except Refused as error:
            assert error.name == "EINVAL"


@pytest.mark.parametrize("text", [b"", b"-1", b"+1", b" 1", b"1x", b"0x10", b"99999999999", b"65536"])
def test_what_is_no_domid_is_refused(text: bytes) -> None:
    with pytest.raises(Refused):
        wire.number(text, 0xFFFF)


def test_one_string_wants_exactly_one_nul_at_the_end() -> None:
    assert wire.one_string(b"/a\0") == b"/a"
    for payload in (b"", b"/a", b"/a\0b", b"/a\0b\0"):
        with pytest.raises(Refused):
            wire.one_string(payload)
