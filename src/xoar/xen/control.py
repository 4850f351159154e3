"""Control over other domains: create, start, stop, list. For Builder and Bootstrapper only.

Layouts: xen/include/public/{domctl,sysctl}.h, hvm/params.h, hvm/save.h, xsm/flask_op.h.
"""

from collections import namedtuple

import nano
from xoar.abi import xen as abi
from xoar.xen.hypercall import call, domctl, sysctl

DomainInfo = namedtuple(
    "DomainInfo",
    ("domid", "flags", "reason", "pages", "max_pages", "vcpus", "cpu_time", "sid"),
)
"""reason: SHUTDOWN_* or None while it runs; memory in 4 KiB pages, cpu_time in ns."""

_LABEL_SIZE = 256
MOST_PORTS = 1023
"""The highest port of an event channel that a PVH domain can have, unless it is created with another
limit."""
_MOST_PORTS_OF_BACKENDS = 8191
_EINVAL = 22  # public/errno.h
_SAME_CAP = 0xFFFF  # xen/common/sched/credit.c, csched_dom_cntl
WEIGHT_OF_SERVICES = 1024
"""Of those that guests wait for. Guests under I/O have no credits left then, so whoever is woken runs before
them. Much more would let a busy shard keep them from running at all (docs/xen-notes.md)."""
_PAGE = 32  # domains in one sysctl
_FLAT_CODE, _FLAT_DATA, _TASK = 0xC9B, 0xC93, 0x8B  # arbytes as docs/misc/pvh.pandoc wants the segments


def label_to_sid(label: str) -> int:
    """FLASK's number for a security context. OSError(EINVAL) if the policy has no such label."""
    context = label.encode()
    request = _flask(abi.FLASK_CONTEXT_TO_SID, 0, context, len(context), "label %s" % label)
    return abi.flask_sid_context.get(request, "sid")


def sid_to_label(sid: int) -> str:
    """The security context behind FLASK's number."""
    context = bytearray(_LABEL_SIZE)
    request = _flask(abi.FLASK_SID_TO_CONTEXT, sid, context, _LABEL_SIZE, "sid %d" % sid)
    size = abi.flask_sid_context.get(request, "size")
    return bytes(context[:size]).rstrip(b"\0").decode()


def _flask(command: int, sid: int, context: "bytes | bytearray", size: int, what: str) -> bytearray:
    request = abi.flask_sid_context.new(
        cmd=command,
        interface_version=abi.XEN_FLASK_INTERFACE_VERSION,
        sid=sid,
        size=size,
        context=nano.address(context),
    )
    call(what, abi.HYPERVISOR_xsm_op, request)
    return request


def set_boolean(name: str, on: bool) -> None:
    """Turns a boolean of the policy on or off, unless it is so already, which Xen tells everybody.
    OSError(ENOENT) if the policy has none of that name."""
    if bool(abi.flask_boolean.get(_boolean(name, abi.FLASK_GETBOOL), "enforcing")) != on:
        _boolean(name, abi.FLASK_SETBOOL, new_value=int(on), commit=1)


def _boolean(name: str, command: int, **values: int) -> bytearray:
    text = bytearray(name.encode())  # Xen writes it again
    request = abi.flask_boolean.new(
        cmd=command,
        interface_version=abi.XEN_FLASK_INTERFACE_VERSION,
        bool_id=0xFFFFFFFF,  # by its name
        size=len(text),
        name=nano.address(text),
        **values,
    )
    call("boolean %s" % name, abi.HYPERVISOR_xsm_op, request)
    return request


def create(
    domid: int,
    uuid: bytes,
    sid: int,
    vcpus: int,
    grant_frames: int,
    map_frames: int,
    most_ports: int = MOST_PORTS,
    pv: bool = False,
) -> None:
    """Makes an empty PVH domain with this domid; a PV one can have devices (and is kept apart by the IOMMU).

    Number explicitly: nothing may depend on Xen's choice.
    """
    domctl(
        "create",
        abi.DOMCTL_createdomain,
        abi.domctl_createdomain,
        domid,
        ssidref=sid,
        handle=uuid,
        flags=abi.XEN_DOMCTL_CDF_iommu if pv else abi.XEN_DOMCTL_CDF_hvm | abi.XEN_DOMCTL_CDF_hap,
        emulation_flags=0 if pv else abi.XEN_X86_EMU_LAPIC,
        max_vcpus=vcpus,
        max_evtchn_port=_MOST_PORTS_OF_BACKENDS if pv else most_ports,
        max_grant_frames=grant_frames,
        max_maptrack_frames=map_frames,
        grant_opts=1,
    )
    domctl("vCPUs", abi.DOMCTL_max_vcpus, abi.domctl_max_vcpus, domid, max=vcpus)


def limit_memory(domid: int, kib: int) -> None:
    domctl("memory limit", abi.DOMCTL_max_mem, abi.domctl_max_mem, domid, max_memkb=kib)


def set_weight(domid: int, weight: int) -> None:
    """Sets a domain's share of the processors, 1..65535; it has 256 at first. Schedulers of Xen other than
    credit and credit2 know no weights: then nothing changes."""
    for scheduler in (abi.XEN_SCHEDULER_CREDIT2, abi.XEN_SCHEDULER_CREDIT):
        try:
            domctl(
                "weight",
                abi.DOMCTL_scheduler_op,
                abi.domctl_scheduler_op,
                domid,
                sched_id=scheduler,
                action=abi.XEN_DOMCTL_SCHEDOP_putinfo,
                weight=weight,
                cap=_SAME_CAP,
            )
            return
        except OSError as error:
            if error.errno != _EINVAL:  # of a scheduler that is not this Xen's
                raise


def unpause(domid: int) -> None:
    domctl("unpause", abi.DOMCTL_unpausedomain, abi.domctl_unpausedomain, domid)


def destroy(domid: int) -> None:
    """Takes all back; the domain stays in the list, dying, while others map its pages."""
    domctl("destroy", abi.DOMCTL_destroydomain, abi.domctl_destroydomain, domid)


def set_param(domid: int, index: int, value: int) -> None:
    """Sets an HVM parameter (HVM_PARAM_STORE_PFN, ...)."""
    request = abi.hvm_param.new(domid=domid, index=index, value=value)
    call(
        "HVM parameter %d of domain %d" % (index, domid), abi.HYPERVISOR_hvm_op, abi.HVMOP_set_param, request
    )


def set_start_state(domid: int, entry: int, start_info: int) -> None:
    """Sets vCPU 0 as docs/misc/pvh.pandoc wants a PVH entry: 32-bit, unpaged, ebx = start info."""
    header = saved_header(domid)
    cpu = abi.hvm_hw_cpu.new(rip=entry, rbx=start_info, cr0=0x11, rflags=0x2, dr6=0xFFFF0FF0, dr7=0x400)
    for segment, kind in (("cs", _FLAT_CODE), ("ds", _FLAT_DATA), ("es", _FLAT_DATA), ("ss", _FLAT_DATA)):
        abi.hvm_hw_cpu.set(cpu, segment + "_limit", 0xFFFFFFFF)
        abi.hvm_hw_cpu.set(cpu, segment + "_arbytes", kind)
    abi.hvm_hw_cpu.set(cpu, "tr_limit", 0x67)
    abi.hvm_hw_cpu.set(cpu, "tr_arbytes", _TASK)
    record = abi.hvm_save_descriptor
    context = header + record.new(typecode=abi.HVM_SAVE_CPU, length=len(cpu)) + cpu
    context += record.new(typecode=abi.HVM_SAVE_END)
    domctl(
        "set the context",
        abi.DOMCTL_sethvmcontext,
        abi.domctl_sethvmcontext,
        domid,
        size=len(context),
        buffer=nano.address(context),
    )


_header = b""


def know_header(header: bytes) -> None:
    """What `saved_header` returns from now on, without asking Xen."""
    global _header
    _header = header


def saved_header(domid: int) -> bytes:
    """The header record that Xen wants to see again, as it stands at the start of a saved context.

    It speaks of the hypervisor and the processor, not of the domain: one serves all. Xen is asked only once,
    which needs `hvm gethvmc` on that domain.
    """
    global _header
    if not _header:
        layout = abi.domctl_gethvmcontext
        size = layout.get(domctl("context size", abi.DOMCTL_gethvmcontext, layout, domid), "size")
        context = bytearray(size)
        domctl("context", abi.DOMCTL_gethvmcontext, layout, domid, size=size, buffer=nano.address(context))
        record = abi.hvm_save_descriptor
        _header = bytes(context[: record.size + record.get(context, "length")])
    return _header


def domains(first: int = 0) -> "list[DomainInfo]":
    """The domains from `first` up that this domain may see, in ascending order."""
    result: "list[DomainInfo]" = []
    while True:
        page = _domain_page(first, _PAGE)
        result += page
        if len(page) < _PAGE:
            return result
        first = page[-1].domid + 1


def domain(domid: int) -> "DomainInfo | None":
    """One domain, or None if it does not exist."""
    found = _domain_page(domid, 1)
    return found[0] if found and found[0].domid == domid else None


def _domain_page(first: int, most: int) -> "list[DomainInfo]":
    info = abi.domaininfo
    buffer = bytearray(most * info.size)
    layout = abi.sysctl_getdomaininfolist
    request = sysctl(
        "list domains",
        abi.SYSCTL_getdomaininfolist,
        layout,
        first_domain=first,
        max_domains=most,
        buffer=nano.address(buffer),
    )
    return [_info(buffer, i * info.size) for i in range(layout.get(request, "num_domains"))]


def _info(buffer: bytearray, base: int) -> DomainInfo:
    get = abi.domaininfo.get
    flags = get(buffer, "flags", base)
    reason = None
    if flags & abi.XEN_DOMINF_shutdown:
        reason = (flags >> abi.XEN_DOMINF_shutdownshift) & abi.XEN_DOMINF_shutdownmask
    return DomainInfo(
        get(buffer, "domain", base),
        flags,
        reason,
        get(buffer, "tot_pages", base),
        get(buffer, "max_pages", base),
        get(buffer, "max_vcpu_id", base) + 1,
        get(buffer, "cpu_time", base),
        get(buffer, "ssidref", base),
    )


def memory_kib() -> "tuple[int, int]":
    """The host's memory: (all, free), KiB."""
    layout = abi.sysctl_physinfo
    request = sysctl("physical memory", abi.SYSCTL_physinfo, layout)
    # pages that are still being scrubbed are free all the same (xl counts them so, too)
    return layout.get(request, "total_pages") * 4, layout.get(request, "free_pages") * 4


def version() -> str:
    """Xen's release, such as "4.17.5"."""
    number = call("Xen's version", abi.HYPERVISOR_xen_version, abi.XENVER_version, 0)
    extra = bytearray(abi.EXTRAVERSION_SIZE)
    call("Xen's version", abi.HYPERVISOR_xen_version, abi.XENVER_extraversion, extra)
    return "%d.%d%s" % (number >> 16, number & 0xFFFF, bytes(extra).split(b"\0")[0].decode())


def give_virq(domid: int, virq: int) -> None:
    """Makes a domain the receiver of a global virtual interrupt (VIRQ_DOM_EXC)."""
    domctl("hand over a virq", abi.DOMCTL_set_virq_handler, abi.domctl_set_virq_handler, domid, virq=virq)


def give_ports(domid: int, first: int, count: int) -> None:
    """Gives a PVH domain direct access to I/O ports."""
    domctl(
        "I/O port permission",
        abi.DOMCTL_ioport_permission,
        abi.domctl_ioport_permission,
        domid,
        first_port=first,
        nr_ports=count,
        allow_access=1,
    )
    domctl(
        "I/O port mapping",
        abi.DOMCTL_ioport_mapping,
        abi.domctl_ioport_mapping,
        domid,
        first_gport=first,
        first_mport=first,
        nr_ports=count,
        add_mapping=1,
    )
