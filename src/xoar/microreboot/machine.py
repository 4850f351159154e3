"""What Restorer does to Xen: other domains stopped, their memory mapped, their state put back."""

import nano
from xoar.abi import xen as abi
from xoar.xen import control, events, memory, states


class Machine:
    """Hypercalls; each raises OSError if Xen refuses."""

    def map_all(self, domid: int, count: int) -> memoryview:
        return memory.map_all(domid, count)

    def room(self, count: int) -> memoryview:
        return memory.room(count)

    def buffer(self, length: int) -> "tuple[memoryview, memoryview]":
        """The same bytes one by one and as 32-bit words."""
        view = memoryview(bytearray(length))
        return view, nano.memory(nano.address(view), length // 4, "I")

    def pause(self, domid: int) -> None:
        states.pause(domid)

    def unpause(self, domid: int) -> None:
        states.unpause(domid)

    def resume(self, domid: int) -> None:
        states.resume(domid)

    def ended(self, domid: int) -> "int | None":
        """Why a domain has ended (SHUTDOWN_*); None while it goes on. OSError(ESRCH) if it is not there."""
        info = control.domain(domid)
        if info is None or info.flags & abi.XEN_DOMINF_dying:
            raise OSError(3, "domain %d is gone" % domid)
        reason: "int | None" = info.reason
        return reason

    def context(self, domid: int) -> bytearray:
        return states.context(domid)

    def set_context(self, domid: int, state: bytearray) -> None:
        states.set_context(domid, state)

    def log_dirty(self, domid: int) -> None:
        states.log_dirty(domid)

    def take_dirty(self, domid: int, bitmap: memoryview, pages: int) -> None:
        states.take_dirty(domid, bitmap, pages)

    def notify(self, port: int) -> None:
        events.notify(port)

    def now(self) -> int:
        return nano.now()
