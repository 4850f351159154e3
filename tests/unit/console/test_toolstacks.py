"""Operators' streams lead to the Toolstack that they name, whose say ends with its own streams and guests."""

from __future__ import annotations

import pytest

from xoar.messages.channel import Channel

from .test_console_core import Host, introduced

ACME, BOLT = 32512, 32513


def begun(host: Host, tenant: str, toolstack: Channel, said: bytes = b"hello") -> tuple[int, int]:
    """A stream to a tenant's Toolstack: the operator's channel, and the Toolstack's number for it."""
    channel = host.open("toolstack", tenant)
    host.operator.write(channel, said)
    host.run()
    (piece,) = toolstack.receive()
    assert piece.fields.data == said
    return channel, piece.fields.channel


def test_each_tenant_is_reached_by_its_name() -> None:
    host = Host()
    acme, bolt = host.tenant("acme", ACME), host.tenant("bolt", BOLT)
    begun(host, "acme", acme, b"for acme")
    begun(host, "bolt", bolt, b"for bolt")
    begun(host, "", host.toolstack, b"for the host")
    assert not acme.receive() and not bolt.receive()
    nobody = host.open("toolstack", "nobody")
    assert host.closed[nobody] == "there is no Toolstack of tenant nobody"


@pytest.mark.parametrize("kind", ["relay", "hangup", "attach"])
def test_a_toolstack_has_no_say_over_streams_of_others(kind: str) -> None:
    host = Host()
    acme, bolt = host.tenant("acme", ACME), host.tenant("bolt", BOLT)
    host.ask("introduce", **introduced(40, parent=BOLT))
    channel, number = begun(host, "acme", acme)
    fields = {"relay": {"data": b"lies"}, "hangup": {}, "attach": {"domid": 40, "what": "console"}}[kind]
    bolt.send(kind, 0, channel=number, **fields)
    host.run()
    assert channel not in host.closed and channel not in host.received
    acme.send("relay", 0, channel=number, data=b"truth")
    host.run()
    assert host.received[channel] == b"truth"


def test_a_stream_becomes_the_console_of_a_guest_of_its_toolstack() -> None:
    host = Host()
    acme = host.tenant("acme", ACME)
    host.ask("introduce", **introduced(40, parent=ACME))
    guest = host.guests[40]
    guest.print(b"before ")
    host.run()
    console, number = begun(host, "acme", acme)
    acme.send("attach", 0, channel=number, domid=40, what="console")
    acme.send("relay", 0, channel=number, data=b"[done]")
    host.run()
    assert host.received[console] == b"[done]"
    host.operator.write(console, b"ro")  # before Console hears that this was all
    host.run()
    acme.send("hangup", 0, channel=number)
    host.run()
    guest.print(b"login: ")
    host.operator.write(console, b"ot\r")
    host.run()
    assert host.received[console] == b"[done]login: "
    assert guest.to_guest.read(64) == b"root\r"
    log, number = begun(host, "acme", acme)
    acme.send("attach", 0, channel=number, domid=40, what="log")
    acme.send("hangup", 0, channel=number)
    host.run()
    assert (host.received[log], host.closed[log]) == (b"before login: ", "")
    assert [message.kind for message in acme.receive()] == []


@pytest.mark.parametrize("domid", [40, 41, ACME, 3])
@pytest.mark.parametrize("what", ["console", "log", "follow"])
def test_consoles_of_others_are_out_of_reach(domid: int, what: str) -> None:
    host = Host()
    acme = host.tenant("acme", ACME)
    host.tenant("bolt", BOLT)
    host.ask("introduce", **introduced(40, parent=BOLT))
    host.introduce(41)
    for guest in host.guests.values():
        guest.print(b"secret")
    host.run()
    channel, number = begun(host, "acme", acme)
    acme.send("attach", 0, channel=number, domid=domid, what=what)
    acme.send("hangup", 0, channel=number)
    host.run()
    assert host.closed[channel] == "" and channel not in host.received


def test_a_stream_whose_toolstack_goes_before_it_has_answered_becomes_no_console() -> None:
    host = Host()
    acme = host.tenant("acme", ACME)
    host.ask("introduce", **introduced(40, parent=ACME))
    channel, number = begun(host, "acme", acme)
    acme.send("attach", 0, channel=number, domid=40, what="console")
    host.run()
    assert host.ask("release", domid=ACME).kind == "done"
    host.run()
    assert host.closed[channel] == ""


def test_a_toolstack_that_goes_ends_its_streams_and_gives_its_link_back() -> None:
    host = Host()
    acme = host.tenant("acme", ACME)
    channel, _ = begun(host, "acme", acme)
    link = host.clients[ACME]
    assert host.ask("release", domid=ACME).kind == "done"
    host.run()
    assert link.closed and host.closed[channel] == ""
    assert host.ask("release", domid=ACME).kind == "error"
    gone = host.open("toolstack", "acme")
    assert host.closed[gone] == "there is no Toolstack of tenant acme"
    begun(host, "acme", host.tenant("acme", ACME))


def test_a_toolstack_that_begins_anew_ends_its_streams_and_gets_new_ones() -> None:
    host = Host()
    acme = host.tenant("acme", ACME)
    mine, _ = begun(host, "", host.toolstack)
    other, number = begun(host, "acme", acme)
    host.toolstack.renew()
    host.run()
    assert host.closed == {mine: ""}
    begun(host, "", host.toolstack, b"again")
    acme.send("relay", 0, channel=number, data=b"truth")
    host.run()
    assert host.received[other] == b"truth"
