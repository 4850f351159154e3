"""The shard console, which is the attacker's at the end of each of its lives once there is a guest.

It plants what its next life is not to find: a mark in its heap, records in its recovery box, other settings
of the serial port. It tries to map the guest's console, which it may only copy.
"""

import nano
from xoar.abi import xen as abi
from xoar.messages.codec import encode
from xoar.shards.console import main as shard
from xoar.xen import boot, events
from xoar.xen.box import Box
from xoar.xen.ring import PAGE_SIZE

_GUEST, _LAST_LIFE = 32, 12
_LINE_CONTROL = 0x2F8 + 3
_sleep = events.wait
_kicked = boot.roll_back
marks = []
connected = []


def _life():
    return nano.memory(boot.LIFE_FRAME * PAGE_SIZE, 1, "I")[0]


def _map():
    """What Xen says to an attempt to map the guest's console."""
    request = abi.gnttab_map_grant_ref.new(
        host_addr=0x80000000, flags=abi.GNTMAP_host_map, ref=abi.GNTTAB_RESERVED_CONSOLE, dom=_GUEST
    )
    nano.hypercall(abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_map_grant_ref, request, 1)
    return abi.gnttab_map_grant_ref.get(request, "status") - 0x10000


def _plant():
    marks.append("planted")
    print(f"mapped: {_map()}")
    memory = boot.box()
    box = Box(memory[shard.SLOTS * shard._HISTORY :])
    records = box.load()
    records.append(b"rubbish")
    records.append(
        encode("remember_console", 0, domid=4, parent=5, gref=0, port=1, slot=60000, ended=0, broken=0)
    )
    records.append(encode("remember_hangup", 0, domid=_GUEST, number=1))
    box.store(records)
    nano.outb(_LINE_CONTROL, 0x1B)  # parity: whoever reads the line finds only errors


def _roll_back():
    """The end of a life: nothing of its own is stored after this."""
    life = _life()
    if connected and life <= _LAST_LIFE:
        _plant()
    _kicked()


def _wait(deadline=None):
    life = _life()
    if life:
        if not marks:
            marks.append(life)
            print(f"life {life}: whole")
        elif marks[0] != life:
            print(f"life {life}: finds {marks}")
    return _sleep(deadline)


def main():
    real = shard.copied

    def copied(sides, buffer, domid, gref, port):
        if domid == _GUEST:
            connected.append(domid)
        return real(sides, buffer, domid, gref, port)

    shard.copied = copied
    events.wait = _wait
    boot.roll_back = _roll_back
    shard.main()
