"""Builder: the only shard with rights over other domains. Serves Toolstacks; tells XenStore and Console."""

import nano
from xoar.abi import xen as abi
from xoar.builder import plan
from xoar.builder.devices import Devices
from xoar.builder.journal import Journal
from xoar.builder.library import PLAN, Library
from xoar.builder.machine import Machine
from xoar.builder.service import LINKS, Service
from xoar.messages.channel import Channel
from xoar.xen import boot, events
from xoar.xen.guard import Guard
from xoar.xen.ring import xenstore_rings
from xoar.xen.served import Served

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _needed(key: str) -> str:
    value = boot.setting(key)
    if value is None:
        raise ValueError("the command line has no %s=" % key)
    return value


def _numbers(text: str) -> "list[int]":
    return [int(word) for word in text.split(":")]


def main() -> None:
    """Serves for ever."""
    library = Library(boot.modules()[0], nano.lz4)
    script = library.named("boot", PLAN)
    todo = plan.parse(script.read(0, script.size).decode())
    domids = {shard.name: shard.domid for shard in todo.shards}
    windows = [_numbers(text) for text in boot.settings("window")]
    ecam = boot.setting("ecam")

    journal = Journal(nano.now)
    clients = {}
    for client in boot.clients():
        end = Served(client.domid, client.gref, client.port)
        incoming, outgoing = xenstore_rings(end.page)
        report = journal.reporter(client.name)
        clients[client.name] = Channel(incoming, outgoing, end.notify, client.name, "builder", report)
    servers = {}
    for server, _, _ in LINKS:
        link = boot.uses(server)
        outgoing, incoming = xenstore_rings(link.page)
        servers[server] = Channel(incoming, outgoing, _notifier(link.port), server, "builder")

    guard = Guard("builder")
    machine = Machine(
        _needed("guest_label"),
        [(domids[server], gref) for server, gref, _ in LINKS],
        _numbers(ecam) if ecam else [],
    )
    devices = Devices(todo.drivers, [(address, size) for address, size in windows])
    first_guest = int(_needed("first_guest"))
    service = Service(machine, library, clients, servers, todo, devices, journal, first_guest)
    exceptions = events.bind_virq(abi.VIRQ_DOM_EXC)
    boot.ready()
    print("builder: ready, %d images" % len(library.images))
    ports = [exceptions]  # what ended before this point
    while True:
        if exceptions in ports:
            guard.call(service.domains_changed)
        for client, channel in list(clients.items()):
            channel.flush()
            if not channel.congested:
                for message in channel.receive():
                    service.handle(client, message)
        # after the requests, which may take seconds: answers that came meanwhile are in time
        for server, channel in servers.items():
            for message in channel.receive():
                guard.call(service.answered, server, message)
            channel.flush()
        deadline = guard.call(service.expire)
        more = [channel for channel in clients.values() if channel.more and not channel.congested]
        ports = events.wait(events.now() if more else deadline)


def _notifier(port: int) -> "Callable[[], None]":
    return lambda: events.notify(port)
