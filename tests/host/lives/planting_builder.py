"""The shard builder, which is the attacker's at the end of each of its lives once there is a guest.

It plants what its next life is not to find: a mark in its heap, records in its recovery box, a mapping of the
guest's memory. And it tries to move its own memory out of Restorer's reach.
"""

from array import array

import nano
from xoar.abi import xen as abi
from xoar.messages.codec import encode
from xoar.shards.builder import main as shard
from xoar.xen import boot, events, frames, memory
from xoar.xen.box import Box
from xoar.xen.ring import PAGE_SIZE

_GUEST, _LAST_LIFE = 32, 40
_OWN = 0x200  # a frame of its image
_FREE = 5  # frames above its memory
_GMFN = 2  # XENMAPSPACE_gmfn
_sleep = events.wait
marks = []


def _life():
    return nano.memory(boot.LIFE_FRAME * PAGE_SIZE, 1, "I")[0]


def _memory_op(operation, request):
    return nano.hypercall(abi.HYPERVISOR_memory_op, operation, request)


def _foreign(frame):
    """Shows the guest's frame 2 at a frame of its own; the error."""
    wanted, here, errors = array("Q", [2]), array("Q", [frame]), array("i", [0])
    request = abi.add_to_physmap_batch.new(
        domid=abi.DOMID_SELF,
        space=abi.XENMAPSPACE_gmfn_foreign,
        size=1,
        foreign_domid=_GUEST,
        idxs=nano.address(memoryview(wanted)),
        gpfns=nano.address(memoryview(here)),
        errs=nano.address(memoryview(errors)),
    )
    return _memory_op(abi.XENMEM_add_to_physmap_batch, request) or errors[0]


def _moves():
    """What Xen says to each attempt to have other memory where it has its own."""
    move = abi.add_to_physmap.new(domid=abi.DOMID_SELF, space=_GMFN, idx=_OWN, gpfn=frames.take())
    info = abi.add_to_physmap.new(domid=abi.DOMID_SELF, space=abi.XENMAPSPACE_shared_info, gpfn=_OWN)
    hole = abi.remove_from_physmap.new(domid=abi.DOMID_SELF, gpfn=_OWN)
    grant = abi.gnttab_map_grant_ref.new(
        host_addr=_OWN * PAGE_SIZE, flags=abi.GNTMAP_host_map, ref=boot.clients()[0].gref,
        dom=boot.clients()[0].domid,
    )  # fmt: skip
    nano.hypercall(abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_map_grant_ref, grant, 1)
    return [
        _memory_op(abi.XENMEM_add_to_physmap, move),
        _memory_op(abi.XENMEM_add_to_physmap, info),
        _memory_op(abi.XENMEM_remove_from_physmap, hole),
        _foreign(_OWN),
        abi.gnttab_map_grant_ref.get(grant, "status") - 0x10000,
    ]


def _plant():
    before = bytes(nano.memory(_OWN * PAGE_SIZE, PAGE_SIZE))
    said = " ".join([str(error) for error in _moves()])
    same = before == bytes(nano.memory(_OWN * PAGE_SIZE, PAGE_SIZE))
    print(f"moved: {said}; memory is {'the same' if same else 'another'}")
    mapped = [_foreign(frames.take()) for _ in range(_FREE)]
    print("mapped: " + " ".join([str(error) for error in mapped]))
    marks.append("planted")
    box = Box(boot.box())
    records = box.load()
    records.append(b"rubbish")
    records.append(encode("remember_domid", 0, domid=3))
    records.append(encode("remember_permit", 0, shard="guest", security_class="xen", permission="x", on=1))
    box.store(records)


def _wait(deadline=None):
    life = _life()
    if not life:  # before the snapshot
        return _sleep(deadline)
    if not marks:
        marks.append(life)
        print(f"life {life}: whole")
    elif marks[0] != life:
        print(f"life {life}: finds {marks}")
    if len(marks) == 1 and life <= _LAST_LIFE and _there():
        _plant()
    return _sleep(deadline)


def _there():
    try:
        memory.Frame(_GUEST, 2).unmap()
    except OSError:
        return False
    return True


def main():
    events.wait = _wait
    shard.main()
