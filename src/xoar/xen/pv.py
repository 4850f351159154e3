"""Control over PV domains while they are built. For Builder only.

Layouts: xen/include/public/{domctl,xen}.h, arch-x86/xen.h.
"""

import nano
from xoar.abi import xen as abi
from xoar.xen.hypercall import call, domctl

_TSC_MODE_NEVER_EMULATE = 2  # xen/arch/x86/include/asm/time.h: no public header has it


def pin(domid: int, machine_frame: int) -> None:
    """Has Xen check the page tables below a level 4 table, and keep them valid."""
    request = abi.mmuext_op.new(cmd=abi.MMUEXT_PIN_L4_TABLE, mfn=machine_frame)
    call("pin the page tables of domain %d" % domid, abi.HYPERVISOR_mmuext_op, request, 1, 0, domid)


def set_context(domid: int, context: bytearray) -> None:
    """Sets the state of vCPU 0 (struct vcpu_guest_context)."""
    domctl(
        "set the context",
        abi.DOMCTL_setvcpucontext,
        abi.domctl_setvcpucontext,
        domid,
        vcpu=0,
        ctxt=nano.address(context),
    )


def use_native_tsc(domid: int) -> None:
    """Lets the domain read the processor's time stamps itself; else each reading may be a trap."""
    domctl(
        "time stamp mode",
        abi.DOMCTL_settscinfo,
        abi.domctl_settscinfo,
        domid,
        tsc_mode=_TSC_MODE_NEVER_EMULATE,
    )


def shared_info_frame(domid: int) -> int:
    """The machine frame of a domain's shared info page."""
    layout = abi.domctl_getdomaininfo
    return layout.get(domctl("information", abi.DOMCTL_getdomaininfo, layout, domid), "shared_info_frame")
