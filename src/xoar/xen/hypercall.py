"""Hypercalls of a nano domain; each failed one raises OSError(errno, what was asked)."""

import nano
from xoar.abi import xen as abi
from xoar.abi.layout import Layout


def call(what: str, number: int, *arguments: "int | bytes | bytearray | memoryview") -> int:
    """Makes hypercall `number`; returns its result (>= 0). `what` names it in the error."""
    result = nano.hypercall(number, *arguments)
    if result < 0:
        raise OSError(-result, what)
    return result


def several(number: int, operation: int, arguments: "list[bytearray]") -> "list[int]":
    """Makes hypercall `number` once for each argument, all with one exit to Xen; their results.

    A negative one is -errno. Needs no right of its own: Xen checks each call as if it came alone.
    """
    entry = abi.multicall_entry
    calls = bytearray(len(arguments) * entry.size)
    for i in range(len(arguments)):
        base = i * entry.size
        entry.set(calls, "op", number, base)
        entry.set(calls, "command", operation, base)
        entry.set(calls, "argument", nano.address(arguments[i]), base)
    call("several calls", abi.HYPERVISOR_multicall, calls, len(arguments))
    results = [entry.get(calls, "result", i * entry.size) for i in range(len(arguments))]
    return [result - (1 << 64) if result >> 63 else result for result in results]


def memory_op(what: str, operation: int, argument: bytearray) -> int:
    return call(what, abi.HYPERVISOR_memory_op, operation, argument)


def domctl(name: str, operation: int, layout: Layout, domid: int, **fields: "int | bytes") -> bytearray:
    """Makes one domctl on a domain; returns the structure as Xen left it."""
    request = layout.new(
        cmd=operation, interface_version=abi.XEN_DOMCTL_INTERFACE_VERSION, domain=domid, **fields
    )
    call("%s of domain %d" % (name, domid), abi.HYPERVISOR_domctl, request)
    return request


def sysctl(name: str, operation: int, layout: Layout, **fields: int) -> bytearray:
    """Makes one sysctl; returns the structure as Xen left it."""
    request = layout.new(cmd=operation, interface_version=abi.XEN_SYSCTL_INTERFACE_VERSION, **fields)
    call(name, abi.HYPERVISOR_sysctl, request)
    return request
