"""Builder: the only shard with rights over other domains. Serves Toolstacks; tells XenStore and Console."""

import nano
from xoar.abi import xen as abi
from xoar.builder import plan
from xoar.builder.devices import Devices
from xoar.builder.domains import LINKS
from xoar.builder.journal import Journal
from xoar.builder.library import PLAN, Library
from xoar.builder.machine import Machine
from xoar.builder.service import Service
from xoar.messages.channel import Channel
from xoar.messages.conversations import Conversations
from xoar.messages.memory import Memory
from xoar.messages.renewal import CLIENT, SERVER, Renewal
from xoar.xen import boot, control, events
from xoar.xen.box import Box
from xoar.xen.guard import Guard
from xoar.xen.lives import Life
from xoar.xen.ring import xenstore_rings
from xoar.xen.served import Served

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_IN_A_ROW = 32  # requests of one client


def _needed(key: str) -> str:
    value = boot.setting(key)
    if value is None:
        raise ValueError("the command line has no %s=" % key)
    return value


def _numbers(text: str) -> "list[int]":
    return [int(word) for word in text.split(":")]


class _Server:
    """Builder in one of its lives. What it knew at the end of the last one lies in the box."""

    def __init__(
        self, service: Service, conversations: Conversations, memory: Memory, life: Life, exceptions: int
    ) -> None:
        self._service = service
        self._conversations = conversations
        self._memory = memory
        self._life = life
        self._exceptions = exceptions
        self._guard = Guard("builder")
        self._used = False  # something came from a client

    def begin(self) -> None:
        """Takes up what the last life left. If that was not at rest, each conversation begins anew."""
        at_rest = self._life.begin()
        if not self._guard.call(self._memory.load):
            return
        self._guard.call(self._service.recalled)
        self._memory.store()
        if not at_rest:
            self._conversations.begin_anew()

    def go_on(self) -> None:
        """Serves, until there is nothing to do and something was done."""
        ports: "list[int] | None" = None
        while True:
            # nobody hears of what is not remembered yet
            self._conversations.hold()
            # at first, and after a sleep of which nothing is known: what ended meanwhile
            self._serve(ports is None or self._exceptions in ports)
            deadline = self._guard.call(self._service.expire)
            self._memory.store()
            self._conversations.go_on()
            deadline, at_rest = self._rest(deadline)
            ports = self._life.sleep(deadline, at_rest, self._used)
            self._used = self._used and ports is not None

    def _rest(self, deadline: "int | None") -> "tuple[int | None, bool]":
        """When there is something to do in any case, and whether nothing is on its way."""
        if self._conversations.more:
            return events.now(), False
        if not self._service.idle:
            return deadline, False
        waits = self._conversations.expire(events.now())
        return waits, waits is None

    def _serve(self, has_ended: bool) -> None:
        service = self._service
        if has_ended:
            self._guard.call(service.domains_changed)
        for client, channel in list(self._conversations.clients.items()):
            # as many as there is room for the answers of, but not so many that others wait
            for _ in range(_IN_A_ROW):
                messages = [] if channel.congested else channel.receive(1)
                if not messages:
                    break
                self._used = True
                service.handle(client, messages[0])
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
    memory = Memory("builder", box, service.remembers(), service.recalls(), journal)
    service.is_full = lambda: memory.full
    for kick in boot.kicks():
        if kick.target != boot.setting("name"):
            service.kicks[kick.target] = _notifier(kick.port)
    first = boot.snapshot() <= 1
    exceptions = events.bind_virq(abi.VIRQ_DOM_EXC)
    boot.ready()  # the first life may be too short for it
    if first:
        print("builder: ready, %d images" % len(library.images))
    serving = _Server(service, Conversations(clients, servers), memory, Life(box), exceptions)
    serving.begin()
    serving.go_on()


def _notifier(port: int) -> "Callable[[], None]":
    return lambda: events.notify(port)
