"""XenStore's server, rings and client as nano shards run them (CPython and MicroPython)."""

from xoar.shards.xenstore.store import Store
from xoar.xen import ring
from xoar.xenstore import wire
from xoar.xenstore.client import Client
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import Refused
from xoar.xenstore.quotas import quotas
from xoar.xenstore.server import Direct, Server

MANAGER = 4


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


class Transport:
    def __init__(self, page, port):
        self.page = page
        self.port = port
        self.signals = 0
        self.closed = False

    def notify(self):
        self.signals += 1

    def close(self):
        self.closed = True


class Machine:
    """A store whose clients' pages live in this process; `turn` stands for its sleep and wake-up."""

    def __init__(self):
        self.pages = {}
        self.transports = {}
        self.log = []
        self.store = Store(self.connect, Direct(), report=self.log.append)
        self.store.server.domains.managers.add(MANAGER)  # no domain of a host is one

    def connect(self, domid, gref, port):
        self.pages.setdefault(domid, shared_page())
        self.transports[domid] = Transport(self.pages[domid], port)
        return self.transports[domid]

    def add(self, domid):
        self.store.introduce(domid, 1, domid)
        to_server, to_client = ring.xenstore_rings(self.pages[domid])
        return Client(to_client, to_server, lambda: None, lambda: self.run(domid))

    def run(self, domid):
        while self.store.turn([domid]):
            pass


def machine():
    host = Machine()
    return host, host.add(MANAGER)


def refusal(function, *arguments):
    try:
        function(*arguments)
    except Refused as error:
        return error.name
    return None


def guest(host, manager, domid):
    client = host.add(domid)
    home = f"/local/domain/{domid}"
    manager.mkdir(home)
    manager.set_perms(home, [f"n{domid}"])
    return client


def events(client):
    found = []
    while client.poll():
        pass
    while True:
        event = client.take_event()
        if event is None:
            return found
        found.append(event)


def test_what_is_written_is_read():
    _, manager = machine()
    manager.write("/vm/7/name", "web")
    assert manager.read("/vm/7/name") == b"web"
    assert manager.read("/vm/7") == b""
    assert manager.directory("/vm/7") == ["name"]
    manager.rm("/vm/7")
    assert refusal(manager.read, "/vm/7/name") == "ENOENT"
    assert not manager.exists("/vm/7")


def test_large_values_pass_rings_that_are_smaller():
    _, manager = machine()
    manager.write("/large", b"x" * 4000)
    assert manager.read("/large") == b"x" * 4000


def test_a_directory_longer_than_a_message_is_listed_in_parts():
    _, manager = machine()
    names = [f"a-rather-long-name-of-a-node-{number}" for number in range(200)]
    for name in names:
        manager.mkdir("/many/" + name)
    assert sorted(manager.directory("/many")) == sorted(names)


def test_guests_reach_their_own_nodes_by_relative_paths_and_no_others():
    host, manager = machine()
    first, second = guest(host, manager, 5), guest(host, manager, 6)
    first.write("data/x", "1")
    assert manager.read("/local/domain/5/data/x") == b"1"
    assert manager.get_perms("/local/domain/5/data/x") == ["n5"]
    assert refusal(second.read, "/local/domain/5/data/x") == "EACCES"
    assert refusal(second.read, "/local/domain/5/nothing") == "EACCES"
    assert refusal(second.write, "/vm/x", "") == "EACCES"
    assert refusal(first.set_perms, "data/x", ["n6"]) == "EPERM"
    first.set_perms("data/x", ["n5", "r6"])
    assert second.read("/local/domain/5/data/x") == b"1"
    assert refusal(second.write, "/local/domain/5/data/x", "2") == "EACCES"


def test_watches_fire_once_and_then_for_what_is_below():
    host, manager = machine()
    client = guest(host, manager, 5)
    client.watch("device", "token")
    client.watch("/local/domain/5/device/vif", "absolute")
    events(client)
    manager.write("/local/domain/5/device/vif/0", "")
    host.run(5)
    assert sorted(events(client)) == [("/local/domain/5/device/vif/0", "absolute"), ("device/vif/0", "token")]
    manager.rm("/local/domain/5/device")
    host.run(5)
    assert sorted(events(client)) == [("/local/domain/5/device/vif", "absolute"), ("device", "token")]
    client.unwatch("device", "token")
    assert refusal(client.unwatch, "device", "token") == "ENOENT"


def test_watch_events_queue_up_while_a_request_waits():
    _, manager = machine()
    manager.watch("/x", "x")
    manager.write("/x/y", "1")
    assert manager.read("/x/y") == b"1"
    assert manager.take_event() == ("/x", "x")
    assert manager.take_event() == ("/x/y", "x")
    assert manager.take_event() is None


def test_domains_that_come_and_go_are_announced_to_who_may_know():
    host, manager = machine()
    client = guest(host, manager, 5)
    for who in (manager, client):
        who.watch("@introduceDomain", "in")
        who.watch("@releaseDomain", "out")
        events(who)
    host.add(6)
    host.store.server.stopped(6)
    host.store.server.stopped(6)
    host.run(0)
    assert events(manager) == [("@introduceDomain", "in"), ("@releaseDomain", "out")]
    assert events(client) == []
    manager.set_perms("@releaseDomain", ["n0", "r5"])
    host.store.server.release(6)
    host.run(0)
    assert events(client) == [("@releaseDomain", "out")]


def test_nothing_of_a_dead_domain_is_inherited():
    host, manager = machine()
    guest(host, manager, 5).write("data", "secret")
    manager.write("/shared", "x")
    manager.set_perms("/shared", ["n0", "b5"])
    host.store._release(5)
    assert host.transports[5].closed
    assert not manager.exists("/local/domain/5")
    assert manager.get_perms("/shared") == ["n0"]
    heir = host.add(5)
    assert refusal(heir.read, "/shared") == "EACCES"
    assert host.store.server.contents.problems() == []


# The examples at the top of Xen 4.17's tools/xenstore/xenstored_transaction.c


def nodes_a_and_b():
    _, manager = machine()
    manager.write("/A", "a")
    manager.write("/B", "b")

    def begin():
        return int(manager.call(wire.TRANSACTION_START, b"\0")[:-1])

    def end(transaction):
        return refusal(manager.call, wire.TRANSACTION_END, b"T\0", transaction)

    return manager, begin, end


def test_conflict_example_1_simple_transaction():
    manager, begin, end = nodes_a_and_b()
    one = begin()
    manager.read("/A", one)
    manager.write("/B", "1", one)
    assert manager.read("/B") == b"b"
    assert end(one) is None
    assert manager.read("/B") == b"1"


def test_conflict_example_2_conflicting_write():
    manager, begin, end = nodes_a_and_b()
    one = begin()
    manager.read("/A", one)
    manager.write("/A", "other")
    manager.write("/B", "1", one)
    assert end(one) == "EAGAIN"
    assert manager.read("/B") == b"b"


def test_conflict_example_3_conflicting_delete():
    manager, begin, end = nodes_a_and_b()
    one = begin()
    manager.read("/A", one)
    manager.rm("/A")
    manager.write("/B", "1", one)
    assert end(one) == "EAGAIN"


def test_conflict_example_4_two_interfering_transactions():
    manager, begin, end = nodes_a_and_b()
    one, two = begin(), begin()
    manager.read("/A", one)
    manager.read("/B", two)
    manager.write("/B", "1", one)
    manager.write("/A", "2", two)
    assert end(one) is None
    assert end(two) == "EAGAIN"
    assert (manager.read("/A"), manager.read("/B")) == (b"a", b"1")


def test_a_transaction_sees_a_node_as_it_saw_it_first():
    manager, begin, end = nodes_a_and_b()
    one = begin()
    assert manager.read("/A", one) == b"a"
    manager.write("/A", "other")
    assert manager.read("/A", one) == b"a"
    assert end(one) == "EAGAIN"


def test_writes_alone_never_conflict():
    manager, begin, end = nodes_a_and_b()
    one, two = begin(), begin()
    manager.write("/dir/1", "1", one)
    manager.write("/dir/2", "2", two)
    manager.write("/dir/3", "3")
    assert end(one) is None and end(two) is None
    assert sorted(manager.directory("/dir")) == ["1", "2", "3"]


def test_a_transaction_is_tried_again_when_others_interfere():
    _, manager = machine()
    manager.write("/n", "0")
    tries = []

    def increment(transaction):
        value = int(manager.read("/n", transaction))
        if not tries:
            manager.write("/n", "10")
        tries.append(value)
        manager.write("/n", str(value + 1), transaction)
        return value

    assert manager.transaction(increment) == 10
    assert manager.read("/n") == b"11" and tries == [0, 10]


# A client that misbehaves harms itself only


def test_impossible_indices_stop_the_connection_until_it_reconnects():
    host, manager = machine()
    client = guest(host, manager, 5)
    client.watch("data", "t")
    words = host.pages[5].words
    words[2052 // 4] = words[2048 // 4] + 1025
    host.run(5)
    assert words[2072 // 4] == 2
    assert len(host.log) == 1
    manager.write("/local/domain/5/data", "")
    words[2068 // 4] = 1
    host.run(5)
    assert words[2068 // 4] == 0 and words[2072 // 4] == 0
    again = client_of(host, 5)
    again.write("data", "2")
    assert manager.read("/local/domain/5/data") == b"2"
    assert events(again) == []


def client_of(host, domid):
    to_server, to_client = ring.xenstore_rings(host.pages[domid])
    return Client(to_client, to_server, lambda: None, lambda: host.run(domid))


def test_a_payload_that_is_too_long_stops_the_connection():
    host, manager = machine()
    guest(host, manager, 5)
    to_server, _ = ring.xenstore_rings(host.pages[5])
    to_server.write(wire.encode(wire.READ, 1, 0, b"")[:12] + b"\x01\x10\x00\x00")
    host.run(5)
    assert host.pages[5].words[2072 // 4] == 3
    manager.write("/x", "1")
    assert manager.read("/x") == b"1"


def test_garbage_in_a_page_harms_nobody_else():
    host, manager = machine()
    guest(host, manager, 5)
    page = host.pages[5]
    seed = 12345
    for _ in range(200):
        for position in range(0, 2076, 3):
            seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
            page.bytes[position] = seed >> 16 & 0xFF
        if seed & 1:
            page.words[2052 // 4] = (page.words[2048 // 4] + (seed >> 8 & 1023)) & 0xFFFFFFFF
            page.words[2060 // 4] = page.words[2056 // 4]
        host.run(5)
        manager.write("/alive", str(seed))
        assert manager.read("/alive") == b"%d" % seed
    assert len(host.log) <= 8
    assert host.store.server.contents.problems() == []


def test_a_client_that_reads_nothing_is_not_served_for_ever():
    host, manager = machine()
    guest(host, manager, 5)
    manager.write("/local/domain/5/big", b"x" * 4000)
    client = host.store.server.connections[5]
    to_server, _ = ring.xenstore_rings(host.pages[5])
    request = wire.encode(wire.READ, 1, 0, b"big\0")
    taken = 0
    for _ in range(1000):
        if to_server.writable() < len(request):
            break
        taken += to_server.write(request) == len(request)
        host.run(5)
    assert taken < 1000
    assert sum([len(message) for message in client._queue]) < 32 * 1024


def test_events_that_find_no_room_are_made_up_for():
    host, manager = machine()
    client = guest(host, manager, 5)
    client.watch("dir", "t")
    events(client)
    for number in range(1000):
        manager.write(f"/local/domain/5/dir/{number}", "")
    assert host.store.server.connections[5]._queued <= 16 * 1024
    seen = []
    for _ in range(200):
        seen += events(client)
        host.run(5)
    assert seen[-1] == ("dir", "t")
    assert len(seen) < 1000


def test_quotas_hold_for_guests():
    limits = quotas(nodes=10, memory=4000, watches=2, transactions=1, buffers=3000)
    server = Server(Domains({MANAGER}), limits)
    manager, client = server.introduce(MANAGER), server.introduce(5)

    def call(connection, kind, payload, transaction=0):
        connection.receive(wire.encode(kind, 1, transaction, payload))
        while True:
            message = connection.output()
            connection.sent(len(message))
            if message[0] != wire.WATCH_EVENT:
                return message[16:]

    call(manager, wire.MKDIR, b"/d\0")
    call(manager, wire.SET_PERMS, b"/d\0n5\0")
    for number in range(9):
        assert call(client, wire.MKDIR, b"/d/%d\0" % number) == b"OK\0"
    assert call(client, wire.MKDIR, b"/d/9\0") == b"ENOSPC\0"
    assert call(client, wire.WRITE, b"/d/1\0" + b"x" * 2030) == b"ENOSPC\0"
    assert call(client, wire.WRITE, b"/d/1\0" + b"x" * 1400) == b"OK\0"
    assert call(client, wire.WRITE, b"/d/2\0" + b"x" * 1400) == b"ENOSPC\0"
    assert call(client, wire.SET_PERMS, b"/d\0n5\0r1\0r2\0r3\0r4\0r6\0") == b"ENOSPC\0"
    assert call(client, wire.WATCH, b"/d\0a\0") == b"OK\0"
    assert call(client, wire.WATCH, b"/d\0b\0") == b"OK\0"
    assert call(client, wire.WATCH, b"/d\0c\0") == b"E2BIG\0"
    assert call(client, wire.TRANSACTION_START, b"\0") == b"1\0"
    assert call(client, wire.TRANSACTION_START, b"\0") == b"ENOSPC\0"
    assert call(client, wire.READ, b"/d/1\0", 1) == b"x" * 1400
    assert call(client, wire.WRITE, b"/d/1\0" + b"y" * 1400, 1) == b"ENOSPC\0"
    assert call(client, wire.TRANSACTION_END, b"F\0", 1) == b"OK\0"
    assert server.contents.problems() == []
