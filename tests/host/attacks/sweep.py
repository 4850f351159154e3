"""In place of a shard's main: tries every operation of every hypercall that names another domain or Xen.

Numbers, not names: an operation that a newer Xen adds is tried, too. Each is called with arguments that are
all zeros, and with small numbers in 32-bit and 64-bit words, of which one gets as far as FLASK's check.
What FLASK refuses stands in Xen's log; printed is what succeeded, or was never refused: "reached <hypercall>
<operation> <victim or -> <result>".
"""

import struct

import nano
from xoar.abi import xen as abi
from xoar.xen import boot, events

# xen/include/public/xen.h, platform.h, hvm/dm_op.h: what no shard uses, so that xoar.abi does not have it
_PLATFORM_OP, _KEXEC_OP, _DM_OP, _HYPFS_OP, _MCA = 7, 37, 41, 42, 48
_PLATFORM_VERSION = 0x03000000
_REFUSED = (1, 13, 38, 95)  # EPERM, EACCES, ENOSYS, EOPNOTSUPP
_ZEROS = bytes(512)
_PATTERNS = (_ZEROS, b"\1\0\0\0" * 128, b"\1\0\0\0\0\0\0\0" * 64, b"\2\0\0\0\0\0\0\0" * 64)
_RESERVATION = "<QQIIHHI"  # xen_memory_reservation and padding
_BY_RESERVATION = (0, 1, 6, 24)  # increase, decrease, populate; claim_pages
_COUNTING = (0, 1, 6, 11)  # refused, these say that no page was given
_FIRST_PORTS = range(1, 5)
_RESET = 10  # EVTCHNOP_reset
_SHARDS = range(1, 5)
_one = bytearray(struct.pack("<Q", 0x80000))  # a list of one frame number, where a list of extents is wanted


def _reached(hypercall, operation, victim, result):
    print(f"reached {hypercall} {operation} {victim} {result}")


def _with_head(pattern, layout, *head):
    buffer = bytearray(pattern)
    struct.pack_into(layout, buffer, 0, *head)
    return buffer


def _try(name, number, operation, victim, layout, *head):
    """Makes a hypercall whose only argument is a structure with a head and one of the patterns."""
    _judge(name, operation, victim, lambda _, buffer: nano.hypercall(number, buffer), layout, *head)


def _judge(name, operation, victim, call, layout, *head):
    results = [call(operation, _with_head(pattern, layout, *head)) for pattern in _PATTERNS]
    refused = any(-result in _REFUSED for result in results)
    if not refused or max(results) >= 0:
        _reached(name, operation, victim, max(results))


def xen_itself():
    """Operations on the hypervisor and on the policy."""
    for number in range(1, 64):
        version = abi.XEN_SYSCTL_INTERFACE_VERSION
        _try("sysctl", abi.HYPERVISOR_sysctl, number, "-", "<II", number, version)
    for number in range(1, 80):
        _try("platform_op", _PLATFORM_OP, number, "-", "<II", number, _PLATFORM_VERSION)
    for number in range(1, 40):
        _try("xsm_op", abi.HYPERVISOR_xsm_op, number, "-", "<II", number, abi.XEN_FLASK_INTERFACE_VERSION)
    for number in range(0, 8):
        _try("mca", _MCA, number, "-", "<II", number, 1)
        _judge("kexec_op", number, "-", lambda kexec, buffer: nano.hypercall(_KEXEC_OP, kexec, buffer), "")
        _judge("hypfs_op", number, "-", lambda hypfs, _: nano.hypercall(_HYPFS_OP, hypfs, 0, 0, 0, 0), "")


def other_domain(victim):
    """Operations that name a domain and are judged first."""
    for number in range(1, 128):
        version = abi.XEN_DOMCTL_INTERFACE_VERSION
        _try("domctl", abi.HYPERVISOR_domctl, number, victim, "<IIH", number, version, victim)
    for number in range(0, 32):
        _judge("hvm_op", number, victim, _hvm_op, "<H", victim)
        _judge("dm_op", number, victim, lambda _, buffer: _device_model(victim, buffer), "<I", number)


def _hvm_op(number, buffer):
    return nano.hypercall(abi.HYPERVISOR_hvm_op, number, buffer)


def _device_model(victim, buffer):
    buffers = struct.pack("<QQ", nano.address(buffer), len(buffer))
    return nano.hypercall(_DM_OP, victim, 1, buffers)


def shared_with_other_domain(victim):
    """Operations whose arguments are judged first: only a success is a right."""
    for operation in range(0, 32):
        if operation in _BY_RESERVATION:
            argument = bytearray(struct.pack(_RESERVATION, nano.address(_one), 1, 0, 0, victim, 0, 0))
        else:
            argument = _with_head(_ZEROS, "<H", victim)
        result = nano.hypercall(abi.HYPERVISOR_memory_op, operation, argument)
        if result > 0 or (result == 0 and operation not in _COUNTING):
            _reached("memory_op", operation, victim, result)
    for operation in range(0, 16):
        if operation != _RESET:
            for port in _FIRST_PORTS:
                event_channel(operation, victim, port)
    for reference in range(0, 16):
        place = 0x40000000 + (victim * 16 + reference) * 4096
        request = abi.gnttab_map_grant_ref.new(dom=victim, ref=reference, flags=2, host_addr=place)
        nano.hypercall(abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_map_grant_ref, request, 1)
        if abi.gnttab_map_grant_ref.get(request, "status") == 0:
            _reached("map_grant_ref", reference, victim, 0)


def event_channel(operation, victim, port=0):
    """One whose argument begins with a domid, and a second one or a port."""
    argument = _with_head(_ZEROS, "<HHI", victim, victim, port)
    if nano.hypercall(abi.HYPERVISOR_event_channel_op, operation, argument) == 0:
        _reached("event_channel_op", operation, victim, port)


def main():
    boot.ready()
    # Bootstrapper, while it lasts, is as good a victim as others; then all is as it stays
    events.wait(events.now() + 3_000_000_000)
    xen_itself()
    for victim in _SHARDS:
        other_domain(victim)
        shared_with_other_domain(victim)
    # last, since one of them is this domain, which may do that
    for victim in _SHARDS:
        event_channel(_RESET, victim)
    print("sweep done")
    while True:
        events.wait(None)
