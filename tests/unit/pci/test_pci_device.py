"""Finding, resetting, measuring and preparing a function."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_pci import FLR, NIC, NO_RESET, PM, Machine, Simulated, Xen, machine, nic, run

from xoar.pci import bars, capabilities, config
from xoar.pci.device import prepare
from xoar.pci.errors import PciError


def failure(host: Machine, bdf: int, xen: Xen | None = None) -> str:
    with pytest.raises(PciError) as error:
        run(prepare(host.window, bdf, xen or Xen()))
    return str(error.value)


@pytest.mark.parametrize("way, most_ms", [(FLR, 100), (PM, 20), (NO_RESET, 102)])
def test_each_kind_of_reset_leaves_a_quiet_device_with_its_addresses(way, most_ms):
    card, xen = nic(reset=way), Xen()
    device, waited = run(prepare(machine(card).window, NIC, xen))
    assert card.resets == 1
    assert waited == most_ms
    assert [(bar.address, bar.size) for bar in device.windows] == [
        (0xFE800000, 0x20000),
        (0xFEA00000, 0x4000),
    ]
    assert card.get(config.COMMAND, 2) == config.QUIET
    assert card.get(config.BAR0 + 8, 4) == 0xC001, "the I/O BAR is restored, too"
    assert card.get(config.INTERRUPT_LINE, 1) == 0x0B
    assert xen.prepared


def test_a_reset_waits_until_the_function_is_back():
    card = nic()
    card.away = 20
    _, waited = run(prepare(machine(card).window, NIC, Xen()))
    assert waited == 100 + 20 * 10


def test_a_function_that_does_not_come_back_is_a_fault():
    card = nic()
    card.away = 10**9
    assert "did not come back within 5000 ms" in failure(machine(card), NIC)


def test_dma_is_off_before_the_reset():
    card = nic()
    card.put(config.COMMAND, 2, 0x6)
    run(prepare(machine(card).window, NIC, Xen()))
    assert card.writes[0] == (config.COMMAND, 2, config.COMMAND_NO_INTX)


def test_decode_is_off_while_bars_are_measured():
    card = nic()
    run(prepare(machine(card).window, NIC, Xen()))
    first = card.writes.index((config.BAR0, 4, 0xFFFFFFFF))
    before = [value for offset, _, value in card.writes[:first] if offset == config.COMMAND]
    assert before[-1] == config.COMMAND_NO_INTX
    assert card.writes[-1] == (config.COMMAND, 2, config.QUIET)


def test_a_neighbour_forbids_the_reset_of_the_bus():
    card = nic(reset=NO_RESET)
    card.put(config.HEADER_TYPE, 1, config.MULTI_FUNCTION)
    host = machine(card)
    host.functions[NIC + 1] = Simulated()
    assert "can't be reset" in failure(host, NIC)
    assert card.writes == []


def test_on_a_root_bus_there_is_no_port_to_reset_a_bus_by():
    assert "can't be reset" in failure(Machine({0x08: nic(reset=NO_RESET)}), 0x08)


@pytest.mark.parametrize(
    "bdf, text",
    [(0x0200, "no device at 0000:02:00.0"), (0x10, "is a bridge"), (0x1000, "is not on the buses")],
)
def test_what_is_no_device_is_a_fault(bdf, text):
    assert text in failure(machine(nic()), bdf)


def test_a_device_without_message_interrupts_is_a_fault():
    card = Simulated()
    card.add_express(True)
    assert "neither MSI nor MSI-X" in failure(machine(card), NIC)


def test_a_table_outside_the_memory_windows_is_a_fault():
    card = Simulated()
    card.add_express(True)
    card.add_msix(4, 2)
    card.bar(2, 0x20, 1, 0xC000)
    assert "MSI-X table in BAR 2" in failure(machine(card), NIC)


def test_a_bar_without_address_is_a_fault():
    card = nic()
    card.bar(5, 0x1000, 0, 0)
    assert "BAR 5 of 0000:01:00.0 no address" in failure(machine(card), NIC)


def test_preparing_waits_for_the_interrupts_of_a_dying_domain():
    card, xen = nic(), Xen()
    xen.prepared = True
    xen.busy = 3
    _, waited = run(prepare(machine(card).window, NIC, xen))
    assert waited == 100 + 3 * 100
    assert xen.prepared


def test_interrupts_that_stay_in_use_are_a_fault():
    xen = Xen()
    xen.busy = 10**9
    assert "still in use after 1000 ms" in failure(machine(nic()), NIC, xen)


@pytest.mark.parametrize("operation", ["prepare_msix", "release_msix"])
def test_what_xen_refuses_is_a_fault(operation):
    xen = Xen()

    def refuse():
        raise OSError(1, "not permitted")

    setattr(xen, operation, refuse)
    assert "not permitted" in failure(machine(nic()), NIC, xen)


@given(st.lists(st.tuples(st.integers(4, 40), st.sampled_from([0, 4, 8, 12, 1])), max_size=6))
def test_every_memory_bar_is_measured_and_left_as_it_was(wanted):
    card, number, expected = Simulated(), 0, []
    for order, flags in wanted:
        if number + (2 if flags & 4 else 1) > bars.COUNT:
            break
        order = order if flags & 4 else min(order, 30)
        address = 1 << (order if flags & 4 else 31)
        card.bar(number, 1 << order, flags, address)
        if not flags & 1:
            expected.append((config.BAR0 + 4 * number, flags, address, 1 << order))
        number += 2 if flags & 4 else 1
    before = bytes(card.data)
    function = machine(card).window.function(NIC)
    assert [tuple(bar) for bar in bars.measure(function)] == expected
    assert bytes(card.data) == before


@given(st.binary(min_size=256, max_size=256))
def test_walking_any_list_ends_and_stays_in_the_256_bytes(content):
    card = Simulated()
    card.data[:256] = content
    found = capabilities.walk(machine(card).window.function(NIC))
    offsets = [offset for _, offset in found]
    assert len(offsets) == len(set(offsets))
    assert all(0x40 <= offset <= 0xFC and offset % 4 == 0 for offset in offsets)


@given(st.binary(min_size=256, max_size=256), st.booleans())
def test_any_function_is_prepared_or_refused(content, express):
    card = Simulated()
    card.data[:256] = content
    card.data[config.HEADER_TYPE] = 0
    if express:
        card.data[0x34:0x36] = b"\x40\0"
        card.data[0x40:0x44] = b"\x10\0\2\0"
        card.data[0x47] |= 0x10
    with contextlib.suppress(PciError):
        run(prepare(machine(card).window, NIC, Xen()))


def test_a_window_may_begin_at_any_bus():
    card = nic()
    host = Machine({0x2000: card}, first_bus=0x20)
    run(prepare(host.window, 0x2000, Xen()))
    assert card.resets == 1
    assert "is not on the buses 32 to 47" in failure(host, NIC)
