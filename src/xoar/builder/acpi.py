"""ACPI tables of a PVH guest: just enough to tell it how many vCPUs it has.

Source: the ACPI specification 6.4, chapter 5 (hardware-reduced ACPI: no fixed hardware, no FACS).
"""

import struct

_OEM = b"XOAR  "
_HEADER = "<4sIBB6s8sI4sI"
_HEADER_SIZE = 36
_HARDWARE_REDUCED = 1 << 20
_WBINVD = 1 << 0
_NO_VGA, _NO_CMOS_RTC = 1 << 2, 1 << 5  # IA-PC boot architecture flags; Linux waits seconds for an absent RTC
_LOCAL_APIC_ADDRESS = 0xFEE00000


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    header = struct.pack(
        _HEADER, signature, _HEADER_SIZE + len(body), revision, 0, _OEM, b"XOARPVH\0", 1, b"XOAR", 1
    )
    table = bytearray(header + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def tables(address: int, vcpus: int) -> bytes:
    """RSDP (first), XSDT, FADT, DSDT and MADT, to be put at physical `address`; vcpus is 1..128."""
    # a local APIC with id 2 * n for each vCPU, as Xen numbers them
    processors = b"".join([struct.pack("<BBBBI", 0, 8, i, i * 2, 1) for i in range(vcpus)])
    madt = _table(b"APIC", 4, struct.pack("<II", _LOCAL_APIC_ADDRESS, 0) + processors)
    dsdt = _table(b"DSDT", 2, b"")

    rsdp_size, xsdt_size, fadt_size = 36, _HEADER_SIZE + 16, 276
    xsdt_at = address + 64
    fadt_at = xsdt_at + 64
    dsdt_at = fadt_at + 320
    madt_at = dsdt_at + 64

    fadt = bytearray(fadt_size - _HEADER_SIZE)
    struct.pack_into("<H", fadt, 109 - _HEADER_SIZE, _NO_VGA | _NO_CMOS_RTC)
    struct.pack_into("<I", fadt, 112 - _HEADER_SIZE, _HARDWARE_REDUCED | _WBINVD)
    fadt[131 - _HEADER_SIZE] = 1  # minor version
    struct.pack_into("<Q", fadt, 140 - _HEADER_SIZE, dsdt_at)
    struct.pack_into("<8s", fadt, 268 - _HEADER_SIZE, b"Xen")  # hypervisor vendor

    rsdp = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM, 2, 0, rsdp_size, xsdt_at, 0))
    rsdp[8] = -sum(rsdp[:20]) & 0xFF
    rsdp[32] = -sum(rsdp) & 0xFF
    xsdt = _table(b"XSDT", 1, struct.pack("<QQ", fadt_at, madt_at))

    result = bytearray(madt_at - address + len(madt))
    for at, table in (
        (address, bytes(rsdp)),
        (xsdt_at, xsdt),
        (fadt_at, _table(b"FACP", 6, bytes(fadt))),
        (dsdt_at, dsdt),
        (madt_at, madt),
    ):
        result[at - address : at - address + len(table)] = table
    assert len(xsdt) == xsdt_size
    return bytes(result)
