"""A tenant's Toolstack that an attacker has taken over, once its operator's stream names a victim.

The stream's text is the domid of the victim's Toolstack, and the domid and uuid of one of its guests. The
Toolstack of the tenant acme is as it should be.
"""

import attempts

from xoar.messages.channel import Channel
from xoar.shards.toolstack import main as toolstack
from xoar.xen import boot, events
from xoar.xen.ring import xenstore_rings
from xoar.xenstore import wire
from xoar.xenstore.client import Client
from xoar.xenstore.errors import Refused


def link(server):
    found = boot.uses(server)
    outgoing, incoming = xenstore_rings(found.page)
    return Channel(incoming, outgoing, lambda: events.notify(found.port), server, "tenant")


def answer(channel, kind, fields):
    """Sends a request as it is, whether or not its sender may, and waits for the answer."""
    channel.send(kind, 7, **fields)
    while True:
        channel.flush()
        for message in channel.receive():
            if message.id == 7:
                return message
        events.wait(events.now() + 100_000_000)


def forge(builder, victim, other):
    for kind, fields in (
        ("unpause", {"domid": victim}),
        ("destroy", {"domid": victim}),
        ("unpause", {"domid": other}),
        ("destroy", {"domid": other}),
        ("destroy", {"domid": 1}),
        ("destroy", {"domid": 5}),
        ("build_shard", {"name": "tenant-acme"}),
        ("claim", {"driver": "net0", "bdf": 256, "bars": []}),
        ("fault", {"driver": "net0", "text": ""}),
        ("permit_hypercall", {"shard": "console", "security_class": "xen", "permission": "debug", "on": 1}),
        ("journal", {"start": 0}),
        ("assign_pci_device", {"driver": "net0", "bdf": 256}),
        ("withdraw_pci_device", {"driver": "net0"}),
        ("allow_delegation", {"driver": "net0", "toolstack": "tenant-bolt"}),
        ("withdraw_delegation", {"driver": "net0", "toolstack": "tenant-acme"}),
        ("plug", {"domid": victim, "driver": "net0", "device_kind": "vif", "number": 0}),
        ("unplug", {"domid": victim, "driver": "net0", "device_kind": "vif", "number": 0}),
    ):
        message = answer(builder, kind, fields)
        errno = message.fields.errno if message.kind == "error" else 0
        print(f"forged {kind} {fields.get('domid', '-')} {errno}")
    seen = answer(builder, "domains", {"start": 0}).fields.domains
    print(f"sees {[row.domid for row in seen]}")


def search(store, me, victim, other, uuid):
    home = f"/local/domain/{victim}"
    its = [home + below for below in ("", "/name", "/control/shutdown", "/data")]
    its.append(f"/vm/{uuid}")
    its.append(f"/local/domain/{other}")
    for path in its:
        for kind, more in (
            (wire.READ, b""),
            (wire.DIRECTORY, b""),
            (wire.WRITE, b"poweroff"),
            (wire.MKDIR, b""),
            (wire.RM, b""),
            (wire.GET_PERMS, b""),
            (wire.SET_PERMS, b"b%d\0" % me),
        ):
            tell(store, kind, path, path.encode() + b"\0" + more)
    for path in ("/local/domain/1", "/local/domain/99", "/vm/x", "/tool/x", "/"):
        tell(store, wire.WRITE, path, path.encode() + b"\0x")
    for kind, payload in (
        (wire.INTRODUCE, b"%d\x001\x001\0" % victim),
        (wire.RELEASE, b"%d\0" % victim),
        (wire.RESUME, b"%d\0" % victim),
        (wire.SET_TARGET, b"%d\0%d\0" % (me, victim)),
        (wire.CONTROL, b"check\0"),
    ):
        tell(store, kind, "-", payload)


def tell(store, kind, path, payload):
    try:
        store.call(kind, payload)
        outcome = "done"
    except Refused as error:
        outcome = error.name
    print(f"xenstore {kind} {path} {outcome}")


def meddle(console, victim):
    """Says things about streams that are somebody else's."""
    for number in range(1, 30):
        console.send("attach", 0, channel=number, domid=victim, what="console")
        console.send("relay", 0, channel=number, data=b"lies")
        console.send("hangup", 0, channel=number)
        while not console.flush():
            events.wait(events.now() + 10_000_000)


def main():
    if boot.setting("name") == "tenant-acme":
        toolstack.main()
    console, builder = link("console"), link("builder")
    ring = boot.uses("xenstore")
    writer, reader = xenstore_rings(ring.page)
    store = Client(
        reader, writer, lambda: events.notify(ring.port), lambda: events.wait(events.now() + 10_000_000)
    )
    print("hostile: ready")
    while True:
        for message in console.receive():
            if message.kind == "relay":
                other, victim, uuid = message.fields.data.decode().split()
                attempts.run([1, 2, 3, 4, 5, 6, int(other), int(victim)], print)
                forge(builder, int(victim), int(other))
                search(store, int(boot.setting("domid")), int(victim), int(other), uuid)
                meddle(console, int(victim))
                print("attempts done")
        events.wait(events.now() + 100_000_000)
