"""The Console shard: wires the core to grants, event channels, Builder, Toolstack and the serial port."""

import nano
from xoar.abi import xen as abi
from xoar.messages.channel import Channel
from xoar.messages.renewal import SERVER, Renewal
from xoar.shards.console.console import Console
from xoar.shards.console.domains import SLOTS
from xoar.shards.console.links import Link
from xoar.shards.console.memory import ConsoleMemory
from xoar.shards.console.uart import Uart
from xoar.xen import boot, events, hypercall
from xoar.xen.box import Box
from xoar.xen.copied import CONSOLE, MESSAGES, Copied
from xoar.xen.guard import Guard
from xoar.xen.lives import Life
from xoar.xen.pages import Buffer
from xoar.xen.served import copied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SERIAL_PORT = 0x2F8

# the serial port raises no interrupt here, so it is looked at: often while bytes move, less so while somebody
# types, seldom when idle, since each look takes time from the guests of its processor
_FASTEST_NS = 2_000_000
_SLOWEST_NS = 25_000_000
_IDLE_NS = 100_000_000
_READ_LIMIT = 512
_TAKE_LIMIT = 1024

_HISTORY = 16384  # bytes of what each domain printed, with a header
_LIFE_NS = 5_000_000_000
"""A life in which something happened lasts at least so long: each new one connects itself to all domains."""
_AGAIN_NS = 60_000_000_000
"""Who had no next life when it asked for one, since Restorer is busy or gone, asks again so much later."""


def _connector() -> "Callable[[int, int, int], Copied]":
    """What reaches consoles: all by way of one page, since each is looked at all at once."""
    buffer = Buffer()
    return lambda domid, gref, port: copied(CONSOLE, buffer, domid, gref, port)


def _reach(domid: int, gref: int, port: int, peer: str) -> Link:
    """A link of another shard: messages over its page."""
    end = copied(MESSAGES, Buffer(), domid, gref, port)
    renewal = Renewal(end.page, SERVER)
    channel = Channel(end.to_server, end.to_client, _nothing, peer, "console", print, renewal)
    return Link(domid, end, channel)


def _nothing() -> None:
    """The other end is signalled when what was changed is copied back."""


def _read_xen(position: int, limit: int) -> "tuple[bytes, int]":
    buffer = bytearray(limit)
    result = hypercall.sysctl(
        "read Xen's console",
        abi.SYSCTL_readconsole,
        abi.sysctl_readconsole,
        incremental=1,
        index=position,
        buffer=nano.address(buffer),
        count=limit,
    )
    count = abi.sysctl_readconsole.get(result, "count")
    return bytes(buffer[:count]), abi.sysctl_readconsole.get(result, "index")


def _press(keys: str) -> None:
    text = keys.encode()
    hypercall.sysctl(
        "press debug keys",
        abi.SYSCTL_debug_keys,
        abi.sysctl_debug_keys,
        keys=nano.address(text),
        nr_keys=len(text),
    )


def _slots(memory: memoryview) -> "list[memoryview]":
    return [memory[i * _HISTORY : (i + 1) * _HISTORY] for i in range(SLOTS)]


class _Serving:
    """Console in one of its lives."""

    def __init__(self, console: Console, memory: ConsoleMemory, life: Life, uart: Uart) -> None:
        self._console = console
        self._memory = memory
        self._life = life
        self._uart = uart
        self._began = events.now()
        self._used = False
        self._stored = False  # all that there is lies in the box
        self._delay = _FASTEST_NS

    def go_on(self) -> None:
        """Serves until the next life begins, or the domain is destroyed."""
        ports: "list[int] | None" = None
        while True:
            console = self._console
            changed = console.fired(ports)
            moved, busy = self._serve()
            now = events.now()
            changed = changed or moved or busy or console.heard
            self._used = self._used or moved or busy or console.heard or console.domains.heard
            self._stored = self._stored and not changed
            self._delay = _FASTEST_NS if moved else min(self._delay + self._delay // 2, _SLOWEST_NS)
            over = self._over(now)
            if not self._stored and (over or not busy):
                self._stored = self._memory.store(True)
            # one turn more after the last signal: what a turn finds wrong is put right in the next
            quiet = ports == [] and not moved and not busy and self._stored and console.idle
            ports = self._life.sleep(now if busy else now + self._delay, self._stored, over)
            while quiet and ports == [] and self._nothing_new():
                self._delay = min(self._delay + self._delay // 2, _IDLE_NS)
                ports = self._life.sleep(events.now() + self._delay, True, False)
            if ports is None:
                self._began = events.now() + _AGAIN_NS

    def _nothing_new(self) -> bool:
        return not self._over(events.now()) and not (self._uart.present and self._uart.heard)

    def _over(self, now: int) -> bool:
        return self._used and now >= self._began + _LIFE_NS

    def _serve(self) -> "tuple[bool, bool]":
        """Whether bytes moved on the line, and whether more can be moved at once."""
        console, uart = self._console, self._uart
        data = b""
        if uart.present and not console.line.congested:
            data = uart.read(_READ_LIMIT)
        busy = console.turn(data)
        if console.changed:
            # nobody hears of what a next life would not know
            self._memory.store(False)
            console.changed = False
        console.go_on()
        sent = 0
        if uart.present:
            sent = uart.write(memoryview(console.line.waiting(_TAKE_LIMIT)))
            console.line.sent(sent)
        return bool(data) or sent > 0, busy


def main() -> None:
    """Serves for ever."""
    guard = Guard("console")
    kept = boot.box()
    slots, box = _slots(kept), Box(kept[SLOTS * _HISTORY :])
    uart = Uart(nano, _SERIAL_PORT)
    if not uart.present:
        print("there is no serial port at 0x%x: this host has no operator's line" % _SERIAL_PORT)
    first = boot.snapshot() <= 1
    # the last life may have set it to anything
    uart = Uart(nano, _SERIAL_PORT, first)
    console = Console(_connector(), _reach, slots, _read_xen, _press, print, guard.call)
    for client in boot.clients():
        if client.link == "operator":
            console.toolstack(client.name, client.domid, client.gref, client.port)
        else:
            console.builder(client.domid, client.gref, client.port)
    life = Life(box)
    at_rest = life.begin()
    memory = ConsoleMemory(console, box)
    if first:
        console.line.greet()
    else:
        memory.load(at_rest)
    boot.ready()  # the first life may be too short for it
    if first:
        print("console: ready")
    _Serving(console, memory, life, uart).go_on()
