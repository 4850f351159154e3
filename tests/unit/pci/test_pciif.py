"""The protocol with pcifront: what a driver domain sees, may change, and can't."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_pci import NIC, NO_RESET, Simulated, Xen, machine, nic, run

from xoar.abi import xen as abi
from xoar.pci import config
from xoar.pci.device import prepare
from xoar.pci.pciif import Backend

READ, WRITE = abi.XEN_PCI_OP_conf_read, abi.XEN_PCI_OP_conf_write
MSI, MSI_OFF = abi.XEN_PCI_OP_enable_msi, abi.XEN_PCI_OP_disable_msi
MSIX, MSIX_OFF = abi.XEN_PCI_OP_enable_msix, abi.XEN_PCI_OP_disable_msix
POWER, MSI_AT, EXPRESS, MSIX_AT = 0x40, 0x48, 0x60, 0x9C
OP = abi.xen_pci_op


class Front:
    """A frontend that says whatever a test wants."""

    def __init__(self, card: Simulated) -> None:
        self.card = card
        self.xen = Xen()
        device, _ = run(prepare(machine(card).window, NIC, self.xen))
        self.page = bytearray(4096)
        self.words = memoryview(self.page).cast("I")
        self.backend = Backend(self.words, device.space, device.interrupts)
        card.writes.clear()

    def post(self, command: int, offset: int = 0, size: int = 0, value: int = 0, devfn: int = 0) -> None:
        struct.pack_into("<IiIIIiiI", self.page, 4, command, 0, 0, 0, devfn, offset, size, value)
        self.words[0] |= 1

    def ask(self, *words: int, devfn: int = 0) -> tuple[int, int]:
        self.post(*words, devfn=devfn)
        assert self.backend.serve()
        assert not self.words[0] & 1
        return struct.unpack_from("<i", self.page, 8)[0], self.words[8]

    def read(self, offset: int, size: int) -> int:
        err, value = self.ask(READ, offset, size)
        assert err == 0
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        assert self.ask(WRITE, offset, size, value)[0] == 0

    def enable_msix(self, *entries: int) -> tuple[int, int]:
        for i, entry in enumerate(entries):
            self.words[10 + i] = entry << 16
        return self.ask(MSIX, 0, 0, len(entries))

    def vectors(self, count: int) -> list[int]:
        return [self.words[10 + i] & 0xFFFF for i in range(count)]


def capability_list(front: Front) -> list[int]:
    found, offset = [], front.read(config.CAPABILITIES, 1)
    while offset:
        found.append(front.read(offset, 1))
        offset = front.read(offset + 1, 1)
    return found


def test_identity_reads_as_it_is_and_ignores_writes():
    front = Front(nic())
    assert front.read(config.ID, 4) == 0x10D38086
    front.write(config.ID, 4, 0)
    front.write(config.SUBSYSTEM, 4, 0)
    assert front.read(config.ID, 4) == 0x10D38086
    assert front.read(config.CLASS, 4) == 0x02000003
    assert front.read(config.SUBSYSTEM, 4) == 0x12345678
    assert front.card.writes == []


def test_of_command_only_bus_mastering_reaches_the_hardware():
    front = Front(nic())
    front.write(config.COMMAND, 2, 0x107)
    assert front.read(config.COMMAND, 2) == 0x107
    front.write(config.COMMAND, 2, 0)
    front.write(config.COMMAND, 1, 0x04)
    front.write(config.COMMAND, 4, 0x0)
    assert front.card.writes == [(4, 2, 0x406), (4, 2, 0x402), (4, 2, 0x406), (4, 2, 0x402)]


def test_bars_can_be_measured_and_not_moved():
    front = Front(nic())
    for offset in range(config.BAR0, config.BAR0 + 24, 4):
        before = front.read(offset, 4)
        front.write(offset, 4, 0x12340000)
        assert front.read(offset, 4) == before
    front.write(config.BAR0, 4, 0xFFFFFFFF)
    front.write(config.BAR0 + 4, 4, 0xFFFFFFFF)
    assert (front.read(config.BAR0, 4), front.read(config.BAR0 + 4, 4)) == (0xFFFE0004, 0xFFFFFFFF)
    front.write(config.BAR0, 4, 0xFE800004)
    front.write(config.BAR0 + 4, 4, 0)
    assert (front.read(config.BAR0, 4), front.read(config.BAR0 + 4, 4)) == (0xFE800004, 0)
    assert front.card.writes == []


def test_io_bars_and_rom_are_absent():
    front = Front(nic())
    for offset in (config.BAR0 + 8, config.ROM):
        front.write(offset, 4, 0xFFFFFFFF)
        assert front.read(offset, 4) == 0


def test_the_list_has_express_msi_and_msix_alone():
    front = Front(nic())
    assert capability_list(front) == [0x05, 0x10, 0x11]
    assert front.read(POWER, 4) == 0
    assert not front.read(EXPRESS + 4, 4) & 1 << 28, "no function-level reset by the driver domain"
    assert front.read(MSI_AT + 2, 2) == 0x80, "one vector, no mask bits"
    assert front.read(MSIX_AT + 2, 2) == 4
    assert front.read(config.STATUS, 2) & config.STATUS_CAPABILITIES


def test_a_virtio_device_keeps_its_vendor_capabilities_but_the_window():
    card = Simulated(0x1AF4)
    card.add_express(True)
    card.bar(0, 0x4000, 0, 0xFEA00000)
    common = card.capability(0x09, struct.pack("<BBBBHII", 16, 1, 0, 0, 0, 0x1000, 0x38))
    card.capability(0x09, struct.pack("<BBBBHIII", 20, 5, 0, 0, 0, 0, 0, 0))
    card.add_msix(3, 0)
    front = Front(card)
    assert capability_list(front) == [0x10, 0x09, 0x11]
    assert front.read(common + 8, 4) == 0x1000


def test_other_vendors_capabilities_are_hidden():
    card = nic()
    card.capability(0x09, b"\x08secret")
    assert 0x09 not in capability_list(Front(card))


def test_without_any_capability_left_the_status_says_so():
    card = nic()
    front = Front(card)
    assert front.read(config.STATUS, 2) == config.STATUS_CAPABILITIES
    assert front.read(0x100 - 4, 4) == 0


@pytest.mark.parametrize(
    "size, offset", [(0, 0), (3, 0), (8, 0), (2, 1), (4, 2), (4, 256), (1, -1), (4, 4092)]
)
def test_impossible_accesses_are_refused(size, offset):
    front = Front(nic())
    for command in (READ, WRITE):
        assert front.ask(command, offset, size, 0xFF)[0] == abi.XEN_PCI_ERR_invalid_offset


def test_other_functions_are_not_there():
    front = Front(nic())
    for command in (READ, WRITE, MSI, MSIX_OFF):
        assert front.ask(command, 0, 4, 1, devfn=8) == (abi.XEN_PCI_ERR_dev_not_found, 0)


@pytest.mark.parametrize("command", [6, 7, 8, 9, 10, 11, 0xFFFFFFFF])
def test_unknown_operations_are_not_implemented(command):
    assert Front(nic()).ask(command)[0] == abi.XEN_PCI_ERR_not_implemented


def test_msix_is_mapped_by_entry_and_switched_on_and_off():
    front = Front(nic())
    assert front.enable_msix(0, 4) == (0, 0)
    assert front.vectors(2) == [33, 34]
    assert front.xen.mapped == {33: (0, 0xFEA00000), 34: (4, 0xFEA00000)}
    assert front.card.writes == [(MSIX_AT + 2, 2, 0x8004)]
    assert front.words[11] >> 16 == 4
    assert front.ask(MSI_OFF)[0] == 0
    assert front.xen.mapped == {}
    assert front.card.get(MSIX_AT + 2, 2) == 4


def test_enabling_again_replaces_what_was_enabled():
    front = Front(nic())
    front.enable_msix(0)
    assert front.enable_msix(0, 1) == (0, 0)
    assert sorted(front.xen.mapped.values()) == [(0, 0xFEA00000), (1, 0xFEA00000)]
    assert front.ask(MSI)[0] == 0
    assert list(front.xen.mapped.values()) == [(0, 0)]


@pytest.mark.parametrize("again", [MSI, MSIX])
def test_no_interrupts_are_given_as_long_as_the_old_ones_cannot_be_taken_back(again):
    front = Front(nic())
    front.enable_msix(0, 1)
    front.xen.kept = 13
    assert front.ask(MSI_OFF)[0] == abi.XEN_PCI_ERR_op_failed
    for _ in range(3):
        assert front.ask(again, 0, 0, 1)[0] == abi.XEN_PCI_ERR_op_failed
    assert sorted(front.xen.mapped.values()) == [(0, 0xFEA00000), (1, 0xFEA00000)]
    assert not front.card.get(MSIX_AT + 2, 2) & 0x8000
    front.xen.kept = 0
    assert front.ask(again, 0, 0, 1)[0] == 0
    assert len(front.xen.mapped) == 1


@pytest.mark.parametrize("errno", [3, 22])
def test_interrupts_that_went_with_their_domain_are_forgotten(errno):
    front = Front(nic())
    front.enable_msix(0, 1)
    front.xen.kept = errno
    assert front.ask(MSIX_OFF)[0] == 0
    front.xen.mapped.clear()
    front.xen.kept = 0
    assert front.ask(MSI)[0] == 0


def test_msi_gets_one_vector():
    front = Front(nic(reset=NO_RESET))
    assert front.ask(MSI) == (0, 33)
    assert front.xen.mapped == {33: (0, 0)}
    assert front.card.writes == [(MSI_AT + 2, 2, 0x018B)]
    assert front.ask(MSIX_OFF)[0] == 0
    assert front.card.get(MSI_AT + 2, 2) == 0x018A


@pytest.mark.parametrize("entries", [(), (5,), (0, 0), (1, 0xFFFF), tuple(range(129))])
def test_refused_entries_leave_nothing_mapped(entries):
    front = Front(nic())
    assert front.enable_msix(*entries)[0] == abi.XEN_PCI_ERR_op_failed
    assert front.xen.mapped == {}
    assert not front.card.get(MSIX_AT + 2, 2) & 0x8000


def test_what_xen_refuses_is_answered_as_failed():
    front = Front(nic())
    front.xen.refused = 61
    assert front.ask(MSI)[0] == front.enable_msix(0)[0] == abi.XEN_PCI_ERR_op_failed


def test_nothing_is_answered_unless_asked():
    front = Front(nic())
    assert not front.backend.serve()
    front.words[0] = 0x6
    assert not front.backend.serve()


def test_other_flags_stay():
    front = Front(nic())
    front.words[0] = 0x2
    front.read(0, 4)
    assert front.words[0] == 0x2


@pytest.mark.parametrize("change", [(0, 0), (6, 0x10)])
def test_an_answer_that_nobody_waits_for_is_not_written(change):
    """The frontend gave up meanwhile: it took the flag back, or has put the next operation there."""
    front = Front(nic())
    front.post(MSI)
    position, value = change
    original = front.xen.map

    def slow(entry: int, table: int) -> int:
        front.words[position] = value
        return original(entry, table)

    front.xen.map = slow
    assert not front.backend.serve()
    assert front.words[8] == 0


BITS = st.integers(0, 0xFFFFFFFF)
LIKELY = st.one_of(st.integers(0, 300), st.sampled_from([4, 5, 0x10, 0x14, POWER, MSI_AT, MSIX_AT]), BITS)
HOSTILE = st.tuples(
    st.one_of(st.integers(0, 11), BITS),
    st.one_of(st.just(0), BITS),
    LIKELY,
    st.one_of(st.sampled_from([1, 2, 4]), BITS),
    st.one_of(st.integers(0, 130), st.just(0xFFFFFFFF), BITS),
    st.lists(BITS, max_size=8),
)


@settings(deadline=None)
@given(st.lists(HOSTILE, max_size=30))
def test_no_guest_writes_anything_but_the_table_allows(operations):
    front = Front(nic())
    allowed = {(4, 2, 0x402), (4, 2, 0x406)}
    allowed |= {(MSI_AT + 2, 2, 0x018A), (MSI_AT + 2, 2, 0x018B)}
    allowed |= {(MSIX_AT + 2, 2, 0x8004), (MSIX_AT + 2, 2, 0x0004)}
    power_on = bytes(front.card.data)
    for command, devfn, offset, size, value, entries in operations:
        front.words[1:10] = memoryview(bytearray(36)).cast("I")
        for position, word in zip((1, 5, 6, 7, 8), (command, devfn, offset, size, value), strict=True):
            front.words[position] = word
        for i, entry in enumerate(entries):
            front.words[10 + i] = entry
        front.words[0] |= 1
        assert front.backend.serve()
        assert not front.words[0] & 1
        assert struct.unpack_from("<i", front.page, 8)[0] in (0, -1, -2, -4, -5)
    assert set(front.card.writes) <= allowed
    mapped = list(front.xen.mapped.values())
    assert len(mapped) <= 5 and all(entry in range(5) for entry, _ in mapped)
    switchable = {4, MSI_AT + 2, MSIX_AT + 2, MSIX_AT + 3}
    changed = {i for i in range(4096) if front.card.data[i] != power_on[i]}
    assert changed <= switchable


@settings(deadline=None)
@given(st.binary(min_size=abi.xen_pci_sharedinfo.size, max_size=abi.xen_pci_sharedinfo.size))
def test_any_page_is_answered_or_left_alone(content):
    front = Front(nic())
    front.page[: len(content)] = content
    assert front.backend.serve() == bool(content[0] & 1)
