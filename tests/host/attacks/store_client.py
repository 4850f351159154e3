"""A guest that uses XenStore without pause and checks all that it gets, whatever Logic goes through.

Commands on its console: `share` makes what all guests use, in this guest's home; `work <seed> <domid whose
home that is> <domid of a neighbour>` works until a line comes, then says "worked ..."; `check` says
"checked ...". Whatever XenStore does wrong ends it with a line "WRONG ...".
"""

from pv_console import PvConsole, param

from xoar.abi import xen as abi
from xoar.builder.start import link_frame
from xoar.xen import events
from xoar.xen.pages import own_page
from xoar.xen.ring import xenstore_rings
from xoar.xenstore import wire
from xoar.xenstore.client import Client
from xoar.xenstore.errors import Refused

NODES = 8
TOTAL = 1000000
_SILENCE = 240_000_000_000  # other guests' requests, each with several Logics that hang, are shorter
_TRIES = 4
_OWN = 16


class Wrong(Exception):
    pass


class Worker:
    """`shared` is the home with what all use, `neighbour` the home of the guest whose nodes are watched."""

    def __init__(self, store, console, seed, shared, neighbour):
        self._store = store
        self._console = console
        self._random = seed
        self.shared = shared + "/data/shared"
        self._neighbour = neighbour
        self._own = {}
        self._seen = [0] * NODES
        self._echoes = []
        self._pair = 0
        self._ticks = 0
        self._steps = self._events = self._added = self._conflicts = 0

    def prepare(self):
        """Nodes that the neighbour on the other side reads, and watches."""
        self._store.write("data/pair/a", "0")
        self._store.write("data/pair/b", "0")
        for number in range(NODES):
            self._store.write(f"data/tick/{number}", "0")
        own = int(self._store.read("domid"))
        for path in ["tick", "pair/a", "pair/b"] + [f"tick/{number}" for number in range(NODES)]:
            self._store.set_perms("data/" + path, [f"r{own}"])
        self._store.watch("data/echo", "echo")

    def watch_neighbour(self):
        """Once that has prepared."""
        while True:
            try:
                self._store.read(self._neighbour + "/data/ready")
                break
            except Refused:
                events.wait(events.now() + 200_000_000)
        self._store.watch(self._neighbour + "/data/tick", "tick")

    def work(self):
        """Each kind of work once, in an order of its own, and again, until a line comes."""
        while not self._console.incoming.readable():
            self._round()

    def _round(self):
        steps = [
            self._many_at_once, self._pair_of_its_own, self._pair_of_the_neighbour, self._transfer,
            self._tick, self._echo, self._make_and_remove, self._watch_and_unwatch, self._give_up,
        ]  # fmt: skip
        while steps and not self._console.incoming.readable():
            step = steps.pop(self._any(len(steps)))
            try:
                step()
            except Refused as error:
                raise Wrong(f"{step.__name__}: {error.name}") from error
            self._hear()
            self._steps += 1

    def told(self):
        made = f"{self._added} added, {self._conflicts} conflicts"
        return f"worked {self._steps} steps, {self._events} events, {made}"

    def settle(self):
        """All that the neighbour wrote has been heard of: what it has now was read when an event came."""
        quiet = events.now() + 2_000_000_000
        while events.now() < quiet:
            if self._store.poll():
                quiet = events.now() + 2_000_000_000
            else:
                events.wait(quiet)
            self._hear()
        for number in range(NODES):
            value = int(self._store.read(f"{self._neighbour}/data/tick/{number}"))
            if value != self._seen[number]:
                raise Wrong(f"tick {number} is {value}, no event told of more than {self._seen[number]}")
        for path, value in self._own.items():
            self._same(path, self._store.read(path), value)
        self._same("pair", self._store.read("data/pair/a"), b"%d" % self._pair)
        self._same("pair", self._store.read("data/pair/b"), b"%d" % self._pair)

    def _many_at_once(self):
        """Writes and reads of them, sent without waiting for any."""
        writes, reads = [], []
        for _ in range(6):
            path = f"data/own/{self._any(_OWN)}"
            value = b"%d " % self._any(1 << 30) * (1 + self._any(20))
            self._own[path] = value
            writes.append(self._store.request(wire.WRITE, path.encode() + b"\0" + value))
            reads.append((path, value, self._store.request(wire.READ, path.encode() + b"\0")))
        for request in writes:
            self._reply(request)
        for path, value, request in reads:
            self._same(path, self._reply(request), value)

    def _pair_of_its_own(self):
        """Nobody else writes them: there is no conflict, and both are what they were."""
        number = self._begin()
        for name in "ab":
            self._same("pair", self._store.read("data/pair/" + name, number), b"%d" % self._pair)
            self._store.write("data/pair/" + name, str(self._pair + 1), number)
        self._end(number)
        self._pair += 1

    def _pair_of_the_neighbour(self):
        """Changed by two writes of one transaction: a transaction that goes through sees both or none."""

        def both(number):
            return [self._store.read(self._neighbour + "/data/pair/" + name, number) for name in "ab"]

        found = self._tried(both)
        if found is not None:
            self._same("the neighbour's pair", found[0], found[1])

    def _transfer(self):
        """From one node to another, by all guests, and how often. The sum is always the same."""
        amount = self._any(100)

        def move(number):
            paths = [self.shared + "/" + name for name in ("x", "y", "count")]
            x, y, count = [int(self._store.read(path, number)) for path in paths]
            for path, value in ((paths[0], x - amount), (paths[1], y + amount), (paths[2], count + 1)):
                self._store.write(path, str(value), number)
            return x + y

        total = self._tried(move)
        if total is not None:
            self._added += 1
            self._same("sum", total, TOTAL)

    def _tick(self):
        """What the neighbour on the other side watches."""
        self._ticks += 1
        self._store.write(f"data/tick/{self._any(NODES)}", str(self._ticks))

    def _echo(self):
        """A change of a node that this guest watches itself: the event comes, too."""
        path = f"data/echo/{self._steps % 16}"
        self._store.write(path, str(self._steps))
        deadline = events.now() + _SILENCE
        self._hear()  # it may have come before the reply
        while path not in self._echoes:
            if events.now() > deadline:
                raise Wrong("no event of " + path)
            if not self._store.poll():
                wait()
            self._hear()
        self._echoes = []

    def _make_and_remove(self):
        """Done twice, either would be refused or leave the node there."""
        self._store.mkdir("data/made/below")
        self._store.call(wire.RM, wire.words("data/made"))
        if self._store.exists("data/made"):
            raise Wrong("what was removed is there")

    def _watch_and_unwatch(self):
        """Either is refused the second time."""
        self._store.watch("data/own", "again")
        self._store.unwatch("data/own", "again")

    def _give_up(self):
        """A transaction that is dropped has changed nothing."""
        path = f"data/own/{self._any(_OWN)}"
        number = self._begin()
        self._store.write(path, "never", number)
        self._store.call(wire.TRANSACTION_END, b"F\0", number)
        if path in self._own:
            self._same(path, self._store.read(path), self._own[path])
        elif self._store.exists(path):
            raise Wrong(path + " was made by a transaction that was dropped")

    def _begin(self):
        return int(self._store.call(wire.TRANSACTION_START, b"\0")[:-1])

    def _end(self, number):
        self._store.call(wire.TRANSACTION_END, b"T\0", number)

    def _tried(self, body):
        """What a transaction's body returned; None if others were always faster."""
        for _ in range(_TRIES):
            number = self._begin()
            result = body(number)
            try:
                self._end(number)
                return result
            except Refused as error:
                if error.name != "EAGAIN":
                    raise
                self._conflicts += 1
        return None

    def _hear(self):
        """Events that have come: of each of the neighbour's changes the node is read."""
        while True:
            event = self._store.take_event()
            if event is None:
                return
            self._events += 1
            path, token = event
            if token == "echo":
                self._echoes.append(path)
            elif token == "tick":
                name = path.split("/")[-1]
                for number in range(NODES) if name == "tick" else [int(name)]:
                    value = int(self._store.read(f"{self._neighbour}/data/tick/{number}"))
                    if value < self._seen[number]:
                        raise Wrong(f"tick {number}: {value} after {self._seen[number]}")
                    self._seen[number] = value

    def _reply(self, request):
        while True:
            reply = self._store.take_reply(request)
            if reply is not None:
                return reply
            if not self._store.poll():
                wait()

    def _same(self, what, found, wanted):
        if found != wanted:
            raise Wrong(f"{what}: {found}, not {wanted}")

    def _any(self, limit):
        self._random = (self._random * 1103515245 + 12345) & 0x7FFFFFFF
        return (self._random >> 8) % limit


def wait():
    if not events.wait(events.now() + _SILENCE):
        raise Wrong("XenStore is silent")


def share(store):
    for name, value in (("x", TOTAL), ("y", 0), ("count", 0)):
        store.write("data/shared/" + name, str(value))
        store.set_perms("data/shared/" + name, ["b" + str(store.read("domid"), "ascii")])


def serve(console, store):
    worker = None
    while True:
        command, *words = console.line().split()
        if command == "share":
            share(store)
            console.write("shared")
        elif command == "work":
            seed, shared, neighbour = [int(word) for word in words]
            worker = Worker(store, console, seed, f"/local/domain/{shared}", f"/local/domain/{neighbour}")
            worker.prepare()
            store.write("data/ready", "")
            store.set_perms("data/ready", ["r" + str(store.read("domid"), "ascii")])
            worker.watch_neighbour()
            console.write("works")
            worker.work()
            console.line()
            console.write(worker.told())
        elif command == "check":
            worker.settle()
            x, y, count = [int(store.read(worker.shared + "/" + name)) for name in ("x", "y", "count")]
            console.write(f"checked, count {count}, sum {x + y}")


def main():
    console = PvConsole()
    page, port = own_page(link_frame(abi.GNTTAB_RESERVED_XENSTORE)), param(abi.HVM_PARAM_STORE_EVTCHN)
    writer, reader = xenstore_rings(page)
    store = Client(reader, writer, lambda: events.notify(port), wait)
    console.write("client ready")
    try:
        serve(console, store)
    except Exception as error:
        console.write("WRONG " + repr(error))
        raise
