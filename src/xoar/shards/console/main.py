"""The Console shard: wires the core to grants, event channels, Builder, Toolstack and the serial port."""

import nano
from xoar.abi import xen as abi
from xoar.messages.channel import Channel
from xoar.messages.renewal import SERVER, Renewal
from xoar.shards.console.console import Console
from xoar.shards.console.uart import Uart
from xoar.xen import boot, events, hypercall, ring
from xoar.xen.guard import Guard
from xoar.xen.served import Served

_SERIAL_PORT = 0x2F8

# the serial port raises no interrupt here, so it is looked at: often while bytes move, seldom when idle
_FASTEST_NS = 2_000_000
_SLOWEST_NS = 25_000_000
_READ_LIMIT = 512
_TAKE_LIMIT = 1024


class _Connection(Served):
    """A domain's console ring."""

    def __init__(self, domid: int, gref: int, port: int) -> None:
        super().__init__(domid, gref, port)
        self.to_guest, self.from_guest = ring.console_rings(self.page)


class _Link(Served):
    """A link of another shard: messages over its page."""

    def __init__(self, domid: int, gref: int, port: int, peer: str) -> None:
        super().__init__(domid, gref, port)
        incoming, outgoing = ring.xenstore_rings(self.page)
        renewal = Renewal(self.page, SERVER)
        self.channel = Channel(incoming, outgoing, self.notify, peer, "console", print, renewal)


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


def main() -> None:
    """Serves until the domain is destroyed."""
    guard = Guard("console")
    builders = []
    console = Console(_Connection, _Link, _read_xen, _press)
    for client in boot.clients():
        if client.link == "operator":
            console.toolstack(client.name, client.domid, client.gref, client.port)
        else:
            builders.append(_Link(client.domid, client.gref, client.port, client.name).channel)
    uart = Uart(nano, _SERIAL_PORT)
    if not uart.present:
        print("there is no serial port at 0x%x: this host has no operator's line" % _SERIAL_PORT)
    output = memoryview(b"")
    delay = _FASTEST_NS
    busy = True
    boot.ready()
    print("console: ready")
    while True:
        console.domains.fired(events.wait(events.now() + (0 if busy else delay)))
        busy = False
        for channel in builders:
            for message in channel.receive():
                guard.call(console.introduction, channel, message)
            channel.flush()
            busy = busy or channel.more
        moved = False
        if uart.present and not console.line.congested:
            data = uart.read(_READ_LIMIT)
            if data:
                guard.call(console.receive, data)
                moved = True
        busy = guard.call(console.turn) or busy
        if not output:
            output = memoryview(console.line.take(_TAKE_LIMIT))
        if output and uart.present:
            sent = uart.write(output)
            output = output[sent:]
            moved = moved or sent > 0
        busy = busy or moved
        delay = _FASTEST_NS if moved else min(delay + delay // 2, _SLOWEST_NS)
