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


class Batch:
    """Hypercall `number` once for each argument, all with one exit to Xen; to be made as often as one likes.

    Needs no right of its own: Xen checks each call as if it came alone.
    """

    def __init__(self, number: int, operation: int, arguments: "list[bytearray]") -> None:
        entry = abi.multicall_entry
        self._arguments = arguments  # their addresses are in the calls
        self._calls = bytearray(len(arguments) * entry.size)
        for i in range(len(arguments)):
            base = i * entry.size
            entry.set(self._calls, "op", number, base)
            entry.set(self._calls, "command", operation, base)
            entry.set(self._calls, "argument", nano.address(arguments[i]), base)

    def make(self) -> None:
        """Makes all of them, in order, whether one fails or not."""
        call("several calls", abi.HYPERVISOR_multicall, self._calls, len(self._arguments))

    def succeeded(self, index: int) -> bool:
        """Whether that one's last result was 0."""
        return abi.multicall_entry.get(self._calls, "result", index * abi.multicall_entry.size) == 0


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
