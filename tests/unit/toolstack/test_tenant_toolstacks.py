"""A tenant's Toolstack takes its own operators' streams only; the host's has those of tenants built."""

from __future__ import annotations

from typing import Any

import pytest
from toolstack_host import TOOLSTACK, Host

from xoar.messages.codec import Decoder, Message, encode
from xoar.messages.errors import EPERM
from xoar.messages.seal import TO_OPERATOR, TO_TOOLSTACK, Seal, hmac, stream_key

KEY = bytes(range(32))
ACME = 32512
TENANT = {"tenant": [f"acme:{ACME}"], "tenant_seconds": ["3600"]}


class TenantsHost(Host):
    """A Toolstack with a key, and bytes to and from its operators."""

    def __init__(self) -> None:
        self.received: dict[int, bytes] = {}
        self.told_before = b""  # Console heard whose console a stream becomes
        super().__init__({"key": [KEY.hex()]}, role="tenant")

    def relayed(self, message: Message) -> None:
        channel = message.fields.channel
        if message.kind == "relay":
            self.received[channel] = self.received.get(channel, b"") + message.fields.data
        elif message.kind == "hangup":
            self.hung_up.append(channel)
        else:
            self.told_before = self.received.get(channel, b"")
            self.answers[channel, 0] = message

    def say(self, channel: int, data: bytes) -> bytes:
        """What comes back on that stream."""
        self.console.send("relay", 0, channel=channel, data=data)
        self.run()
        return self.received.pop(channel, b"")


class Operator:
    """An operator who has a key."""

    def __init__(self, host: TenantsHost, channel: int = 1, key: bytes = KEY) -> None:
        self.host = host
        self.channel = channel
        nonce = bytes([channel]) * 16
        self.decoder = Decoder()
        self.challenge = self.took(host.say(channel, encode("greet", 1, nonce=nonce))).fields.nonce
        own = stream_key(key, nonce, self.challenge)
        self.seal, self.decoder.seal = Seal(own, TO_TOOLSTACK), Seal(own, TO_OPERATOR)

    def took(self, data: bytes) -> Message:
        self.decoder.feed(data)
        message = self.decoder.next()
        assert message is not None
        return message

    def sealed(self, kind: str, **fields: Any) -> bytes:
        frame = encode(kind, 5, **fields)
        return frame + self.seal.tag(frame)

    def ask(self, kind: str, **fields: Any) -> Message:
        return self.took(self.host.say(self.channel, self.sealed(kind, **fields)))


def test_hmac_is_that_of_rfc_4231() -> None:
    assert hmac(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_who_has_the_key_is_served() -> None:
    host = TenantsHost()
    operator = Operator(host)
    assert operator.ask("guest_create", **host.create_fields()).kind == "started"
    assert [guest.name for guest in operator.ask("guest_list", start=0).fields.guests] == ["web"]


def test_every_stream_has_a_number_of_its_own() -> None:
    host = TenantsHost()
    assert Operator(host).challenge != Operator(host, 2).challenge


@pytest.mark.parametrize("first", [encode("guest_list", 1, start=0), b"\xff" * 12, encode("ps", 1, start=0)])
def test_without_a_key_a_stream_is_ended(first: bytes) -> None:
    host = TenantsHost()
    host.say(1, first)
    assert host.hung_up == [1]
    assert host.say(1, encode("guest_list", 2, start=0)) != b"" or host.hung_up == [1, 1]
    assert Operator(host, 3).ask("guest_list", start=0).kind == "guests"


def create(operator: Operator) -> bytes:
    return operator.sealed("guest_create", **operator.host.create_fields())


def without_its_tag(operator: Operator) -> bytes:
    return create(operator)[:-16] + bytes(16)


def with_another_key(operator: Operator) -> bytes:
    other = Operator(operator.host, operator.channel + 100, bytes(32))
    other.seal._direction = TO_TOOLSTACK
    return create(other)


def of_another_stream(operator: Operator) -> bytes:
    return create(Operator(operator.host, operator.channel + 100))


def one_bit_changed(operator: Operator) -> bytes:
    frame = bytearray(create(operator))
    frame[20] ^= 1
    return bytes(frame)


def said_before(operator: Operator) -> bytes:
    frame = operator.sealed("guest_list", start=0)
    operator.took(operator.host.say(operator.channel, frame))
    return frame


def one_left_out(operator: Operator) -> bytes:
    create(operator)
    return create(operator)


@pytest.mark.parametrize(
    "forged",
    [without_its_tag, with_another_key, of_another_stream, one_bit_changed, said_before, one_left_out],
)
def test_what_is_not_the_operators_ends_the_stream(forged: Any) -> None:
    host = TenantsHost()
    operator = Operator(host)
    data = forged(operator)
    reply = operator.took(host.say(1, data))
    assert (reply.kind, reply.fields.errno) == ("error", EPERM)
    assert host.hung_up == [1]
    assert not host.guests.all
    assert Operator(host, 3).ask("guest_list", start=0).kind == "guests"


@pytest.mark.parametrize("kind", ["tenant_list", "network_delete", "driver_restart"])
def test_what_is_the_hosts_operators_is_refused_to_tenants(kind: str) -> None:
    host = TenantsHost()
    fields: dict[str, dict[str, Any]] = {
        "tenant_list": {"start": 0},
        "network_delete": {"name": "lan"},
        "driver_restart": {"name": "net0", "timeout_ms": 1},
    }
    reply = Operator(host).ask(kind, **fields[kind])
    assert (reply.kind, reply.fields.errno) == ("error", EPERM)


def test_a_stream_becomes_the_console_of_a_guest() -> None:
    host = TenantsHost()
    operator = Operator(host)
    domid = operator.ask("guest_create", **host.create_fields()).fields.domid
    assert operator.ask("guest_console", name="nobody", what="log").kind == "error"
    assert operator.ask("guest_console", name="web", what="console").kind == "done"
    attach = host.answers[1, 0]
    assert (attach.kind, attach.fields.domid, attach.fields.what) == ("attach", domid, "console")
    assert host.told_before == b"" and host.hung_up == [1]


# the host's Toolstack


def with_tenant() -> Host:
    host = Host(TENANT)
    host.fake.late["tenant-acme"] = ACME
    host.run()
    return host


def tenant(host: Host) -> Any:
    (row,) = host.ask("tenant_list", start=0).fields.tenants
    return row


def test_tenants_are_built_when_the_host_starts() -> None:
    host = with_tenant()
    row = tenant(host)
    assert (row.name, row.domid, row.state, row.restarts, row.note) == ("acme", ACME, "ready", 0, "")
    assert (row.max_guests, row.max_memory_kib, row.max_vcpus) == (3, 65536, 2)
    assert host.fake.built == {ACME: "running"}
    assert host.as_domain(99).read(f"/local/domain/{ACME}/name") == b"tenant-acme"


def test_what_a_tenant_has_is_what_builder_says() -> None:
    host = with_tenant()
    row = tenant(host)
    assert (row.guests, row.memory_kib, row.vcpus) == (1, 4096, 1)
    host.fake.domains[40] = "running"
    host.fake.parents[40] = "tenant-acme"
    shown = {entry.id: entry.owner for entry in host.ask("ps", start=0).fields.objects}
    assert shown[40] == "tenant-acme" and shown[TOOLSTACK] == ""
    policies = {entry.id: entry.policy for entry in host.ask("ps", start=0).fields.objects}
    assert policies[ACME] == "built anew after use and 3600 s" and policies[40] == ""


def test_one_that_ends_is_built_again_but_not_for_ever() -> None:
    host = with_tenant()
    host.now += 60_000
    host.fake.stop(ACME, "crash")
    host.run()
    row = tenant(host)
    assert (row.state, row.restarts) == ("ready", 1)
    for _ in range(3):
        host.fake.stop(ACME, "crash")
        host.run()
    row = tenant(host)
    assert (row.state, row.restarts) == ("failed", 3)
    assert "crash, 3 times right after its start" in row.note


@pytest.mark.parametrize("step", ["build_shard", "unpause"])
def test_one_that_can_not_be_built_says_why(step: str) -> None:
    host = Host(TENANT)
    host.fake.late["tenant-acme"] = ACME
    host.fake.fail = {step}
    host.run()
    row = tenant(host)
    assert row.state == "failed" and f"{step} fails in this test" in row.note


def asked(host: Host, kind: str) -> int:
    return host.fake.requests.count(kind)


def test_one_that_ends_when_its_time_is_over_is_built_again() -> None:
    host = with_tenant()
    for times in range(1, 6):
        host.now += 60_000
        host.fake.stop(ACME, "poweroff")
        host.run()
        row = tenant(host)
        assert (row.state, row.restarts, row.note, row.age_ms) == ("ready", 0, "", 0)  # none to worry about
        assert asked(host, "build_shard") == 1 + times
    assert not host.reports


def test_one_that_does_not_end_in_time_is_ended() -> None:
    host = with_tenant()
    host.now += 3_599_000
    host.run()
    assert tenant(host).restarts == 0 and host.toolstack.deadline_ms() == host.now + 1000
    host.roll_back()
    host.run()
    host.now += 1000
    host.run()
    assert (tenant(host).state, tenant(host).restarts) == ("ready", 1)
    assert any("did not end after 3600 s" in line for line in host.reports)
    assert host.toolstack.deadline_ms() == host.now + 3_600_000


def test_an_end_that_a_new_life_hears_of_twice_is_one() -> None:
    host = with_tenant()
    host.now += 60_000
    host.run()
    assert host.toolstack.idle
    host._wake_up()
    host.fake.stop(ACME, "crash")  # it waits in the link, and Builder's list says it, too
    host.toolstack.begin(at_rest=True)
    host.woken = True
    host.run()
    assert (tenant(host).state, tenant(host).restarts) == ("ready", 1)
    assert asked(host, "destroy") == 1 and asked(host, "build_shard") == 2


@pytest.mark.parametrize("step", ["destroy", "build_shard", "unpause"])
def test_one_that_was_being_built_when_builder_began_anew_is_built(step: str) -> None:
    host = with_tenant()
    host.now += 60_000
    host.fake.hold = {step}
    host.fake.stop(ACME, "crash")
    host.run()
    assert tenant(host).state == "building" and host.fake.held
    host.fake.held.clear()
    host.fake.hold.clear()
    host.toolstack.builder_renewed()
    host.run()
    assert tenant(host).state == "ready" and host.fake.built == {ACME: "running"}


@pytest.mark.parametrize("times", [1, 30])
def test_one_that_builder_is_destroying_is_waited_for(times: int) -> None:
    host = with_tenant()
    host.now += 60_000
    host.fake.busy = times
    host.fake.stop(ACME, "crash")
    for _ in range(times):
        host.run()
        host.now += 1000
    host.run()
    row = tenant(host)
    assert row.state == ("ready" if times == 1 else "failed")
    assert times == 1 or "is being destroyed already" in row.note
