"""The look at all devices of a host, and the reset of those that were withdrawn."""

from __future__ import annotations

from typing import Any

from simulated_pci import NO_RESET, Machine, Simulated, Xen, nic

from xoar.pci import config, survey

ROOT, ISA, SATA, PORT, CARD, FUNCTION1 = 0x00, 0xF8, 0xFA, 0x08, 0x100, 0x101


def function(code: int, header: int = 0, **registers: int) -> Simulated:
    made = Simulated()
    made.put(config.CLASS, 4, code << 8 | 1)
    made.put(config.HEADER_TYPE, 1, header)
    return made


def host(card: Simulated) -> Machine:
    """A bridge of the host, an ISA bridge with a controller beside it, and a card with two functions."""
    port = function(0x060400, config.BRIDGE)
    port.put(config.SECONDARY_BUS, 1, 1)
    port.behind = [card]
    card.put(config.HEADER_TYPE, 1, config.MULTI_FUNCTION)
    return Machine(
        {
            ROOT: function(0x060000),
            PORT: port,
            ISA: function(0x060100, config.MULTI_FUNCTION),
            SATA: function(0x010601),
            CARD: card,
            FUNCTION1: function(0x080600),
        }
    )


def run(machine: Machine, withdrawn: list[int]) -> tuple[list[Any], list[str]]:
    told: list[Any] = []
    reports: list[str] = []
    for wait in survey.survey(machine.window, withdrawn, lambda bdf: Xen(), reports.append, told.append):
        assert wait <= 1000
    (found,) = told
    return found, reports


def test_devices_below_bridges_are_found_but_no_bridges_and_no_iommu() -> None:
    found, reports = run(host(nic()), [])
    assert found == [(SATA, 0x010601, 0x8086, 0x10D3), (CARD, 0x020000, 0x8086, 0x10D3)]
    assert reports == []


def test_a_port_that_leads_back_is_followed_once() -> None:
    machine = host(nic())
    for bus in (0, 1, 16, 255):
        machine.functions[PORT].put(config.SECONDARY_BUS, 1, bus)
        found, _ = run(machine, [])
        assert [row.bdf for row in found] == ([SATA, CARD] if bus == 1 else [SATA])


def test_what_was_withdrawn_is_reset_before_devices_are_told_of() -> None:
    card = nic()
    run(host(card), [])
    assert card.resets == 0
    run(host(card), [CARD])
    assert card.resets == 1


def test_a_device_that_cannot_be_reset_is_reported_and_holds_up_nobody() -> None:
    card = nic(reset=NO_RESET)
    machine = host(card)
    machine.functions[PORT].behind = []
    found, reports = run(machine, [0x700, CARD])
    assert len(found) == 2
    assert reports[0] == "0000:07:00.0 was withdrawn, and is not reset: there is no device at 0000:07:00.0"
