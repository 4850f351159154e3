"""Every operation of every hypercall that names another domain, a device or Xen: one table for all attackers.

Runs wherever `machine` has `hypercall(number, *arguments)` and `address(buffer)` as the module nano has them:
on nano, and as root on Linux (linux_machine.py). Numbers, not names: an operation that a newer Xen adds is
tried, too. Most are called with arguments that are all zeros, and with small numbers in words of 32 or 64
bits, of which one gets as far as FLASK's check. What FLASK refuses or grants stands in Xen's log; reported is
what succeeded, or was never refused: "reached <hypercall> <operation> <victim> <result>". A victim is a
domid, a device (`d` and its number in hex), both (`6,d000100`), `self`, or `-`, Xen.
Layouts: xen/include/public/*.h.
"""

import struct

from xoar.abi import xen as abi

# xen/include/public/xen.h
_MMU_UPDATE, _PLATFORM_OP, _MEMORY_OP, _XEN_VERSION, _CONSOLE_IO, _GRANT_TABLE_OP = 1, 7, 12, 17, 18, 20
_UPDATE_VA_MAPPING_OTHERDOMAIN, _MMUEXT_OP, _XSM_OP, _SCHED_OP, _XENOPROF_OP, _EVENT_CHANNEL_OP = (
    22,
    26,
    27,
    29,
    31,
    32,
)
_PHYSDEV_OP, _HVM_OP, _SYSCTL, _DOMCTL, _KEXEC_OP, _XENPMU_OP, _DM_OP, _HYPFS_OP = (
    33,
    34,
    35,
    36,
    37,
    40,
    41,
    42,
)
_MCA, _PAGING_DOMCTL = 48, 49
# What concerns nobody but the caller, whose state it changes: not tried
OWN = {
    0: "set_trap_table", 2: "set_gdt", 3: "stack_switch", 4: "set_callbacks", 5: "fpu_taskswitch",
    6: "sched_op_compat", 8: "set_debugreg", 9: "get_debugreg", 10: "update_descriptor",
    13: "multicall: each entry is judged as a hypercall", 14: "update_va_mapping", 15: "set_timer_op",
    16: "event_channel_op_compat: the same function", 19: "physdev_op_compat: the same function",
    21: "vm_assist", 23: "iret", 24: "vcpu_op", 25: "set_segment_base", 28: "nmi_op", 30: "callback_op",
}  # fmt: skip
_TRIED = (
    _MMU_UPDATE, _PLATFORM_OP, _MEMORY_OP, _XEN_VERSION, _CONSOLE_IO, _GRANT_TABLE_OP,
    _UPDATE_VA_MAPPING_OTHERDOMAIN, _MMUEXT_OP, _XSM_OP, _SCHED_OP, _XENOPROF_OP, _EVENT_CHANNEL_OP,
    _PHYSDEV_OP, _HVM_OP, _SYSCTL, _DOMCTL, _KEXEC_OP, _XENPMU_OP, _DM_OP, _HYPFS_OP, _MCA, _PAGING_DOMCTL,
)  # fmt: skip
_MOST_HYPERCALLS = 64
_ESRCH, _ENOSYS = 3, 38
_REFUSED = (1, 13, _ENOSYS, 95)  # EPERM, EACCES, EOPNOTSUPP
_NOT_JUDGED = (1, 3, 13, 19, 22, _ENOSYS, 95)  # ... no such domain, device, interrupt, operation

_SELF = 0x7FF0  # DOMID_SELF
_PLATFORM_VERSION = 0x03000000
_SHADOW_OP, _DESTROY, _PAUSE = 10, 2, 3  # domctls
_GET_DEVICE_GROUP = 50
_DEVICE_DOMCTLS = (37, 45, 47, _GET_DEVICE_GROUP)  # assign_device, test_assign_device, deassign_device
_REMOTE_SHUTDOWN = 4
_RESET = 10  # EVTCHNOP_reset
_ZEROS = bytes(512)
_PATTERNS = (_ZEROS, b"\1\0\0\0" * 128, b"\1\0\0\0\0\0\0\0" * 64, b"\2\0\0\0\0\0\0\0" * 64)
_DENIED = b"<denied>"  # what Xen shows instead of its version

_RESERVATION = "<QQIIHHI"  # xen_memory_reservation and padding
_BY_RESERVATION = (0, 1, 6, 24)  # increase, decrease, populate; claim_pages
_COUNTING = (0, 1, 6, 11)  # refused, these say that no page was given
_EXCHANGE, _ADD_BATCH, _ACQUIRE = 11, 23, 28
_FOREIGN = 4  # XENMAPSPACE_gmfn_foreign
_FIRST_PORTS = range(1, 17)
_REFERENCES = range(16)
_DEVICE_MAP, _HOST_MAP = 1, 2  # GNTMAP_*: the first needs no place, but only PV domains have it

# physdev_op: own interrupts, own I/O privilege, a page of one's own
_OWN_PHYSDEV = (6, 7, 12, 17, 23, 28)
_MAP_PIRQ, _UNMAP_PIRQ = 13, 14
_BY_BUS = (15, 16, 19)  # manage_pci_add, manage_pci_remove, restore_msi: bus, devfn
_BY_SEGMENT = (
    25,
    26,
    27,
    30,
    31,
)  # pci_device_add, pci_device_remove, restore_msi_ext, prepare_, release_msix
_MSI, _MSI_SEG, _GSI = 0, 3, 1  # MAP_PIRQ_TYPE_*
_ANY = 0xFFFFFFFF
_PIRQS = (16, 17, 24, 39, 40, 255)


def present(machine, domids=range(128)):
    """Those of the domids that are in use, which Xen says to everybody who may not pause them: nobody may."""
    version = abi.XEN_DOMCTL_INTERFACE_VERSION
    probes = {domid: _with_head(_ZEROS, "<IIH", _PAUSE, version, domid) for domid in domids}
    return [domid for domid in domids if machine.hypercall(_DOMCTL, probes[domid]) != -_ESRCH]


class Sweep:
    """Tries what one attacker can; `devices` are numbers of PCI functions (schema.BDF), `pv` is its kind."""

    def __init__(self, machine, report, victims, devices=(), pv=False):
        self._machine = machine
        self._report = report
        self._victims = victims
        self._devices = devices
        self._pv = pv
        self._last_place = 0x80000  # free frames of a PVH domain's

    def run(self):
        """All of it."""
        self.xen_itself()
        for victim in self._victims:
            self.other_domain(victim)
            self.memory(victim)
            self.page_tables(victim)
            self.channels(victim)
            self.grants(victim)
            self._domctl(_DESTROY, victim)
        for device in self._devices:
            self.device(device)
        for victim in self._victims:
            for device in self._devices:
                self.device_for(victim, device)
        self.itself()

    def _place(self):
        """A page frame to map somebody's page at."""
        self._last_place += 1
        return self._last_place

    def _reached(self, hypercall, operation, victim, result):
        self._report(f"reached {hypercall} {operation} {victim} {result}")

    def _judge(self, name, operation, victim, call, layout="", *head):
        """Calls with each pattern: what is not refused at least once is reached."""
        results = [call(_with_head(pattern, layout, *head)) for pattern in _PATTERNS]
        if max(results) == -_ESRCH:
            return  # the victim has gone
        if max(results) >= 0 or not any([-result in _REFUSED for result in results]):
            self._reached(name, operation, victim, max(results))

    def _only(self, name, number, operation, victim, layout, *head):
        """A hypercall whose only argument is a structure that begins with `head`."""
        self._judge(
            name, operation, victim, lambda buffer: self._machine.hypercall(number, buffer), layout, *head
        )

    def _with_command(self, name, number, operation, victim, layout="", *head):
        """A hypercall with an operation and a structure."""
        call = self._machine.hypercall
        self._judge(name, operation, victim, lambda buffer: call(number, operation, buffer), layout, *head)

    def _success(self, name, operation, victim, result):
        """For what is judged after its arguments: only a success is a right."""
        if result >= 0:
            self._reached(name, operation, victim, result)

    # -- Xen and its policy

    def xen_itself(self):
        call = self._machine.hypercall
        for number in range(1, 64):
            self._only("sysctl", _SYSCTL, number, "-", "<II", number, abi.XEN_SYSCTL_INTERFACE_VERSION)
        for number in range(1, 80):
            self._only("platform_op", _PLATFORM_OP, number, "-", "<II", number, _PLATFORM_VERSION)
        for number in range(1, 40):
            self._only("xsm_op", _XSM_OP, number, "-", "<II", number, abi.XEN_FLASK_INTERFACE_VERSION)
        for number in range(0, 20):
            result = call(_XENOPROF_OP, number, bytearray(_ZEROS))
            if -result not in _NOT_JUDGED:
                self._reached("xenoprof_op", number, "-", result)
            self._version(number)
        for number in range(0, 8):
            self._only("mca", _MCA, number, "-", "<II", number, 1)
            self._with_command("kexec_op", _KEXEC_OP, number, "-")
            self._with_command("xenpmu_op", _XENPMU_OP, number, "-")
            self._judge("hypfs_op", number, "-", lambda _, n=number: call(_HYPFS_OP, n, 0, 0, 0, 0))
            self._judge(
                "console_io",
                number,
                "-",
                lambda buffer, n=number: call(_CONSOLE_IO, n, 1 if n else 0, buffer),
            )
        for number in range(0, 41):
            if number not in _OWN_PHYSDEV and number not in (_MAP_PIRQ, _UNMAP_PIRQ):
                for pattern in _PATTERNS:
                    self._success("physdev_op", number, "-", call(_PHYSDEV_OP, number, bytearray(pattern)))
        for number in range(_MOST_HYPERCALLS):
            if number not in _TRIED and number not in OWN:
                result = call(number, 0, 0, 0, 0, 0)
                if result != -_ENOSYS:
                    self._reached("hypercall", number, "-", result)

    def _version(self, number):
        """Refused, most operations succeed all the same and show nothing."""
        buffer = bytearray(1024)
        result = self._machine.hypercall(_XEN_VERSION, number, buffer)
        if result > 0 or (result == 0 and any(buffer) and bytes(buffer[: len(_DENIED)]) != _DENIED):
            self._reached("xen_version", number, "-", result)

    # -- other domains

    def _domctl(self, number, victim):
        self._only(
            "domctl", _DOMCTL, number, victim, "<IIH", number, abi.XEN_DOMCTL_INTERFACE_VERSION, victim
        )

    def other_domain(self, victim):
        """What is judged before its arguments."""
        for number in range(1, 128):
            if number != _DESTROY:
                self._domctl(number, victim)
        version = abi.XEN_DOMCTL_INTERFACE_VERSION
        continued = _with_head(_ZEROS, "<IIH", _SHADOW_OP, version, victim)  # of a call that there was not
        self._success("paging_domctl", _SHADOW_OP, victim, self._machine.hypercall(_PAGING_DOMCTL, continued))
        for number in range(0, 32):
            self._with_command("hvm_op", _HVM_OP, number, victim, "<H", victim)
            self._judge(
                "dm_op", number, victim, lambda buffer: self._device_model(victim, buffer), "<I", number
            )
        self._with_command("sched_op", _SCHED_OP, _REMOTE_SHUTDOWN, victim, "<HHI", victim, 0, 0)
        for pirq in _PIRQS:
            result = self._machine.hypercall(
                _PHYSDEV_OP, _UNMAP_PIRQ, bytearray(struct.pack("<HHI", victim, 0, pirq))
            )
            self._success("physdev_op", _UNMAP_PIRQ, victim, result)
        for kind in (_MSI, _GSI, _MSI_SEG):
            self._map_pirq(victim, kind, 0, 0)

    def _device_model(self, victim, buffer):
        buffers = struct.pack("<QQ", self._machine.address(buffer), len(buffer))
        return self._machine.hypercall(_DM_OP, victim, 1, buffers)

    def memory(self, victim):
        call, address = self._machine.hypercall, self._machine.address
        frames = bytearray(struct.pack("<Q", 0x80000))  # a list of one
        errors = bytearray(8)
        for operation in range(0, 32):
            if operation in _BY_RESERVATION:
                argument = bytearray(struct.pack(_RESERVATION, address(frames), 1, 0, 0, victim, 0, 0))
            elif operation == _EXCHANGE:
                half = struct.pack(_RESERVATION, address(frames), 1, 0, 0, victim, 0, 0)
                argument = bytearray(half + half + bytes(8))
            else:
                argument = _with_head(_ZEROS, "<H", victim)
            result = call(_MEMORY_OP, operation, argument)
            if result > 0 or (result == 0 and operation not in _COUNTING):
                self._reached("memory_op", operation, victim, result)
        # the victim's first page into the attacker's memory, and its grant table, I/O server pages, traces
        place = bytearray(struct.pack("<Q", self._place()))
        page = bytearray(struct.pack("<Q", 0x200))
        argument = bytearray(
            struct.pack(
                "<HHHHQQQ", _SELF, _FOREIGN, 1, victim, address(page), address(place), address(errors)
            )
        )
        if call(_MEMORY_OP, _ADD_BATCH, argument) == 0 and not any(errors):
            self._reached("memory_op", "foreign", victim, 0)
        for kind in range(4):
            place = bytearray(struct.pack("<Q", self._place()))
            argument = bytearray(struct.pack("<HHIIIQQ", victim, kind, 0, 1, 0, 0, address(place)))
            self._success("memory_op", f"resource{kind}", victim, call(_MEMORY_OP, _ACQUIRE, argument))

    def page_tables(self, victim):
        """What PV domains have; some of it PVH domains, too."""
        call = self._machine.hypercall
        for operation in range(0, 24):
            argument = bytearray(struct.pack("<IIQQ", operation, 0, 1, 0))
            self._success("mmuext_op", operation, victim, call(_MMUEXT_OP, argument, 1, 0, victim))
        for kind in range(4):  # of update: a page table's entry, machine to physical, ...
            for owner in (victim, (victim + 1) << 16 | _SELF, (victim + 1) << 16 | victim):
                # an entry that maps some page of the victim, writable
                argument = bytearray(struct.pack("<QQ", 0x100000 | kind, 0x200067))
                self._success("mmu_update", kind, victim, call(_MMU_UPDATE, argument, 1, 0, owner))
        result = call(_UPDATE_VA_MAPPING_OTHERDOMAIN, 0x500000000000, 0x200067, 0, victim)
        self._success("update_va_mapping_otherdomain", 0, victim, result)

    def channels(self, victim):
        for operation in range(0, 16):
            for port in _FIRST_PORTS if operation != _RESET else range(1):
                argument = _with_head(_ZEROS, "<HHI", victim, victim, port)
                if self._machine.hypercall(_EVENT_CHANNEL_OP, operation, argument) == 0:
                    self._reached("event_channel_op", operation, victim, port)
        argument = _with_head(_ZEROS, "<HHI", _SELF, victim, 0)
        result = self._machine.hypercall(
            _EVENT_CHANNEL_OP, 6, argument
        )  # an end of one's own, for the victim
        self._success("event_channel_op", "offer", victim, result)

    def grants(self, victim):
        machine = self._machine
        for reference in _REFERENCES:
            for read_only in (0, 4):
                place = 0 if self._pv else self._place() << 12
                flags = read_only | (_DEVICE_MAP if self._pv else _HOST_MAP)
                request = abi.gnttab_map_grant_ref.new(
                    dom=victim, ref=reference, flags=flags, host_addr=place
                )
                machine.hypercall(_GRANT_TABLE_OP, abi.GNTTABOP_map_grant_ref, request, 1)
                if abi.gnttab_map_grant_ref.get(request, "status") == 0:
                    self._reached("grant_table_op", "map", victim, reference)
                    handle = abi.gnttab_map_grant_ref.get(request, "handle")
                    bus_address = struct.unpack_from("<Q", request, 24)[0]
                    back = bytearray(
                        struct.pack("<QQIhH", place, bus_address if self._pv else 0, handle, -1, 0)
                    )
                    machine.hypercall(_GRANT_TABLE_OP, abi.GNTTABOP_unmap_grant_ref, back, 1)
                    if struct.unpack_from("<h", back, 20)[0] == 0:
                        self._reached("grant_table_op", "unmap", victim, reference)
        page = bytearray(64)
        frame = machine.address(page) >> 12
        copies = [("copy_from", victim, 1, _SELF, frame, 1), ("copy_to", _SELF, frame, victim, 1, 2)]
        copies += [("copy_between", victim, 1, other, 1, 3) for other in self._victims if other != victim]
        for name, source, place, target, other_place, flags in copies:
            request = bytearray(
                struct.pack(
                    "<QHHIQHHIHHhH", place, source, 0, 0, other_place, target, 0, 0, 16, flags, -99, 0
                )
            )
            self._grant(name, 5, request, 36, victim)
        table = machine.address(page)
        self._grant("setup", 2, bytearray(struct.pack("<HHIhHIQ", victim, 0, 1, -99, 0, 0, table)), 8, victim)
        self._grant("transfer", 4, bytearray(struct.pack("<QHHIhHI", 0, victim, 0, 1, -99, 0, 0)), 16, victim)
        self._grant("query", 6, bytearray(struct.pack("<HHIIhH", victim, 0, 0, 0, -99, 0)), 12, victim)
        self._grant("status", 9, bytearray(struct.pack("<IhHQ", 1, -99, victim, table)), 4, victim)
        argument = bytearray(struct.pack("<HHI", victim, 0, 0))
        self._success(
            "grant_table_op", "version", victim, machine.hypercall(_GRANT_TABLE_OP, 10, argument, 1)
        )

    def _grant(self, name, operation, request, status, victim):
        result = self._machine.hypercall(_GRANT_TABLE_OP, operation, request, 1)
        if result == 0 and struct.unpack_from("<h", request, status)[0] == 0:
            self._reached("grant_table_op", name, victim, 0)

    # -- devices

    def device(self, device):
        """What names only the device."""
        bus, function, name = device >> 8 & 0xFF, device & 0xFF, f"d{device:06x}"
        for operation in _BY_BUS + _BY_SEGMENT:
            layout, head = (
                ("<BB", (bus, function)) if operation in _BY_BUS else ("<HBB", (device >> 16, bus, function))
            )
            argument = _with_head(_ZEROS, layout, *head)
            result = self._machine.hypercall(_PHYSDEV_OP, operation, argument)
            if -result not in _NOT_JUDGED:
                self._reached("physdev_op", operation, name, result)

    def device_for(self, victim, device):
        """What gives a device, or its interrupts, to a domain or takes it away."""
        for table in (0, 0xFE000000):
            pirq = self._map_pirq(victim, _MSI_SEG, device, table)
            if pirq is not None:
                request = bytearray(struct.pack("<HHI", victim, 0, pirq))
                result = self._machine.hypercall(_PHYSDEV_OP, _UNMAP_PIRQ, request)
                self._success("physdev_op", _UNMAP_PIRQ, victim, result)
        version = abi.XEN_DOMCTL_INTERFACE_VERSION
        for number in _DEVICE_DOMCTLS:
            head = (number, version, victim, 0, 0) + (
                (device,) if number == _GET_DEVICE_GROUP else (0, 0, device)
            )
            layout = "<IIHHI" + "I" * (len(head) - 5)
            result = self._machine.hypercall(_DOMCTL, _with_head(_ZEROS, layout, *head))
            self._success("domctl", number, victim, result)

    def _map_pirq(self, victim, kind, device, table):
        request = bytearray(40)
        struct.pack_into(
            "<HHIIIIIHHIQ",
            request,
            0,
            victim,
            0,
            kind,
            _ANY,
            _ANY,
            device >> 8,
            device & 0xFF,
            0,
            0,
            0,
            table,
        )
        result = self._machine.hypercall(_PHYSDEV_OP, _MAP_PIRQ, request)
        if -result not in _NOT_JUDGED:
            self._reached("physdev_op", _MAP_PIRQ, f"{victim},d{device:06x}", result)
        return struct.unpack_from("<I", request, 12)[0] if result == 0 else None

    # -- the attacker's own domain

    def itself(self):
        """What a domain may do to itself, as far as it does no harm."""
        call, address = self._machine.hypercall, self._machine.address
        frames = bytearray(struct.pack("<Q", 0x90000))
        populate = bytearray(struct.pack(_RESERVATION, address(frames), 1, 0, 0, _SELF, 0, 0))
        for operation, argument in ((3, bytearray(struct.pack("<Q", _SELF))), (6, populate)):
            result = call(_MEMORY_OP, operation, argument)
            if result > 0:
                self._reached("memory_op", operation, "self", result)
        self._success("hvm_op", 1, "self", call(_HVM_OP, 1, bytearray(struct.pack("<HHIQ", _SELF, 0, 1, 0))))
        self._grant("query", 6, bytearray(struct.pack("<HHIIhH", _SELF, 0, 0, 0, -99, 0)), 12, "self")
        table = bytearray(64)
        self._grant(
            "setup", 2, bytearray(struct.pack("<HHIhHIQ", _SELF, 0, 1, -99, 0, 0, address(table))), 8, "self"
        )


def _with_head(pattern, layout, *head):
    buffer = bytearray(pattern)
    struct.pack_into(layout, buffer, 0, *head)
    return buffer
