"""The codec, a link and the operator's line as a nano shard runs them (CPython and MicroPython)."""

from xoar.messages import frames, schema
from xoar.messages.channel import Channel
from xoar.messages.codec import MAX_FRAME, Decoder, encode
from xoar.messages.errors import MessageError
from xoar.messages.line import LineClient, LineServer
from xoar.xen import ring


def shared_page():
    data = bytearray(4096)
    view = memoryview(data)
    try:
        return ring.SharedPage(view, view.cast("I"))
    except AttributeError:  # MicroPython has no cast
        import uctypes

        address = uctypes.addressof(data)
        words = uctypes.struct(address, {"w": (uctypes.ARRAY | 0, uctypes.UINT32 | 1024)}).w
        page = ring.SharedPage(view, words)
        page.keep = data
        return page


def sample(kind):
    """A value of any field type."""
    name = type(kind).__name__
    if name == "Number":
        return (1 << (8 * kind.largest)) - 1
    if name == "Fixed":
        return bytes(range(kind.largest))
    if name == "Blob":
        return b"\x00\x7e\xff"
    if name == "Text":
        return "root=/dev/xvda ~"[: kind.maximum]
    if name in ("Name", "OptionalName"):
        return "web-1.example"
    if name == "Choice":
        return kind.words[-1]
    if name == "Record":
        return kind.value(*[sample(field) for _, field in kind.fields])
    return [sample(kind.record)] * kind.maximum


def test_every_kind_survives_the_way_through_a_decoder():
    for kind in schema.TABLE:
        fields = {name: sample(field) for name, field in kind.record.fields}
        frame = encode(kind.name, 7, **fields)
        assert len(frame) <= MAX_FRAME
        decoder = Decoder()
        for start in range(0, len(frame), 1000):
            decoder.feed(frame[start : start + 1000])
        message = decoder.next()
        assert message.kind == kind.name and message.id == 7
        for name in fields:
            assert getattr(message.fields, name) == fields[name]


def test_damaged_frames_raise_only_message_errors():
    frame = encode("guest_show", 1, name="web")
    for position in range(len(frame)):
        for value in (0, 0x7F, 0xFF):
            decoder = Decoder()
            decoder.feed(frame[:position] + bytes((value,)) + frame[position + 1 :])
            try:
                message = decoder.next()
            except MessageError:
                message = None
            assert message is None or message.kind in schema.BY_NAME


def test_a_channel_carries_a_message_larger_than_the_ring():
    page = shared_page()
    to_server, to_client = ring.xenstore_rings(page)
    woken = []
    client = Channel(to_client, to_server, lambda: woken.append(1), "console", "toolstack")
    server = Channel(to_server, to_client, lambda: woken.append(1), "toolstack", "console")
    assert client.send("relay", 0, channel=3, data=b"x" * 4000)
    received = []
    while not received:
        received = server.receive()
        client.flush()
    assert received[0].fields.data == b"x" * 4000
    assert woken


def test_a_channel_refuses_what_the_peer_may_not_send():
    page = shared_page()
    to_server, to_client = ring.xenstore_rings(page)
    said = []
    client = Channel(to_client, to_server, lambda: None, "console", "toolstack", said.append)
    server = Channel(to_server, to_client, lambda: None, "toolstack", "console", said.append)
    client.send("release", 9, domid=1)
    assert server.receive() == []
    to_client_bytes = to_client.read(1024)
    decoder = Decoder()
    decoder.feed(to_client_bytes)
    answer = decoder.next()
    assert answer.kind == "error" and answer.id == 9
    assert "may not send release" in answer.fields.text
    assert said


def test_frames_are_found_again_after_garbage():
    decoder = frames.FrameDecoder()
    payload = bytes(range(256)) * 4
    found = decoder.feed(b"\x00\x7d\x7e~~}}" + frames.encode_frame(frames.DATA, 5, payload))
    assert [frame.payload for frame in found] == [payload]
    assert decoder.dropped > 0
    assert decoder.feed(b"z" * 5000) == [] and decoder.feed(b"y" * 5000) == []
    found = decoder.feed(frames.encode_frame(frames.CLOSE, 5))
    assert [frame.kind for frame in found] == [frames.CLOSE]


def test_both_ends_of_the_line_exchange_data_within_credit():
    server = LineServer()
    client = LineClient()
    client.hello(77)
    assert [event.kind for event in server.feed(client.take(9999))] == ["hello"]
    assert [event.kind for event in client.feed(server.take(9999))] == ["hello"]
    channel = client.open("console", "7")
    (event,) = server.feed(client.take(9999))
    assert event.kind == "open" and event.data == "console 7"
    server.accept(channel)
    client.feed(server.take(9999))
    assert client.write(channel, b"q" * 10000) == 4096
    got = b"".join([event.data for event in server.feed(client.take(99999))])
    assert got == b"q" * 4096 and client.writable(channel) == 0
    server.consumed(channel, 4096)
    client.feed(server.take(9999))
    assert client.writable(channel) == 4096


if __name__ == "__main__":
    for name in sorted(globals()):
        if name.startswith("test_"):
            globals()[name]()
            print("ok", name)
