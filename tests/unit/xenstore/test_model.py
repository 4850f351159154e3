"""The server against a simple model: nodes, access, transactions that are serializable, watches."""

from collections.abc import Callable
from copy import deepcopy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from xenstore_peer import Peer, new_server

from xoar.xenstore import wire
from xoar.xenstore.errors import Refused
from xoar.xenstore.gate import Gate

Perms = list[tuple[int, int]]
Event = tuple[str, list[Perms], dict[str, Perms]]
READ, WRITE, ALL = 1, 2, 7

NAMES = st.sampled_from(["a", "b"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
DOMIDS = st.sampled_from([0, 1, 2])
VALUES = st.binary(max_size=3)
PERMS = st.lists(st.tuples(st.sampled_from([0, 1, 2, 3]), st.integers(0, 3)), min_size=1, max_size=3)


def up(path: str) -> str:
    return path.rpartition("/")[0] or "/"


class Model:
    """What XenStore is, written for clarity: a dict from path to [value, permissions]."""

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[bytes, Perms]] = {"/": (b"", [(0, 0)])}
        self.alive = {0, 1, 2}

    def access(self, caller: int, perms: Perms) -> int:
        if caller in (0, perms[0][0]):
            return ALL
        return next((access for domid, access in perms[1:] if domid == caller), perms[0][1])

    def require(self, caller: int, path: str, wanted: int) -> bool:
        """Whether there is such a node; raises if the caller may not."""
        if path in self.nodes:
            if self.access(caller, self.nodes[path][1]) & wanted != wanted:
                raise Refused("EACCES")
            return True
        above = path
        while above not in self.nodes:
            above = up(above)
        if not self.access(caller, self.nodes[above][1]) & wanted:
            raise Refused("EACCES")
        return False

    def children(self, path: str) -> set[str]:
        return {other for other in self.nodes if other != "/" and up(other) == path}

    def read(self, caller: int, path: str) -> bytes:
        if not self.require(caller, path, READ):
            raise Refused("ENOENT")
        return self.nodes[path][0]

    def names(self, caller: int, path: str) -> set[str]:
        self.read(caller, path)
        return {child.rpartition("/")[2] for child in self.children(path)}

    def perms(self, caller: int, path: str) -> Perms:
        self.read(caller, path)
        return self.nodes[path][1]

    def write(self, caller: int, path: str, value: bytes) -> list[Event]:
        if self.require(caller, path, WRITE):
            self.nodes[path] = (value, self.nodes[path][1])
        else:
            self.create(caller, path, value)
        return [(path, [self.nodes[path][1], self.nodes[up(path)][1]], {})]

    def create(self, caller: int, path: str, value: bytes) -> None:
        if up(path) not in self.nodes:
            self.create(caller, up(path), b"")
        perms = list(self.nodes[up(path)][1])
        if caller:
            perms[0] = (caller, perms[0][1])
        self.nodes[path] = (value, perms)

    def mkdir(self, caller: int, path: str) -> list[Event]:
        if self.require(caller, path, WRITE):
            return []
        self.create(caller, path, b"")
        return [(path, [self.nodes[path][1], self.nodes[up(path)][1]], {})]

    def rm(self, caller: int, path: str) -> list[Event]:
        if not self.require(caller, path, WRITE):
            if up(path) not in self.nodes:
                raise Refused("ENOENT")
            return []
        below = [other for other in self.nodes if other == path or other.startswith(path + "/")]
        gone = {other: self.nodes.pop(other)[1] for other in below}
        return [(path, [gone[path], self.nodes[up(path)][1]], gone)]

    def set_perms(self, caller: int, path: str, perms: Perms) -> list[Event]:
        if perms[0][0] not in self.alive:
            raise Refused("ENOENT")
        perms = [perms[0]] + [entry for entry in perms[1:] if entry[0] in self.alive]
        if not self.require(caller, path, WRITE | 4):
            raise Refused("ENOENT")
        value, old = self.nodes[path]
        if caller and perms[0][0] != old[0][0]:
            raise Refused("EPERM")
        self.nodes[path] = (value, perms)
        return [(path, [perms, self.nodes[up(path)][1], old], {})]

    def release(self, domid: int) -> list[Event]:
        events: list[Event] = []
        self.alive.discard(domid)
        for path in sorted(self.nodes):
            if path in self.nodes and self.nodes[path][1][0][0] == domid:
                events += self.rm(0, path)
        for path, (value, perms) in self.nodes.items():
            self.nodes[path] = (value, [entry for entry in perms if entry[0] != domid])
        return events


class Comparison(RuleBasedStateMachine):
    """Does the same to both, and compares results and events."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.server = self.new_server()
        self.peers = {domid: self.introduced(domid) for domid in (0, 1, 2)}
        self.peers[0].call(wire.RM, b"/tool")
        self.watches: dict[tuple[int, str, str], None] = {}
        self.open: dict[tuple[int, int], list[tuple[str, tuple[object, ...], object]]] = {}
        self.started: dict[tuple[int, int], int] = {}
        self.changes = 0

    def new_server(self) -> Gate:
        return new_server(transactions=1000)

    def introduced(self, domid: int) -> Peer:
        return Peer(self.server.introduce(domid))

    def ask(self, caller: int, name: str, arguments: tuple[object, ...], transaction: int = 0) -> object:
        """What the server answers to a request of the model's kind."""
        path = str(arguments[0]).encode()
        call: Callable[..., bytes] = self.peers[caller].call
        try:
            if name == "read":
                return call(wire.READ, path, transaction=transaction)
            if name == "names":
                names = wire.strings(call(wire.DIRECTORY, path, transaction=transaction))
                return {entry.decode() for entry in names}
            if name == "perms":
                words = wire.strings(call(wire.GET_PERMS, path, transaction=transaction))
                return [wire.parse_permission(word) for word in words]
            if name == "write":
                call(wire.WRITE, path, transaction=transaction, tail=arguments[1])
            elif name == "set_perms":
                perms: Perms = arguments[1]  # type: ignore[assignment]
                words = [wire.format_permission(entry) for entry in perms]
                call(wire.SET_PERMS, path, *words, transaction=transaction)
            else:
                call({"mkdir": wire.MKDIR, "rm": wire.RM}[name], path, transaction=transaction)
            return "done"
        except Refused as error:
            return error.name

    def expect(
        self, model: Model, caller: int, name: str, arguments: tuple[object, ...]
    ) -> tuple[object, list[Event]]:
        """What the model answers, and what it says changed."""
        try:
            result = getattr(model, name)(caller, *arguments)
        except Refused as error:
            return error.name, []
        return ("done", result) if name in ("write", "mkdir", "rm", "set_perms") else (result, [])

    def check_events(self, events: list[Event]) -> None:
        """Every watch has fired for what it should have, and for nothing else."""
        self.changes += len(events)
        for domid, peer in self.peers.items():
            expected = set()
            for path, perms, gone in events:
                for _, watched, token in [watch for watch in self.watches if watch[0] == domid]:
                    near = watched == "/" or path == watched or path.startswith(watched + "/")
                    if near and any(self.model.access(domid, entry) & READ for entry in perms):
                        expected.add((path.encode(), token.encode()))
                    elif watched in gone and watched != path:
                        both = (gone[watched], gone[up(watched)])
                        if any(self.model.access(domid, entry) & READ for entry in both):
                            expected.add((watched.encode(), token.encode()))
            assert set(peer.events()) == expected

    def both(self, caller: int, transaction: int | None, name: str, *arguments: object) -> None:
        """One request, in a transaction of the caller's if it has one open and wants to."""
        if caller not in self.peers:
            return
        numbers = [number for domid, number in self.open if domid == caller]
        if transaction is not None and numbers:
            number = numbers[transaction % len(numbers)]
            result = self.ask(caller, name, arguments, number)
            self.open[caller, number].append((name, arguments, result))
            self.check_events([])
            return
        expected, events = self.expect(self.model, caller, name, arguments)
        assert self.ask(caller, name, arguments) == expected
        self.check_events(events)

    which = st.none() | st.integers(0, 3)

    @rule(
        caller=DOMIDS,
        inside=which,
        name=st.sampled_from(["read", "names", "perms", "mkdir", "rm"]),
        path=PATHS,
    )
    def simple(self, caller: int, inside: int | None, name: str, path: str) -> None:
        self.both(caller, inside, name, path)

    @rule(caller=DOMIDS, inside=which, path=PATHS, value=VALUES)
    def write(self, caller: int, inside: int | None, path: str, value: bytes) -> None:
        self.both(caller, inside, "write", path, value)

    @rule(caller=st.sampled_from([0, 0, 1, 2]), inside=which, path=PATHS, perms=PERMS)
    def set_perms(self, caller: int, inside: int | None, path: str, perms: Perms) -> None:
        self.both(caller, inside, "set_perms", path, perms)

    @rule(caller=DOMIDS)
    def begin(self, caller: int) -> None:
        if caller in self.peers:
            number = int(self.peers[caller].call(wire.TRANSACTION_START, b"")[:-1])
            self.open[caller, number] = []
            self.started[caller, number] = self.changes

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9), commit=st.booleans())
    def end(self, which: int, commit: bool) -> None:
        caller, number = list(self.open)[which % len(self.open)]
        log = self.open.pop((caller, number))
        peer = self.peers[caller]
        refused = peer.refusal(wire.TRANSACTION_END, b"T" if commit else b"F", transaction=number)
        events: list[Event] = []
        if not commit:
            assert refused is None
        elif refused is None:
            # serializable: all of it, done now in one go, gives the results that were given before
            for name, arguments, result in log:
                expected, changed = self.expect(self.model, caller, name, arguments)
                assert result == expected
                events += changed
        else:
            assert refused == "EAGAIN"
            assert self.changes > self.started[caller, number]
            reads = [entry for entry in log if entry[0] in ("read", "names", "perms") or entry[2] != "done"]
            copy = deepcopy(self.model)
            same = all(self.expect(copy, caller, name, args)[0] == result for name, args, result in log)
            assert reads or not same
        self.check_events(events)

    @rule(caller=DOMIDS, path=PATHS | st.just("/"), token=NAMES)
    def watch(self, caller: int, path: str, token: str) -> None:
        if caller in self.peers:
            refused = self.peers[caller].refusal(wire.WATCH, path.encode(), token.encode())
            if (caller, path, token) in self.watches:
                assert refused == "EEXIST"
            else:
                assert refused is None
                self.watches[caller, path, token] = None
                assert self.peers[caller].events() == [(path.encode(), token.encode())]

    @precondition(lambda self: self.watches)
    @rule(which=st.integers(0, 9))
    def unwatch(self, which: int) -> None:
        caller, path, token = list(self.watches)[which % len(self.watches)]
        del self.watches[caller, path, token]
        assert self.peers[caller].refusal(wire.UNWATCH, path.encode(), token.encode()) is None

    @rule()
    def second_guest_dies_or_is_born(self) -> None:
        if 2 in self.peers:
            self.server.release(2)
            del self.peers[2]
            self.open = {key: log for key, log in self.open.items() if key[0] != 2}
            self.watches = {watch: None for watch in self.watches if watch[0] != 2}
            self.check_events(self.model.release(2))
        else:
            self.peers[2] = self.introduced(2)
            self.model.alive.add(2)
        self.changes += 1

    @invariant()
    def nothing_is_inconsistent(self) -> None:
        assert self.server.contents.problems() == []
        for domid, peer in self.peers.items():
            watches = sum(watch.cost for watch in peer.connection.watches)
            overlays = sum(overlay.cost for overlay in peer.connection.transactions.values())
            assert peer.connection._buffers == watches + overlays, domid

    def teardown(self) -> None:
        for path in self.model.nodes:
            assert self.ask(0, "perms", (path,)) == self.model.nodes[path][1]


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=150, stateful_step_count=60)
