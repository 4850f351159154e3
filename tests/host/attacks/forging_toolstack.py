"""The Toolstack, until it is the attacker's: then it sends what only others may, and rubbish."""

from forging import NOT_ITS, Link, break_ring, rubbish
from takeover import GuestRuns, when

from xoar.shards.toolstack import main as shard
from xoar.xen import boot, events, ring
from xoar.xenstore import wire
from xoar.xenstore.client import Client
from xoar.xenstore.errors import Refused

_OTHERS = (0, 1, 2, 3, 4, 5, 6, 7, 31, 33, 0x7FF0, 0xFFFF)
_FLOOD = 500
_STORE_REQUESTS = (
    (wire.INTRODUCE, b"40\x001\x001\0"),
    (wire.RELEASE, b"1\0"),
    (wire.SET_TARGET, b"32\x001\0"),
)


def to_builder():
    builder = Link("builder", boot.uses("builder"), "toolstack")
    for domid in _OTHERS:
        for kind in ("unpause", "destroy"):
            builder.forge(kind, domid=domid)
        for kind in ("plug", "unplug"):
            builder.forge(kind, domid=domid, driver="net0", device_kind="vif", number=0)
    for kind in ("allow_delegation", "withdraw_delegation"):
        builder.forge(kind, driver="net0", toolstack="toolstack")
    for name in ("xenstore", "builder", "logic", "pciback", "net0"):
        builder.forge("build_shard", name=name)
    unknown = {"uuid": bytes(16), "ramdisk": bytes(32), "command_line": "", "memory_kib": 32768, "vcpus": 1}
    unknown["group"] = ""
    builder.forge("build", kernel=bytes(range(32)), **unknown)
    for kind, fields in NOT_ITS:
        builder.forge(kind, **fields)
    for _ in range(_FLOOD):
        builder._channel.send("domains", 1, start=0)
        builder.notify()
    events.wait(events.now() + 500_000_000)
    print(f"forged builder flood {builder.ask('domains', start=0)}")
    builder.rubbish()


def to_xenstore():
    link = boot.uses("xenstore")
    to_server, to_client = ring.xenstore_rings(link.page)
    store = Client(
        to_client, to_server, lambda: events.notify(link.port), lambda: events.wait(events.now() + 10_000_000)
    )
    for kind, payload in _STORE_REQUESTS:
        try:
            store.call(kind, payload)
            print(f"forged xenstore {kind} done")
        except Refused as error:
            print(f"forged xenstore {kind} {error.name}")
    to_server.write(rubbish(900))
    events.notify(link.port)
    events.wait(events.now() + 100_000_000)
    break_ring(link.page)
    events.notify(link.port)


def attack():
    to_builder()
    to_xenstore()
    print("forging done")
    while True:
        events.wait(None)


def main():
    when(GuestRuns(), attack)
    shard.main()
