"""Operators' streams and questions."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from toolstack_host import GARBAGE, Host

from xoar.messages.codec import encode
from xoar.messages.schema import accepted
from xoar.toolstack.api import MAX_STREAMS


def test_every_request_of_an_operator_is_served() -> None:
    assert set(Host().toolstack.handlers()) == accepted("operator", "toolstack")


def test_ps_names_shards_and_guests() -> None:
    host = Host()
    domid = host.create("web")
    rows = host.ask("ps", start=0).fields.objects
    assert [(row.id, row.name, row.kind) for row in rows] == [
        (1, "xenstore", "shard"), (2, "console", "shard"), (3, "builder", "shard"),
        (4, "toolstack", "shard"), (domid, "web", "guest"),
    ]  # fmt: skip
    assert rows[-1].age_ms == 1000 and rows[-1].state == "running"


def test_a_hundred_guests_are_listed_in_pages() -> None:
    host = Host()
    for number in range(100):
        host.create(f"g{number}")
    for kind, reply_field, key in (("guest_list", "guests", "name"), ("ps", "objects", "name")):
        names: list[str] = []
        start, more = 0, 1
        while more:
            fields = host.ask(kind, start=start).fields
            page = getattr(fields, reply_field)
            names += [getattr(row, key) for row in page]
            start = page[-1].id + 1 if kind == "ps" else start + len(page)
            more = fields.more
        assert [name for name in names if name.startswith("g")] == [f"g{number}" for number in range(100)]


def test_images_and_the_host_are_what_builder_says() -> None:
    host = Host()
    images = host.ask("image_list", start=0).fields.images
    assert [image.name for image in images] == ["image1", "image2"]
    for number in range(40):
        host.create(f"g{number}")
    info = host.ask("host_info").fields
    assert (info.total_kib, info.free_kib, info.xen_version) == (1000, 400, "4.17.5")
    assert info.uptime_ms == host.fake.now_ns // 10**6
    assert info.domains == 44


def test_builders_refusals_reach_the_operator() -> None:
    host = Host()
    host.run()
    host.fake.fail = {"domains"}
    reply = host.ask("ps", start=0)
    assert (reply.kind, reply.fields.text) == ("error", "domains fails in this test")


def test_an_unknown_guest_and_one_that_has_ended_are_told_apart() -> None:
    host = Host()
    assert host.ask("guest_show", name="web").fields.text == "there is no guest web"
    domid = host.create(on_crash="destroy")
    host.fake.stop(domid, "crash")
    host.run()
    ended = host.ask("guest_show", name="web").fields
    assert (ended.state, ended.reason, ended.previous_domid) == ("ended", "crash", domid)
    assert host.ask("guest_destroy", name="web").fields.text == "guest web has ended: it crashed"


def test_a_malformed_request_is_answered_and_the_stream_goes_on() -> None:
    host = Host()
    bad = struct.pack("<III", 68, 9, 3) + b"\x01\x00!"
    host.console.send("relay", 0, channel=1, data=bad + encode("guest_list", 10, start=0))
    host.run()
    assert "guest_show: name: '!' is no name" in host.answers[1, 9].fields.text
    assert host.answers[1, 10].kind == "guests"


def test_a_stream_that_cannot_be_understood_is_hung_up_after_the_reason() -> None:
    host = Host()
    host.console.send("relay", 0, channel=3, data=struct.pack("<III", 1, 7, 1 << 30))
    host.run()
    assert "at most 8192" in host.answers[3, 7].fields.text
    assert host.hung_up == [3]


def test_an_operator_may_not_speak_as_a_shard() -> None:
    host = Host()
    host.console.send("relay", 0, channel=1, data=encode("stopped", 4, domid=5, reason="crash"))
    host.run()
    assert host.answers[1, 4].fields.errno == 1


def test_a_stream_has_a_bounded_number_of_unanswered_requests() -> None:
    host = Host()
    host.create()
    for _ in range(20):
        host.send("guest_shutdown", name="web", timeout_ms=60000)
        host.run(5)
    refused = [reply for reply in host.answers.values() if reply.kind == "error"]
    assert refused and "16 requests of this stream are unanswered" in refused[0].fields.text


def test_answers_for_an_operator_who_has_gone_are_dropped() -> None:
    host = Host()
    host.fake.hold = {"build"}
    host.send("guest_create", channel=5, **host.create_fields())
    host.run()
    host.console.send("hangup", 0, channel=5)
    host.run()
    host.fake.answer_held()
    host.run()
    assert host.answers == {} and host.state() == "running"


def test_streams_are_bounded() -> None:
    host = Host()
    for channel in range(1, MAX_STREAMS + 3):
        host.send("guest_list", channel=channel, start=0)
        host.run(3)
    assert host.hung_up == [MAX_STREAMS + 1, MAX_STREAMS + 2]


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_garbage_in_a_stream_ends_nothing(pieces: list[bytes]) -> None:
    host = Host()
    for piece in pieces:
        host.console.send("relay", 0, channel=GARBAGE, data=piece)
        host.run(3)
    assert host.ask("guest_list", start=0).kind == "guests"
