"""Another domain stopped, its state read and put back, and which of its pages it has written. For Restorer
only.

Needs `domain pause, unpause, resume, getdomaininfo`, `hvm gethvmc, sethvmc` and `shadow logdirty` on the
other domain (FLASK), and hypervisor patches 0009 and 0013. Layouts: xen/include/public/domctl.h.
"""

import nano
from xoar.abi import xen as abi
from xoar.xen.hypercall import domctl


def pause(domid: int) -> None:
    """Returns once no vCPU of the domain runs any more."""
    domctl("pause", abi.DOMCTL_pausedomain, abi.domctl_pausedomain, domid)


def unpause(domid: int) -> None:
    domctl("unpause", abi.DOMCTL_unpausedomain, abi.domctl_unpausedomain, domid)


def resume(domid: int) -> None:
    """Takes a domain's end back: its vCPUs go on where they are. No change if it has not ended."""
    domctl("resume", abi.DOMCTL_resumedomain, abi.domctl_resumedomain, domid)


def context(domid: int) -> bytearray:
    """The state of a paused PVH domain's vCPUs and interrupt controllers."""
    layout = abi.domctl_gethvmcontext
    size = layout.get(domctl("context size", abi.DOMCTL_gethvmcontext, layout, domid), "size")
    state = bytearray(size)
    domctl("context", abi.DOMCTL_gethvmcontext, layout, domid, size=size, buffer=nano.address(state))
    return state


def set_context(domid: int, state: bytearray) -> None:
    """Puts back what `context` returned."""
    layout, size = abi.domctl_sethvmcontext, len(state)
    domctl("set the context", abi.DOMCTL_sethvmcontext, layout, domid, size=size, buffer=nano.address(state))


def log_dirty(domid: int) -> None:
    """From now on Xen keeps a list of the pages that the domain writes. What others write in them by their
    grants it does not see."""
    layout = abi.domctl_shadow_op
    operation = abi.XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY
    domctl("log the dirty pages", abi.DOMCTL_shadow_op, layout, domid, op=operation)


def take_dirty(domid: int, bitmap: "memoryview", pages: int) -> None:
    """Sets a bit in `bitmap` for each of the first `pages` pages written since the last time; all others are
    cleared. Takes what the domain, which is paused, has mapped of others out of its memory map first; but for
    grants."""
    domctl(
        "dirty pages",
        abi.DOMCTL_shadow_op,
        abi.domctl_shadow_op,
        domid,
        op=abi.XEN_DOMCTL_SHADOW_OP_CLEAN,
        mode=abi.XEN_DOMCTL_SHADOW_LOGDIRTY_UNMAP,
        pages=pages,
        dirty_bitmap=nano.address(bitmap),
    )
