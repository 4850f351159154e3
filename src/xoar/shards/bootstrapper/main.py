"""Bootstrapper: started by Xen in dom0's place, builds the shards, hands over to Builder, and ends.

All shards are created before any is connected, and connected before any is loaded: so a link stands on both
ends' command lines. If anything fails, Bootstrapper says what and crashes, and with it the host stops.
"""

import nano
from xoar.abi import xen as abi
from xoar.builder import construct, hardware, plan
from xoar.builder.errors import ENODEV, BuildError
from xoar.builder.library import PLAN, SHARD, Library
from xoar.builder.start import PAGE, link_frame, shared_info_frame
from xoar.xen import boot, control, devices, events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.builder.plan import Plan, Shard

_MAP_FRAMES = 8  # records for 2048 grants that a shard has mapped
_READY_TIMEOUT = 60 * 1000000000
_CHECK_INTERVAL = 100 * 1000000


class NotReady(Exception):
    """A shard ended or did not get ready."""


def main() -> None:
    """Boots the host."""
    started = events.now()
    blob = boot.modules()[0]
    library = Library(blob, nano.lz4)
    script = library.named("boot", PLAN)
    todo = plan.parse(script.read(0, script.size).decode())

    step = ""
    try:
        ports = {restart.target.name: restart.most_ports for restart in todo.restarts}
        for shard in todo.shards:
            step = "create " + shard.name
            _create(shard, todo.rooms.get(shard.name, 0), ports.get(shard.name, control.MOST_PORTS))
        step = "connect the shards"
        words, waiting = _connect(todo)
        ports = _connect_restorer(todo, words)
        step = "hand over the hardware"
        for shard in todo.hardware:
            words[shard.name] += _hand_over_hardware(shard)
        restorers = [restart.restorer for restart in todo.restarts]
        places: "dict[str, list[tuple[int, int]]]" = {}
        # who rolls others back is to know where their modules lie
        for shard in [shard for shard in todo.shards if shard not in restorers] + restorers[:1]:
            step = "load " + shard.name
            if shard in restorers:
                words[shard.name] += _targets(todo, ports, places)
            module = blob if shard in todo.library else None
            places[shard.name] = _load(library, shard, words[shard.name], module, todo)
        step = "start the shards"
        for shard in todo.exceptions:
            control.give_virq(shard.domid, abi.VIRQ_DOM_EXC)
        for shard in todo.shards:
            control.unpause(shard.domid)
        step = "wait for the shards"
        _wait_until_ready(waiting)
    except (OSError, BuildError, NotReady) as error:
        print("bootstrapper: can't %s: %s" % (step, error))
        raise
    took = (events.now() - started) // 1000000
    print("bootstrapper: %d shards ready after %d ms" % (len(todo.shards), took))


def _create(shard: "Shard", room_kib: int, most_ports: int) -> None:
    uuid = bytes(15) + bytes([shard.domid])
    construct.create(
        shard.domid, uuid, shard.label, shard.memory_kib, shard.vcpus, _MAP_FRAMES, room_kib, most_ports
    )
    control.set_weight(shard.domid, control.WEIGHT_OF_SERVICES)
    for first, count in shard.ports:
        control.give_ports(shard.domid, first, count)


def _connect(todo: "Plan") -> "tuple[dict[str, list[str]], dict[int, Shard]]":
    """Opens all links. Returns the words that tell each shard of its own ones, and the port on which each
    shard will say that it is ready."""
    words = {shard.name: list(shard.words) for shard in todo.shards}
    ready = {}
    for shard in todo.shards:
        links = [link for link in todo.links if link.client is shard]
        ports = construct.connect(shard.domid, [(link.gref, link.server.domid) for link in links])
        for link in links:
            port = ports[link.gref]
            words[shard.name].append("uses=%s:%d:%d" % (link.server.name, link_frame(link.gref), port))
            words[link.server.name].append(
                "client=%s:%s:%d:%d:%d" % (link.name, shard.name, shard.domid, link.gref, port)
            )
        port = events.allocate(abi.DOMID_SELF, shard.domid)
        words[shard.name].append("ready=%d" % port)
        ready[port] = shard
    return words, ready


def _connect_restorer(todo: "Plan", words: "dict[str, list[str]]") -> "dict[str, int]":
    """Opens the event channels between the one who rolls shards back, these, and those who ask for it.
    Returns the port of each that is rolled back."""
    ports = {}
    for target, restorer, seconds, _, most_ports in todo.restarts:
        port = ports[target.name] = events.allocate(target.domid, restorer.domid)
        words[target.name].append("restorer=%d:%d:%d" % (port, seconds, most_ports))
        for who, what, requests, patience_ms in todo.kicks:
            if what is target:
                port = events.allocate(who.domid, restorer.domid)
                words[who.name].append("kick=%s:%d:%d:%d" % (target.name, requests, patience_ms, port))
                words[restorer.name].append(
                    "kick=%s:%d:%d:%s:%d" % (who.name, who.domid, port, target.name, requests)
                )
    return ports


def _targets(
    todo: "Plan", ports: "dict[str, int]", places: "dict[str, list[tuple[int, int]]]"
) -> "list[str]":
    """What Restorer is to know of those that it rolls back; `places`: where the modules of each shard lie."""
    words = []
    for target, _, seconds, box_kib, _ in todo.restarts:
        links = ["%d+1" % link_frame(link.gref) for link in todo.links if link.client is target]
        modules = ["%d+%d" % (address // PAGE, -(-size // PAGE)) for address, size in places[target.name]]
        # with a box a conversation goes on over a rollback, else the other end begins a new one
        untracked, kept, sealed = links, [], modules
        if box_kib:
            untracked, kept, sealed = [], links + modules[-1:], modules[:-1]
        runs = ":".join([",".join(runs) for runs in (untracked, kept, sealed)])
        frames, port = shared_info_frame(target.memory_kib), ports[target.name]
        words.append("target=%s:%d:%d:%d:%d:%s" % (target.name, target.domid, frames, port, seconds, runs))
    return words


def _hand_over_hardware(shard: "Shard") -> "list[str]":
    """Lets a shard pass on configuration space and the memory of devices; the words that tell it where."""
    ecam = hardware.mcfg(lambda address, length: bytes(nano.memory(address, length)), boot.rsdp())
    if ecam is None:
        raise BuildError(ENODEV, "the machine has no memory-mapped configuration space (ACPI table MCFG)")
    address, first, _ = ecam
    last = hardware.last_bus(lambda at: nano.memory(at, 1, "I")[0], ecam)
    windows = hardware.windows(boot.memory_map(), ecam)
    for start, size in windows + [(address + first * hardware.BUS, (last - first + 1) * hardware.BUS)]:
        devices.permit_memory(shard.domid, start, size)
    words = ["window=%d:%d" % window for window in windows]
    return words + ["ecam=%d:%d:%d" % (address + first * hardware.BUS, first, last)]


def _load(
    library: Library, shard: "Shard", words: "list[str]", module: "memoryview | None", todo: "Plan"
) -> "list[tuple[int, int]]":
    boxes = [restart.box_kib for restart in todo.restarts if restart.target is shard]
    if shard in todo.library:  # it builds others, and needs no right to ask for that itself
        words = words + ["header=" + control.saved_header(shard.domid).hex()]
    line = " ".join(["name=" + shard.name, "domid=%d" % shard.domid] + words)
    image = library.named(shard.image, SHARD)
    return construct.load(
        shard.domid, image, module, line, shard.memory_kib, shard.vcpus, bool(boxes), sum(boxes)
    )


def _wait_until_ready(waiting: "dict[int, Shard]") -> None:
    deadline = events.now() + _READY_TIMEOUT
    while waiting:
        for port in events.wait(events.now() + _CHECK_INTERVAL):
            waiting.pop(port, None)
        for shard in waiting.values():
            info = control.domain(shard.domid)
            if info is None or info.reason is not None:
                raise NotReady("%s ended while it started; its own lines are above" % shard.name)
        if events.now() > deadline:
            names = ", ".join([shard.name for shard in waiting.values()])
            raise NotReady("not ready after %d s: %s" % (_READY_TIMEOUT // 1000000000, names))
