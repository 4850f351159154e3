"""Requests one by one, where the model does not reach: errors, privilege, domains, watches' fine print."""

import pytest
from xenstore_peer import Peer, new_server

from xoar.xenstore import wire
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import Host
from xoar.xenstore.server import Server

MANAGER_ONLY = (
    (wire.CONTROL, b"help"),
    (wire.INTRODUCE, b"5", b"1", b"1"),
    (wire.RELEASE, b"5"),
    (wire.IS_DOMAIN_INTRODUCED, b"5"),
    (wire.RESUME, b"5"),
    (wire.SET_TARGET, b"5", b"6"),
)


@pytest.fixture
def server() -> Server:
    return new_server()


@pytest.fixture
def manager(server: Server) -> Peer:
    return Peer(server.introduce(0))


def guest(server: Server, manager: Peer, domid: int) -> Peer:
    home = b"/local/domain/%d" % domid
    peer = Peer(server.introduce(domid))
    manager.call(wire.MKDIR, home)
    manager.call(wire.SET_PERMS, home, b"n%d" % domid)
    return peer


@pytest.mark.parametrize("request_words", MANAGER_ONLY)
def test_guests_may_not_do_what_is_for_managers(
    server: Server, manager: Peer, request_words: tuple[int, bytes]
) -> None:
    kind, *words = request_words
    assert guest(server, manager, 5).refusal(kind, *words) == "EACCES"


@pytest.mark.parametrize("kind", [wire.WATCH_EVENT, wire.ERROR, 20, 23, 0xFFFF, 0xFFFFFFFF])
def test_unknown_requests_are_answered(manager: Peer, kind: int) -> None:
    assert manager.refusal(kind) == "ENOSYS"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (wire.READ, ()),
        (wire.READ, (b"/a", b"/b")),
        (wire.READ, (b"/a//b",)),
        (wire.READ, (b"@releaseDomain",)),
        (wire.RM, (b"/",)),
        (wire.SET_PERMS, (b"/",)),
        (wire.SET_PERMS, (b"/", b"x0")),
        (wire.SET_PERMS, (b"@nothing", b"n0")),
        (wire.DIRECTORY_PART, (b"/", b"-1")),
        (wire.WATCH, (b"/",)),
        (wire.WATCH, (b"/", b"t", b"deep")),
        (wire.WATCH, (b"@releaseDomain", b"t", b"2")),
        (wire.TRANSACTION_END, (b"X",)),
        (wire.RELEASE, (b"0",)),
        (wire.INTRODUCE, (b"5", b"1", b"0")),
        (wire.INTRODUCE, (b"32752", b"1", b"1")),
        (wire.CONTROL, (b"nonsense",)),
        (wire.GET_DOMAIN_PATH, (b"x",)),
    ],
)
def test_malformed_requests_are_refused(manager: Peer, kind: int, words: tuple[bytes, ...]) -> None:
    assert manager.refusal(kind, *words) == "EINVAL"


def test_transactions_that_do_not_exist(manager: Peer) -> None:
    assert manager.refusal(wire.READ, b"/", transaction=9) == "ENOENT"
    assert manager.refusal(wire.TRANSACTION_END, b"T") == "ENOENT"
    number = int(manager.call(wire.TRANSACTION_START, b"")[:-1])
    assert manager.refusal(wire.TRANSACTION_START, b"", transaction=number) == "EBUSY"
    manager.call(wire.TRANSACTION_END, b"F", transaction=number)
    assert manager.refusal(wire.READ, b"/", transaction=number) == "ENOENT"


def test_a_transaction_belongs_to_its_connection(server: Server, manager: Peer) -> None:
    number = int(manager.call(wire.TRANSACTION_START, b"")[:-1])
    other = Peer(server.connect(0))
    assert other.refusal(wire.READ, b"/", transaction=number) == "ENOENT"


def test_reset_watches_drops_watches_and_transactions(server: Server, manager: Peer) -> None:
    number = int(manager.call(wire.TRANSACTION_START, b"")[:-1])
    manager.call(wire.WATCH, b"/a", b"t")
    manager.call(wire.RESET_WATCHES, b"")
    manager.events()
    manager.call(wire.WRITE, b"/a", tail=b"1")
    assert manager.events() == []
    assert manager.refusal(wire.READ, b"/", transaction=number) == "ENOENT"


def test_watches_with_a_depth_see_no_deeper(manager: Peer) -> None:
    for depth in (b"0", b"1"):
        manager.call(wire.WATCH, b"/a", depth, depth)
    manager.events()
    for path, seen in ((b"/a", [b"0", b"1"]), (b"/a/b", [b"1"]), (b"/a/b/c", [])):
        manager.call(wire.WRITE, path, tail=b"")
        assert sorted(token for _, token in manager.events()) == seen


def test_special_watches_for_one_domain_and_with_its_number(server: Server, manager: Peer) -> None:
    manager.call(wire.WATCH, b"@releaseDomain", b"any")
    manager.call(wire.WATCH, b"@releaseDomain", b"which", b"1")
    manager.call(wire.WATCH, b"@releaseDomain/6", b"six")
    for domid in (5, 6):
        server.introduce(domid)
    manager.events()
    server.stopped(5)
    assert manager.events() == [(b"@releaseDomain", b"any"), (b"@releaseDomain/5", b"which")]
    server.release(6)
    assert (b"@releaseDomain/6", b"six") in manager.events()


def test_a_stopped_domain_is_announced_again_after_resume(server: Server, manager: Peer) -> None:
    server.introduce(5)
    manager.call(wire.WATCH, b"@releaseDomain", b"t")
    manager.events()
    for expected in (1, 0):
        server.stopped(5)
        assert len(manager.events()) == expected
    manager.call(wire.RESUME, b"5")
    server.stopped(5)
    assert len(manager.events()) == 1


def test_domains_are_introduced_and_released_by_managers(server: Server, manager: Peer) -> None:
    assert manager.call(wire.IS_DOMAIN_INTRODUCED, b"5") == b"F\0"
    manager.call(wire.INTRODUCE, b"5", b"-1", b"3")
    assert manager.call(wire.IS_DOMAIN_INTRODUCED, b"5") == b"T\0"
    manager.call(wire.RELEASE, b"5")
    assert manager.refusal(wire.RELEASE, b"5") == "ENOENT"
    assert manager.call(wire.GET_DOMAIN_PATH, b"005") == b"/local/domain/5\0"


def test_the_host_may_refuse_introductions() -> None:
    class Strict(Host):
        def introduce(self, domid: int, port: int) -> None:
            raise Refused("EACCES")

    server = new_server(Strict())
    manager = Peer(server.introduce(0))
    assert manager.refusal(wire.INTRODUCE, b"5", b"1", b"1") == "EACCES"
    assert manager.call(wire.IS_DOMAIN_INTRODUCED, b"5") == b"F\0"


def test_a_device_model_may_do_what_its_target_may(server: Server, manager: Peer) -> None:
    target, model = guest(server, manager, 5), Peer(server.introduce(6))
    target.call(wire.WRITE, b"x", tail=b"1")
    assert model.refusal(wire.READ, b"/local/domain/5/x") == "EACCES"
    manager.call(wire.SET_TARGET, b"6", b"5")
    assert model.call(wire.READ, b"/local/domain/5/x") == b"1"
    server.release(5)
    guest(server, manager, 5).call(wire.WRITE, b"x", tail=b"2")
    assert model.refusal(wire.READ, b"/local/domain/5/x") == "EACCES"


def test_a_manager_that_died_leaves_no_privilege_behind(server: Server, manager: Peer) -> None:
    server.domains.managers.add(4)
    assert Peer(server.introduce(4)).refusal(wire.CONTROL, b"check") is None
    server.release(4)
    assert Peer(server.introduce(4)).refusal(wire.CONTROL, b"check") == "EACCES"


def test_directory_parts_make_up_the_whole_list(manager: Peer) -> None:
    names = sorted(b"name-of-a-child-%d" % number for number in range(400))
    for name in names:
        manager.call(wire.MKDIR, b"/d/" + name)
    assert manager.refusal(wire.DIRECTORY, b"/d") == "E2BIG"
    listed = b""
    generations = set()
    while not listed.endswith(b"\0\0"):
        part = manager.call(wire.DIRECTORY_PART, b"/d", b"%d" % len(listed))
        assert len(part) <= wire.PAYLOAD_MAX
        generation, _, rest = part.partition(b"\0")
        generations.add(generation)
        listed += rest
    assert sorted(listed[:-2].split(b"\0")) == names
    assert len(generations) == 1
    assert manager.call(wire.DIRECTORY_PART, b"/d", b"999999") == generations.pop() + b"\0\0"


def test_control_check_logs_what_is_wrong() -> None:
    class Logging(Host):
        lines: list[str]

        def log(self, text: str) -> None:
            self.lines.append(text)

    host = Logging()
    host.lines = []
    server = new_server(host)
    manager = Peer(server.introduce(0))
    manager.call(wire.WRITE, b"/a/b", tail=b"")
    manager.call(wire.CONTROL, b"check")
    assert host.lines == []
    del server.contents._nodes[b"/a/b"]
    manager.call(wire.CONTROL, b"check")
    assert any("/a has no node for its child b" in line for line in host.lines)
    manager.call(wire.CONTROL, b"print", b"a\x1b[31m")
    assert host.lines[-1] == "xenstore: control: a?[31m"


def test_a_client_that_stops_reading_is_bounded_and_loses_no_change(server: Server, manager: Peer) -> None:
    server.limits["output"] = 2000
    client = guest(server, manager, 5)
    client.call(wire.WATCH, b"d", b"t")
    client.events()
    for number in range(500):
        manager.call(wire.WRITE, b"/local/domain/5/d/%d" % number, tail=b"")
        manager.call(wire.WRITE, b"/local/domain/5/d/0", tail=b"%d" % number)
    assert client.connection._queued <= 2000
    events = client.events()
    assert events[-1] == (b"d", b"t")
    assert len(events) < 100
