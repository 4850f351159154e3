"""Builder: the only shard with rights over other domains. Serves Toolstacks; tells XenStore and Console."""

import gc

import nano
from xoar.abi import xen as abi
from xoar.builder import plan
from xoar.builder.conversations import Conversations
from xoar.builder.devices import Devices
from xoar.builder.domains import LINKS
from xoar.builder.journal import Journal
from xoar.builder.library import PLAN, Library
from xoar.builder.machine import Machine
from xoar.builder.memory import Memory
from xoar.builder.service import Service
from xoar.messages.channel import Channel
from xoar.messages.renewal import CLIENT, SERVER, Renewal
from xoar.xen import boot, control, events
from xoar.xen.box import Box
from xoar.xen.guard import Guard
from xoar.xen.ring import xenstore_rings
from xoar.xen.served import Served

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_NS = 1000 * 1000000
_PATIENCE = 2000 * 1000000  # ns; Restorer may be busy, or not be there


def _needed(key: str) -> str:
    value = boot.setting(key)
    if value is None:
        raise ValueError("the command line has no %s=" % key)
    return value


def _numbers(text: str) -> "list[int]":
    return [int(word) for word in text.split(":")]


class _Life:
    """Builder from one rollback to the next. What it knew at the end of the last one lies in the box. `most`:
    how long it lasts at most, in ns; 0: for ever."""

    def __init__(
        self, service: Service, conversations: Conversations, memory: Memory, box: Box, most: int
    ) -> None:
        self._service = service
        self._conversations = conversations
        self._memory = memory
        self._box = box
        self._guard = Guard("builder")
        self._used = False  # something came from a client
        self._late = events.now() + most // 2 if most else None

    def begin(self) -> None:
        """Takes up what the last life left. If that was not at rest, each conversation begins anew."""
        at_rest = self._box.at_rest
        self._box.at_rest = False
        if not self._guard.call(self._memory.load):
            return
        self._guard.call(self._service.recalled)
        self._memory.store()
        if not at_rest:
            self._conversations.begin_anew()

    def go_on(self, exceptions: int) -> None:
        """Serves, until there is nothing to do and something was done: then Restorer begins the next life."""
        ports = [exceptions]  # what ended before this point
        while True:
            # nobody hears of what is not remembered yet
            self._conversations.hold()
            self._serve(exceptions in ports)
            deadline = self._guard.call(self._service.expire)
            self._memory.store()
            self._conversations.go_on()
            deadline, at_rest = self._rest(deadline)
            if at_rest and self._used:
                self._end()
                ports = [exceptions]
                continue
            self._box.at_rest = at_rest
            ports = events.wait(deadline)
            self._box.at_rest = False
            # what begins now shall have time to end
            if at_rest and self._late is not None and events.now() > self._late:
                self._end()
                ports = [exceptions]

    def _rest(self, deadline: "int | None") -> "tuple[int | None, bool]":
        """When there is something to do in any case, and whether nothing is on its way."""
        if self._conversations.more:
            return events.now(), False
        if not self._service.idle:
            return deadline, False
        waits = self._conversations.expire(events.now())
        return waits, waits is None

    def _end(self) -> None:
        """Has Restorer begin the next life. Returns if it does not, in time: then this one goes on."""
        self._box.at_rest = True
        boot.roll_back()
        deadline = events.now() + _PATIENCE
        while events.now() < deadline:
            events.wait(deadline)
        self._box.at_rest = False
        self._used = False
        self._late = None

    def _serve(self, has_ended: bool) -> None:
        service = self._service
        if has_ended:
            self._guard.call(service.domains_changed)
        for client, channel in list(self._conversations.clients.items()):
            if not channel.congested:
                for message in channel.receive():
                    self._used = True
                    service.handle(client, message)
        # after the requests, which may take seconds: answers that came meanwhile are in time
        for server, channel in self._conversations.servers.items():
            for message in channel.receive():
                self._guard.call(service.answered, server, message)


def main() -> None:
    """Serves for ever."""
    library = Library(boot.modules()[0], nano.lz4)
    script = library.named("boot", PLAN)
    todo = plan.parse(script.read(0, script.size).decode())
    domids = {shard.name: shard.domid for shard in todo.shards}
    windows = [_numbers(text) for text in boot.settings("window")]
    ecam = boot.setting("ecam")

    control.know_header(bytes.fromhex(_needed("header")))
    journal = Journal(nano.now)
    clients = {}
    for client in boot.clients():
        end = Served(client.domid, client.gref, client.port)
        incoming, outgoing = xenstore_rings(end.page)
        clients[client.name] = Channel(
            incoming,
            outgoing,
            end.notify,
            client.name,
            "builder",
            journal.reporter(client.name),
            Renewal(end.page, SERVER),
        )
    servers = {}
    for server, _, _ in LINKS:
        link = boot.uses(server)
        outgoing, incoming = xenstore_rings(link.page)
        renewal = Renewal(link.page, CLIENT)
        servers[server] = Channel(incoming, outgoing, _notifier(link.port), server, "builder", print, renewal)

    machine = Machine(
        _needed("guest_label"),
        [(domids[server], gref) for server, gref, _ in LINKS],
        _numbers(ecam) if ecam else [],
    )
    devices = Devices(todo.drivers, [(address, size) for address, size in windows])
    first_guest = int(_needed("first_guest"))
    service = Service(machine, library, clients, servers, todo, devices, journal, first_guest)
    box = Box(boot.box())
    memory = Memory(box, service.remembers(), service.recalls(), journal)
    service.is_full = lambda: memory.full
    gc.collect()
    life = boot.snapshot()
    exceptions = events.bind_virq(abi.VIRQ_DOM_EXC)
    if life <= 1:
        boot.ready()
        print("builder: ready, %d images" % len(library.images))
    (most,) = [restart.seconds for restart in todo.restarts if restart.target.name == "builder"] or [0]
    now = _Life(service, Conversations(clients, servers), memory, box, most * _NS)
    now.begin()
    now.go_on(exceptions)


def _notifier(port: int) -> "Callable[[], None]":
    return lambda: events.notify(port)
