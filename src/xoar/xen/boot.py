"""What a nano domain was started with: command line, links, boot modules.

Source of the layout: xen/include/public/arch-x86/hvm/start_info.h; of the words: docs/architecture.md.
"""

import gc
import struct
from collections import namedtuple

import nano
from xoar.abi import xen as abi
from xoar.xen import events
from xoar.xen.hypercall import memory_op
from xoar.xen.pages import own_page
from xoar.xen.ring import PAGE_SIZE

_ENOTCONN = 107
_MAP_ENTRIES, _MAP_ENTRY_SIZE = 128, 20  # struct e820entry: u64, u64, u32, packed

Link = namedtuple("Link", ("page", "port"))
Kick = namedtuple("Kick", ("target", "requests", "patience_ms", "port"))
Client = namedtuple("Client", ("link", "name", "domid", "gref", "port"))


def _start_info() -> memoryview:
    return nano.memory(nano.start_info(), abi.hvm_start_info.size)


def command_line() -> str:
    address = abi.hvm_start_info.get(_start_info(), "cmdline_paddr")
    if not address:
        return ""
    text = bytes(nano.memory(address, PAGE_SIZE))
    return text[: text.index(b"\0")].decode()


def modules() -> "list[memoryview]":
    """The boot modules, where they lie."""
    info = _start_info()
    count = abi.hvm_start_info.get(info, "nr_modules")
    entry = abi.hvm_modlist_entry
    table = nano.memory(abi.hvm_start_info.get(info, "modlist_paddr"), count * entry.size)
    return [
        nano.memory(entry.get(table, "paddr", i * entry.size), entry.get(table, "size", i * entry.size))
        for i in range(count)
    ]


def rsdp() -> int:
    """The physical address of ACPI's root pointer; 0 if there is none."""
    return abi.hvm_start_info.get(_start_info(), "rsdp_paddr")


def memory_map() -> "list[tuple[int, int, int]]":
    """(address, size, type) of each entry of the memory map that Xen gave this domain (types as in E820)."""
    buffer = bytearray(_MAP_ENTRIES * _MAP_ENTRY_SIZE)
    request = abi.memory_map.new(nr_entries=_MAP_ENTRIES, buffer=nano.address(buffer))
    memory_op("memory map", abi.XENMEM_memory_map, request)
    count = abi.memory_map.get(request, "nr_entries")
    return [struct.unpack_from("<QQI", buffer, i * _MAP_ENTRY_SIZE) for i in range(count)]


def settings(key: str) -> "list[str]":
    """The values of all words `key=value` of the command line."""
    prefix = key + "="
    return [word[len(prefix) :] for word in command_line().split() if word.startswith(prefix)]


def setting(key: str) -> "str | None":
    """The value of the word `key=value`, or None."""
    values = settings(key)
    return values[0] if values else None


def uses(server: str) -> Link:
    """The link that this shard opened to `server`."""
    for value in settings("uses"):
        name, frame, port = value.split(":")
        if name == server:
            return Link(own_page(int(frame)), int(port))
    raise ValueError("this shard was started without a link to %s" % server)


def clients() -> "list[Client]":
    """The links that shards opened to this one before it started."""
    result = []
    for value in settings("client"):
        link, name, domid, gref, port = value.split(":")
        result.append(Client(link, name, int(domid), int(gref), int(port)))
    return result


def kicks() -> "list[Kick]":
    """The shards that this one may have rolled back: a signal on the port asks for it, and comes back when it
    was done. It is to ask after so many requests, and if one takes longer than that; then a signal comes
    after each rollback, whoever asked, and after the snapshot. 0 requests: it asks as it likes."""
    result = []
    for value in settings("kick"):
        target, requests, patience_ms, port = value.split(":")
        result.append(Kick(target, int(requests), int(patience_ms), int(port)))
    return result


LIFE_FRAME = 15  # of xoar.builder.start
_ASK_AGAIN = 30 * 1000000000  # Restorer says so when it listens


def _restorer() -> "list[int] | None":
    """Of who rolls this shard back, if anybody does: the port of the channel there, after how many seconds it
    does so in any case, and the highest port that this shard can have."""
    value = setting("restorer")
    return None if value is None else [int(word) for word in value.split(":")]


def snapshot() -> int:
    """Returns each time that this shard's life begins: at first once Restorer has taken its snapshot, and
    again at this very place after every rollback. The number of the life, from 1; 0 if nobody rolls this
    shard back.

    Call it after initialisation and before the first request. All events that came before it returns are
    forgotten: look at every link afterwards. Event channels that were opened in a former life are closed.
    OSError(ENOTCONN): one of this shard's own channels was closed or is somebody else's.
    """
    found = _restorer()
    if found is None:
        return 0
    restorer, _, most_ports = found
    opened = [value.split(":") for key in ("uses", "kick") for value in settings(key)]
    ports = [restorer] + [int(words[-1]) for words in opened] + events.bound()
    ends, others = events.Ends(ports), events.closing(ports, most_ports)
    before = ends.look()
    life = nano.memory(LIFE_FRAME * PAGE_SIZE, 1, "I")
    _sweep()
    # once for each time that Restorer may have missed it: with policy "idle" one too many is a rollback
    asked = 0
    while not life[0]:
        if not asked or events.now() >= asked + _ASK_AGAIN:
            asked = events.now()
            events.notify(restorer)
        if restorer in events.wait(asked + _ASK_AGAIN):
            asked = 0
    # from here on in every life; the snapshot was taken in the loop
    others.make()
    nano.bind_timer()
    for port, was, now in zip(ports, before, ends.look()):
        # what Xen does not tell can't be checked
        if was[0] < 0 or now not in (was, (abi.EVTCHNSTAT_interdomain, was[1])):
            raise OSError(_ENOTCONN, "event channel %d is not what it was" % port)
    return life[0]


def _sweep() -> None:
    """Clears the memory that is free: pages of zeros take no room in a snapshot, pages of garbage do."""
    gc.collect()
    size, taken = gc.mem_free(), []  # type: ignore[attr-defined]  # MicroPython has it
    while size >= PAGE_SIZE:
        try:
            taken.append(bytearray(size))
        except MemoryError:
            size //= 2
    del taken
    gc.collect()


def roll_back() -> None:
    """Asks Restorer to begin this shard's next life, which it does while this one sleeps (policy "idle")."""
    for kick in kicks():
        if kick.target == setting("name"):
            events.notify(kick.port)


def life_time() -> int:
    """After how many seconds this shard is rolled back in any case; 0: not by time."""
    found = _restorer()
    return 0 if found is None else found[1]


def term() -> "tuple[int, int] | None":
    """For a shard that is built anew: after how many seconds in any case, and how many it lasts at least if
    it ends itself; None for others."""
    value = setting("anew")
    if value is None:
        return None
    most, least = value.split(":")
    return int(most), int(least)


def box() -> memoryview:
    """The memory of this shard's recovery box, which outlives rollbacks (policy "idle")."""
    return modules()[-1]


def ready() -> None:
    """Tells Bootstrapper, if there is one, that this shard serves. In later lives it mostly has ended
    already; but the first life may have been too short to say it."""
    port = setting("ready")
    if port is not None:
        try:
            local = events.bind(0, int(port))
        except OSError:
            if nano.memory(LIFE_FRAME * PAGE_SIZE, 1, "I")[0] > 1:
                return
            raise
        events.notify(local)
        events.close(local)
