"""Handing devices to domains: their memory, configuration space, DMA. For Builder and Bootstrapper only.

The caller must have the memory itself that it hands on (Xen asks for both).
Layouts: xen/include/public/domctl.h.
"""

from xoar.abi import xen as abi
from xoar.xen.hypercall import domctl

PAGE = 4096
_MOST_FRAMES = 64  # that Xen maps in one call


def permit_memory(domid: int, address: int, size: int) -> None:
    """Allows a domain to map the machine memory of a device; whole pages."""
    domctl(
        "memory permission",
        abi.DOMCTL_iomem_permission,
        abi.domctl_iomem_permission,
        domid,
        first_mfn=address // PAGE,
        nr_mfns=(address % PAGE + size + PAGE - 1) // PAGE,
        allow_access=1,
    )


def map_memory(domid: int, guest_address: int, address: int, size: int) -> None:
    """Maps a device's memory, which the domain has been permitted, into a PVH domain; whole pages."""
    frame, count = address // PAGE, size // PAGE
    for first in range(0, count, _MOST_FRAMES):
        domctl(
            "memory mapping",
            abi.DOMCTL_memory_mapping,
            abi.domctl_memory_mapping,
            domid,
            first_gfn=guest_address // PAGE + first,
            first_mfn=frame + first,
            nr_mfns=min(_MOST_FRAMES, count - first),
            add_mapping=1,
        )


def assign(domid: int, bdf: int) -> None:
    """Lets a device (a records.BDF number) do DMA into a domain, and nowhere else."""
    domctl(
        "assign device %04x:%02x:%02x.%x to" % (bdf >> 16, bdf >> 8 & 255, bdf >> 3 & 31, bdf & 7),
        abi.DOMCTL_assign_device,
        abi.domctl_assign_device,
        domid,
        dev=abi.XEN_DOMCTL_DEV_PCI,
        flags=abi.XEN_DOMCTL_DEV_RDM_RELAXED,
        machine_sbdf=bdf,
    )
