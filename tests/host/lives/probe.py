"""A shard that does another harm in each of its lives, and says at the start of each whether it is whole."""

import nano
from xoar.abi import xen as abi
from xoar.xen import boot, events
from xoar.xen.ring import PAGE_SIZE

_VCPU_OP, _SCHED_OP, _SHUTDOWN = 24, 29, 2
_REGISTER_RUNSTATE, _REGISTER_INFO = 5, 10
_INIT_CONTROL = 11
_IMAGE = 0x100000

marks = []
pattern = bytearray(b"\x5a" * (1 << 17))
link = boot.uses("xenstore").page


def fill():
    for start in range(0, len(pattern), PAGE_SIZE):
        pattern[start : start + 64] = b"\xa5" * 64
    marks.append(bytearray(b"planted" * 20000))


def open_channels():
    own = int(boot.setting("domid"))
    for _ in range(10):
        events.allocate(abi.DOMID_SELF, own)


def crash():
    raise RuntimeError("as intended")


def hang():
    while True:
        pass


def plant_code():
    nano.memory(_IMAGE, 0x10000)[:] = b"\xcc" * 0x10000


def deafen():
    area = bytearray(4096)
    tries = [
        nano.hypercall(_VCPU_OP, _REGISTER_INFO, 0, area),
        nano.hypercall(_VCPU_OP, _REGISTER_RUNSTATE, 0, area),
        nano.hypercall(abi.HYPERVISOR_event_channel_op, _INIT_CONTROL, area),
        nano.hypercall(abi.HYPERVISOR_hvm_op, 0, abi.hvm_param.new(domid=abi.DOMID_SELF, index=0, value=0)),
        nano.hypercall(
            abi.HYPERVISOR_memory_op,
            abi.XENMEM_add_to_physmap,
            abi.add_to_physmap.new(domid=abi.DOMID_SELF, space=abi.XENMAPSPACE_shared_info, gpfn=600),
        ),
    ]
    print("refused: " + " ".join([str(number) for number in tries]))
    # masks all its events, and leaves its word for "look at them" set
    shared = nano.memory(nano.shared_info(), abi.shared_info.size)
    for name, value in (("evtchn_mask", 0xFF), ("upcall", 1)):
        offset, size = abi.shared_info.fields[name]
        shared[offset : offset + size] = bytes([value]) * size


def overwrite_shared_pages():
    link.bytes[:] = b"\xee" * PAGE_SIZE
    nano.memory(boot.LIFE_FRAME * PAGE_SIZE, PAGE_SIZE)[:] = b"\xee" * PAGE_SIZE
    events.notify(int(boot.setting("restorer")))  # asks for another snapshot


def close_timer():
    for port in range(1, 64):
        if port not in (int(boot.setting("restorer")), boot.uses("xenstore").port):
            nano.hypercall(
                abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_close, abi.evtchn_send.new(port=port)
            )


def end():
    reason = bytearray(4)
    reason[0] = abi.SHUTDOWN_poweroff
    nano.hypercall(_SCHED_OP, _SHUTDOWN, reason)


def nothing():
    pass


HARMS = (
    nothing,
    fill,
    open_channels,
    crash,
    hang,
    plant_code,
    deafen,
    overwrite_shared_pages,
    close_timer,
    end,
)


def main():
    life = boot.snapshot()
    boot.ready()
    whole = not marks and pattern == b"\x5a" * len(pattern) and link.words[0] == 0
    state = "whole" if whole else "DAMAGED"
    print(f"probe life {life}: {state}")
    start = events.now()
    events.wait(start + 1000000)  # the timer works
    harm = HARMS[life % len(HARMS)] if life < 100 else HARMS[life % 3]
    harm()
    while True:
        events.wait()
