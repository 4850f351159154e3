"""Event channels of a nano domain (xen/include/public/event_channel.h), its clock and its sleep."""

import nano
from xoar.abi import xen as abi
from xoar.xen import hypercall

_open: "list[int]" = []  # ports that this domain has bound, and not closed


def _evtchn(what: str, operation: int, argument: bytearray) -> bytearray:
    hypercall.call(what, abi.HYPERVISOR_event_channel_op, operation, argument)
    return argument


def bind(domid: int, remote_port: int) -> int:
    """Binds to a port that domain `domid` offers to this domain; returns the local port."""
    request = abi.evtchn_bind_interdomain.new(remote_dom=domid, remote_port=remote_port)
    _evtchn("bind port %d of domain %d" % (remote_port, domid), abi.EVTCHNOP_bind_interdomain, request)
    port = abi.evtchn_bind_interdomain.get(request, "local_port")
    _open.append(port)
    return port


def bind_virq(virq: int) -> int:
    """Binds a virtual interrupt of Xen's (VIRQ_DOM_EXC, ...); returns the local port."""
    request = abi.evtchn_bind_virq.new(virq=virq)
    port = abi.evtchn_bind_virq.get(_evtchn("bind virq %d" % virq, abi.EVTCHNOP_bind_virq, request), "port")
    _open.append(port)
    return port


def allocate(domid: int, remote: int) -> int:
    """Makes a port in domain `domid` that domain `remote` may bind to; returns that port."""
    request = abi.evtchn_alloc_unbound.new(dom=domid, remote_dom=remote)
    _evtchn("allocate a port of domain %d for %d" % (domid, remote), abi.EVTCHNOP_alloc_unbound, request)
    return abi.evtchn_alloc_unbound.get(request, "port")


_send = abi.evtchn_send.new()


def notify(port: int) -> None:
    """Signals the other end. A vanished other end is no error: its events have nowhere to go."""
    abi.evtchn_send.set(_send, "port", port)
    nano.hypercall(abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_send, _send)


class Bell:
    """Signals the other end of `port` once for whatever has happened since the last time: a signal costs
    more than a message, at either end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._rung = False

    def ring(self) -> None:
        """There is something to signal."""
        self._rung = True

    def send(self) -> None:
        """Signals, if there is something; to be called before this domain sleeps."""
        if self._rung:
            self._rung = False
            notify(self._port)


def close(port: int) -> None:
    """Closes a local port."""
    if port in _open:
        _open.remove(port)
    _evtchn("close port %d" % port, abi.EVTCHNOP_close, abi.evtchn_send.new(port=port))


def bound() -> "list[int]":
    """The ports that this domain has bound itself, and not closed."""
    return list(_open)


class Ends:
    """This domain's ends of these channels, to be looked at again and again."""

    def __init__(self, ports: "list[int]") -> None:
        self._requests = [abi.evtchn_status.new(dom=abi.DOMID_SELF, port=port) for port in ports]
        number, operation = abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_status
        self._batch = hypercall.Batch(number, operation, self._requests)

    def look(self) -> "list[tuple[int, int]]":
        """What each one is (EVTCHNSTAT_*; -1 if it is closed or Xen does not say) and whose its other end is:
        a domid, or the number of a virtual interrupt."""
        self._batch.make()
        get, found = abi.evtchn_status.get, []
        for i in range(len(self._requests)):
            known = self._batch.succeeded(i)
            request = self._requests[i]
            found.append((get(request, "status"), get(request, "peer")) if known else (-1, 0))
        return found


def closing(ports: "list[int]", most: int) -> hypercall.Batch:
    """What closes every port up to `most` that is not one of these."""
    others = [abi.evtchn_send.new(port=port) for port in range(1, most + 1) if port not in ports]
    return hypercall.Batch(abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_close, others)


def now() -> int:
    """Nanoseconds since Xen's boot."""
    return nano.now()


def wait(deadline: "int | None" = None) -> "list[int]":
    """Sleeps until ports fire, and returns them, cleared; an empty list at `deadline` (ns, as now())."""
    return nano.wait(deadline or 0)
