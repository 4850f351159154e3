"""Every message kind, derived from the table: round trips, bounds, and bytes that are no message."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.messages import document, schema
from xoar.messages.codec import MAX_FRAME, Decoder, Message, encode, encode_error
from xoar.messages.consoles import KEPT_CONSOLES
from xoar.messages.errors import MessageError
from xoar.messages.fields import Array, Blob, Choice, Fixed, Name, Number, OptionalName, Record, Text
from xoar.messages.kept import KEPT
from xoar.messages.remembered import REMEMBERED

PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))
NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """A strategy for the values that a field type allows."""
    if isinstance(kind, Number):
        return st.integers(0, (1 << (8 * kind.largest)) - 1)
    if isinstance(kind, Fixed):
        return st.binary(min_size=kind.largest, max_size=kind.largest)
    if isinstance(kind, Blob):
        return st.binary(max_size=kind.maximum)
    if isinstance(kind, OptionalName):
        return st.one_of(st.just(""), values_of(Name(kind.maximum)))
    if isinstance(kind, Name):
        first, rest = (
            st.sampled_from(NAME_CHARACTERS),
            st.text(NAME_CHARACTERS + "_.-", max_size=kind.maximum - 1),
        )
        return st.builds("{}{}".format, first, rest)
    if isinstance(kind, Text):
        return st.text(PRINTABLE, max_size=kind.maximum)
    if isinstance(kind, Choice):
        return st.sampled_from(kind.words)
    if isinstance(kind, Record):
        return st.tuples(*[values_of(field) for _, field in kind.fields]).map(
            lambda values: kind.value(*values)
        )
    assert isinstance(kind, Array)
    return st.lists(values_of(kind.record), max_size=min(kind.maximum, 4))


def fields_of(kind: schema.Kind) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: values_of(field) for name, field in kind.record.fields})


MESSAGES = st.one_of(
    *[st.tuples(st.just(kind.name), st.integers(0, 2**32 - 1), fields_of(kind)) for kind in schema.TABLE]
)


def decode_all(decoder: Decoder) -> tuple[list[Message], list[MessageError]]:
    messages, errors = [], []
    while True:
        try:
            message = decoder.next()
        except MessageError as error:
            errors.append(error)
            if error.fatal:
                return messages, errors
            continue
        if message is None:
            return messages, errors
        messages.append(message)


@given(st.lists(MESSAGES, max_size=4), st.data())
def test_messages_arrive_as_they_were_sent_in_whatever_pieces(
    messages: list[tuple[str, int, dict[str, Any]]], data: st.DataObject
) -> None:
    stream = b"".join(encode(name, id, **fields) for name, id, fields in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    decoder, received = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoder.feed(stream[start:end])
        got, errors = decode_all(decoder)
        assert not errors
        received += got
    assert [(m.kind, m.id, m.fields._asdict()) for m in received] == messages


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_raise_nothing_but_message_errors(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)
        decode_all(decoder)


@given(st.sampled_from(schema.TABLE), st.binary(max_size=300))
def test_random_payloads_of_every_kind_raise_nothing_but_message_errors(
    kind: schema.Kind, payload: bytes
) -> None:
    decoder = Decoder()
    decoder.feed(struct.pack("<III", kind.number, 5, len(payload)) + payload)
    messages, errors = decode_all(decoder)
    assert len(messages) + len(errors) == 1
    if messages:
        # what was accepted is exactly what the encoder makes: no second form of any message
        assert encode(kind.name, 5, **messages[0].fields._asdict())[12:] == payload


@given(MESSAGES, st.data())
def test_a_damaged_message_does_not_hide_the_next_one(
    message: tuple[str, int, dict[str, Any]], data: st.DataObject
) -> None:
    frame = bytearray(encode(message[0], message[1], **message[2]))
    if len(frame) > 12:
        frame[data.draw(st.integers(12, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    decoder = Decoder()
    decoder.feed(bytes(frame) + encode("ps", 99, start=0))
    messages, errors = decode_all(decoder)
    assert messages[-1].id == 99
    assert not any(error.fatal for error in errors)


def test_a_frame_that_claims_too_much_loses_the_stream() -> None:
    decoder = Decoder()
    decoder.feed(struct.pack("<III", 1, 4, schema.MAX_PAYLOAD + 1))
    with pytest.raises(MessageError, match="claims 8193 bytes") as caught:
        decoder.next()
    assert caught.value.fatal and caught.value.id == 4


@pytest.mark.parametrize("kind", schema.TABLE, ids=lambda kind: kind.name)
def test_the_largest_message_of_each_kind_fits_into_a_frame(kind: schema.Kind) -> None:
    assert kind.record.largest <= schema.MAX_PAYLOAD
    assert 12 + kind.record.largest <= MAX_FRAME


def test_numbers_and_names_are_unique_and_every_request_has_an_answer_and_a_right() -> None:
    assert len(schema.BY_NAME) == len(schema.BY_NUMBER) == len(schema.TABLE)
    for kind in schema.TABLE:
        assert kind.routes or kind in REMEMBERED + KEPT + KEPT_CONSOLES, f"nobody may send {kind.name}"
        if kind.reply:
            assert kind.reply in schema.BY_NAME
            assert kind.right


def test_only_the_declared_sender_may_send_a_kind() -> None:
    assert "build" in schema.accepted("toolstack", "builder")
    assert "error" in schema.accepted("builder", "toolstack")
    assert "build" not in schema.accepted("console", "toolstack")
    assert schema.accepted("xenstore", "toolstack") == frozenset()
    assert schema.accepted("builder", "xenstore") == {
        "introduce",
        "release",
        "stopped",
        "make_back_end",
        "remove_back_end",
    }


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("guest_show", {"name": "Web"}, "is no name"),
        ("guest_show", {"name": "-web"}, "is no name"),
        ("guest_show", {"name": ""}, "is no name"),
        ("guest_show", {"name": "w" * 65}, "65 bytes, at most 64"),
        ("guest_show", {"name": "web\n"}, "other than printable ASCII"),
        ("guest_show", {}, "name is missing"),
        ("guest_show", {"name": "web", "colour": 1}, "no field colour"),
        ("unpause", {"domid": 65536}, "no number from 0 to 65535"),
        ("unpause", {"domid": "1"}, "no number"),
        ("relay", {"channel": 1, "data": bytes(4097)}, "4097 bytes, at most 4096"),
        ("stopped", {"domid": 1, "reason": "bored"}, "is not none, poweroff"),
        ("dance", {}, "there is no message dance"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_reason(
    kind: str, fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(MessageError, match=text):
        encode(kind, 1, **fields)


@given(st.text())
def test_any_text_can_be_an_error_message(text: str) -> None:
    decoder = Decoder()
    decoder.feed(encode_error(3, 22, text))
    message = decoder.next()
    assert message is not None and message.fields.errno == 22


def test_the_documentation_is_what_the_table_says() -> None:
    page = document.markdown()
    for kind in schema.TABLE:
        assert f"| {kind.number} | {kind.name} |" in page
