"""The shard's core: Builder's introductions, rings full of anything, bugs that stay with one client."""

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from two_domains import LogicDomain

from xoar.messages.channel import Channel
from xoar.shards.xenstore.store import MAX_DOMAINS, Store
from xoar.xen.ring import ByteRing, SharedPage, xenstore_rings
from xoar.xenstore import paths, wire
from xoar.xenstore.client import Client, reconnect
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import Gate
from xoar.xenstore.request import Request
from xoar.xenstore.server import Direct

MANAGER = 4


def new_page() -> SharedPage:
    data = memoryview(bytearray(4096))
    return SharedPage(data, data.cast("I"))


class Transport:
    def __init__(self, page: SharedPage, port: int) -> None:
        self.page = page
        self.port = port
        self.signals = 0
        self.closed = False

    def notify(self) -> None:
        self.signals += 1

    def close(self) -> None:
        self.closed = True


class Machine:
    """A store, the pages of its clients, and Builder's link to it."""

    def __init__(self, remote: LogicDomain | None = None) -> None:
        self.remote = remote
        self.transports: dict[int, Transport] = {}
        self.log: list[str] = []
        logic = remote.link if remote else Direct()
        self.store = Store(self.connect, logic, report=self.log.append)
        self.store.server.domains.managers.add(MANAGER)  # no domain of a host is one
        if remote:
            remote.attach(self.store.server)
        self.manager = self.client(MANAGER)
        requests, replies = xenstore_rings(new_page())
        self.builder = Channel(replies, requests, lambda: None, "xenstore", "builder")
        self.introductions = Channel(requests, replies, lambda: None, "builder", "xenstore")

    def connect(self, domid: int, gref: int, port: int) -> Transport:
        if gref != 1:
            raise OSError(errno.EACCES, "no such grant")
        self.transports[domid] = Transport(new_page(), port)
        return self.transports[domid]

    def client(self, domid: int) -> Client:
        """Introduces a domain, and is it."""
        self.store.introduce(domid, 1, domid)
        return self.reopened(domid)

    def reopened(self, domid: int) -> Client:
        to_server, to_client = xenstore_rings(self.transports[domid].page)
        return Client(to_client, to_server, lambda: None, lambda: self.run(domid))

    def run(self, *ports: int) -> None:
        self.store.turn(list(ports))
        while self._settled() or self.store.turn([]):
            pass

    def _settled(self) -> bool:
        """Lets a Logic elsewhere answer; whether it has."""
        busy = self.remote is not None and self.store.server.outstanding != 0
        if self.remote:
            self.remote.settle()
        return busy

    def ask(self, kind: str, **fields: Any) -> tuple[str, int]:
        """Builder's request, and the kind and error number of the answer."""
        assert self.builder.send(kind, 9, **fields)
        for message in self.introductions.receive():
            self.store.introduction(self.introductions, message)
        (answer,) = self.builder.receive()
        assert answer.id == 9
        return answer.kind, getattr(answer.fields, "errno", 0)

    def introduce(self, domid: int, **changes: Any) -> tuple[str, int]:
        """Builder introduces a guest."""
        fields = {"link": "xenstore", "name": "", "parent": 0, "uuid": bytes(16), "gref": 1, "port": domid}
        return self.ask("introduce", domid=domid, **{**fields, **changes})

    def alive(self) -> bool:
        """Whether others are served."""
        self.manager.write("/alive", "yes")
        return self.manager.read("/alive") == b"yes" and self.store.server.contents.problems() == []


def test_builder_introduces_and_releases_guests() -> None:
    machine = Machine()
    assert machine.introduce(7) == ("done", 0)
    assert machine.introduce(7) == ("error", errno.EEXIST)
    machine.reopened(7).watch("data", "t")
    assert machine.ask("release", domid=7) == ("done", 0)
    assert machine.transports[7].closed
    assert machine.ask("release", domid=7) == ("error", errno.ENOENT)
    assert machine.introduce(8, gref=2) == ("error", errno.EACCES)
    assert machine.alive()


def test_there_is_a_limit_to_the_number_of_domains() -> None:
    machine = Machine()
    for domid in range(5, 5 + MAX_DOMAINS - 1):
        assert machine.introduce(domid) == ("done", 0)
    assert machine.introduce(999) == ("error", errno.ENOSPC)


def test_what_builder_says_of_stopped_domains_reaches_who_watches() -> None:
    machine = Machine()
    machine.client(7)
    machine.manager.watch("@releaseDomain", "t")
    machine.manager.take_event()
    assert machine.builder.send("stopped", 0, domid=7, reason="crash")
    for message in machine.introductions.receive():
        machine.store.introduction(machine.introductions, message)
    machine.run()
    machine.manager.poll()
    assert machine.manager.take_event() == ("@releaseDomain", "t")


def test_xenstore_clients_can_not_introduce_anybody() -> None:
    machine = Machine()
    for kind, payload in ((wire.INTRODUCE, b"9\x001\x009\0"), (wire.RELEASE, b"4\0")):
        number = machine.manager.request(kind, payload)
        machine.run(MANAGER)
        machine.manager.poll()
        with pytest.raises(Refused, match="EACCES"):
            machine.manager.take_reply(number)
    assert 9 not in machine.transports


@pytest.mark.parametrize("after", [0, 1, 3])
def test_logic_may_be_elsewhere_and_be_rolled_back(after: int) -> None:
    machine = Machine(LogicDomain(after))
    guest = machine.client(7)
    machine.manager.mkdir("/local/domain/7")
    machine.manager.set_perms("/local/domain/7", ["n7"])
    guest.watch("data", "t")
    # more than the ring holds, sent without waiting for answers
    numbers = [guest.request(wire.WRITE, b"data/%d\0" % number + bytes(300)) for number in range(30)]
    machine.run(7)
    for number in numbers:
        while (reply := guest.take_reply(number)) is None:
            assert guest.poll(), "neither side has anything to do"
            machine.run(7)
        assert reply == b"OK\0"
    assert sorted(guest.directory("data")) == sorted(str(number) for number in range(30))
    seen = {guest.take_event() for _ in range(31)}
    assert seen == {("data", "t")} | {(f"data/{number}", "t") for number in range(30)}
    assert machine.alive()


def test_a_client_that_floods_a_logic_elsewhere_is_bounded() -> None:
    machine = Machine(LogicDomain())
    client = machine.client(7)
    to_server, _ = xenstore_rings(machine.transports[7].page)
    taken = 0
    while to_server.writable() >= 20:
        taken += to_server.write(wire.encode(wire.READ, 1, 0, b"a\0"))
        machine.store.turn([7])
        assert taken < 100_000
    assert machine.store.server.connections[7]._decoder.waiting < 2 * wire.MESSAGE_MAX  # type: ignore[union-attr]
    machine.run(7)
    assert machine.alive()
    assert client.poll()


def test_a_ring_left_full_while_logic_was_busy_is_read_on_without_a_signal() -> None:
    machine = Machine(LogicDomain())
    client = machine.client(7)
    for _ in range(3):
        client.request(wire.WRITE, b"a\0" + bytes(4000))
    # Logic sleeps, so some of the third request stays in the ring
    machine.store.turn([7])
    while client.poll():
        machine.store.turn([7])
    to_server, _ = xenstore_rings(machine.transports[7].page)
    assert to_server.readable() == 1024
    machine._settled()
    while machine.store.turn([]) or machine._settled():
        pass
    assert to_server.readable() == 0


def test_a_bug_in_one_request_stops_that_client_only() -> None:
    machine = Machine()
    victim = machine.client(7)
    logic = machine.store.server.logic
    original = logic.hand

    def hand(gate: Gate, request: Request) -> None:
        if request.asked.domid == 7:
            raise ZeroDivisionError("planted")
        original(gate, request)

    logic.hand = hand  # type: ignore[method-assign]
    victim.request(wire.READ, b"/\0")
    machine.run(7)
    assert machine.transports[7].page.words[2072 // 4] == 1
    assert "planted" in machine.log[0]
    assert machine.alive()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["words"]), st.integers(512, 519), st.integers(0, 0xFFFFFFFF)),
            st.tuples(st.sampled_from(["bytes"]), st.integers(0, 2047), st.binary(max_size=64)),
            st.tuples(st.sampled_from(["request"]), st.integers(0, 24), st.binary(max_size=64)),
            st.tuples(st.sampled_from(["reconnect"]), st.just(0), st.just(0)),
        ),
        max_size=30,
    )
)
def test_whatever_is_in_a_page_others_are_served(
    steps: list[tuple[str, int, int | bytes]],
) -> None:
    machine = Machine()
    machine.client(7)
    page = machine.transports[7].page
    for what, place, value in steps:
        if what == "words" and isinstance(value, int):
            page.words[place] = value
        elif what == "bytes" and isinstance(value, bytes):
            page.bytes[place : place + len(value)] = value
        elif what == "request" and isinstance(value, bytes):
            _force(xenstore_rings(page)[0], page, wire.encode(place, 1, 0, value))
        else:
            page.words[2068 // 4] = 1
        machine.run(7)
    assert machine.alive()
    page.words[2068 // 4] = 1
    machine.run(7)
    assert page.words[2072 // 4] == 0
    assert machine.reopened(7).call(wire.GET_DOMAIN_PATH, b"7\0") == b"/local/domain/7\0"


def _force(ring: ByteRing, page: SharedPage, data: bytes) -> None:
    """Puts a request into the ring if its indices make sense."""
    if (page.words[2052 // 4] - page.words[2048 // 4]) & 0xFFFFFFFF <= 1024:
        ring.write(data)


TOOLSTACK, OTHER, GUEST, TENANT = 20, 21, 40, 50
MEMORY = "/memory/50"
UUID = bytes(range(16))
OF_A_GUEST = [(str(name, "ascii"), writes) for name, writes in paths.OF_A_GUEST]
HOME, VM = "/local/domain/40", "/vm/00010203-0405-0607-0809-0a0b0c0d0e0f"


def with_guest() -> tuple[Machine, Client, Client, Client]:
    """Two Toolstacks, of which the first has a guest, and the guest."""
    machine = Machine()
    first, other = machine.client(TOOLSTACK), machine.client(OTHER)
    assert machine.introduce(GUEST, parent=TOOLSTACK, uuid=UUID) == ("done", 0)
    return machine, first, other, machine.reopened(GUEST)


def refusal(function: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as caught:
        function(*arguments)
    return caught.value.name


def test_the_records_of_a_guest_are_its_toolstacks_and_nobody_elses() -> None:
    machine, toolstack, other, guest = with_guest()
    for path in (HOME, VM):
        toolstack.write(f"{path}/name", "web")
        assert guest.read(f"{path}/name") == b"web"
        for stranger in (other, guest):
            assert refusal(stranger.write, f"{path}/name", "mine") == "EACCES"
            assert refusal(stranger.rm, path) == "EACCES"
        assert refusal(other.read, f"{path}/name") == "EACCES"
        assert refusal(other.directory, path) == "EACCES"
    for path in ("/local/domain/41", "/vm/x", "/local/domain/21/name", "/tool/x"):
        assert refusal(toolstack.write, path, "mine") == "EACCES"
    assert machine.alive()


def test_a_guest_writes_to_what_is_its_own_and_the_toolstack_too() -> None:
    machine, toolstack, other, guest = with_guest()
    for name, writes in OF_A_GUEST:
        path = f"{HOME}/{name}"
        assert guest.read(path) == b""
        toolstack.write(path, "asked")
        assert refusal(other.write, path, "mine") == "EACCES"
        if writes:
            guest.write(path, "done")
            guest.write(f"{path}/below", "more")
            toolstack.rm(f"{path}/below")
        else:
            assert refusal(guest.write, path, "mine") == "EACCES"
            assert refusal(guest.write, f"{path}/more", "mine") == "EACCES"
    assert toolstack.get_perms(f"{HOME}/data") == [f"n{TOOLSTACK}", f"b{GUEST}", f"b{TOOLSTACK}"]
    assert machine.alive()


def test_records_start_empty_whatever_an_earlier_domain_left() -> None:
    machine, toolstack, _, _ = with_guest()
    toolstack.write(f"{HOME}/data/secret", "x")
    assert machine.ask("release", domid=GUEST) == ("done", 0)
    assert machine.introduce(GUEST, parent=OTHER, uuid=UUID) == ("done", 0)
    other = machine.reopened(OTHER)
    assert sorted(other.directory(HOME)) == sorted({name.split("/")[0] for name, _ in OF_A_GUEST})
    assert other.directory(f"{HOME}/data") == []
    assert refusal(toolstack.read, HOME) == "EACCES"


def test_records_go_with_their_guest_and_who_watches_them_hears_it() -> None:
    machine, toolstack, _, _ = with_guest()
    toolstack.write(f"{HOME}/device/vbd/51712/state", "4")
    toolstack.set_perms(f"{HOME}/device/vbd/51712/state", [f"n{TOOLSTACK}", f"r{OTHER}"])
    back_end = machine.reopened(OTHER)
    back_end.watch(f"{HOME}/device/vbd/51712/state", "t")
    assert back_end.take_event() is not None
    assert machine.ask("release", domid=GUEST) == ("done", 0)
    machine.run(OTHER)
    back_end.poll()
    assert back_end.take_event() == (f"{HOME}/device/vbd/51712/state", "t")
    assert not machine.manager.exists(HOME) and not machine.manager.exists(VM)
    assert machine.alive()


def test_records_outlive_a_toolstack_for_the_next_one_of_its_domid() -> None:
    machine, toolstack, _, guest = with_guest()
    toolstack.write(f"{HOME}/name", "web")
    assert machine.ask("release", domid=TOOLSTACK) == ("done", 0)
    assert guest.read("name") == b"web"
    again = machine.client(TOOLSTACK)
    again.write(f"{HOME}/name", "new")
    assert guest.read("name") == b"new"
    assert machine.ask("release", domid=GUEST) == ("done", 0)
    assert machine.ask("release", domid=TOOLSTACK) == ("done", 0)
    assert machine.alive()
    assert not machine.manager.exists(HOME)


def test_each_guest_raises_the_quota_of_its_toolstack() -> None:
    machine, toolstack, _, _ = with_guest()
    machine.store.server.limits["nodes"] = 20

    def fill(path: str) -> int:
        for number in range(100):
            try:
                toolstack.write(f"{path}/{number}", "")
            except Refused as error:
                assert error.name == "ENOSPC"
                return number
        return 100

    assert fill(HOME) == 2 * 20 - 2 - len(OF_A_GUEST)
    assert machine.introduce(41, parent=TOOLSTACK) == ("done", 0)
    assert fill("/local/domain/41") == 20 - 1


def test_a_tenants_toolstack_has_a_memory_that_outlives_it_and_that_nobody_else_reads() -> None:
    machine = Machine()
    other = machine.client(OTHER)
    for value in ("first", "second"):
        assert machine.introduce(TENANT, parent=OTHER, name="tenant-acme") == ("done", 0)
        tenant = machine.reopened(TENANT)
        assert tenant.directory(MEMORY) == ([] if value == "first" else ["1"])
        tenant.write(f"{MEMORY}/1", value)
        assert refusal(other.read, f"{MEMORY}/1") == refusal(other.directory, MEMORY) == "EACCES"
        assert refusal(other.write, f"{MEMORY}/2", "mine") == "EACCES"
        assert machine.ask("release", domid=TENANT) == ("done", 0)
    assert machine.introduce(GUEST, parent=OTHER, uuid=UUID) == ("done", 0)
    assert refusal(machine.reopened(GUEST).directory, f"/memory/{GUEST}") == "EACCES"
    assert machine.alive()


def test_who_reconnects_has_nothing_on_its_way() -> None:
    machine = Machine()
    client = machine.client(GUEST)
    machine.manager.write("/shared", "x")
    machine.manager.set_perms("/shared", ["n0", f"r{GUEST}"])
    client.watch("/shared", "old")
    client.request(wire.READ, b"/shared\0")
    reconnect(machine.transports[GUEST].page, lambda: None, lambda: machine.run(GUEST))
    machine.manager.write("/shared", "y")
    again = machine.reopened(GUEST)
    assert again.read("/shared") == b"y" and again.take_event() is None
