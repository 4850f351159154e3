"""Bringing a function back to the state after power-on, by way of configuration space alone.

Three ways, of which the first that a function has is taken: function-level reset (PCI Express Base
Specification, 6.6.2), the way to D3hot and back (PCI Power Management 1.2, 5.4), and the reset of the bus
behind the port above (6.6.1), which takes all functions there with it, so only where there is no other one.
"""

from xoar.pci import bars, capabilities, config
from xoar.pci.config import name
from xoar.pci.errors import PciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from xoar.pci.config import Function, Window

_STEP_MS = 10
_PENDING_MS = 100
_RETURN_MS = 5000
# waits that the specifications above ask for
_RESET_MS = 100
_POWER_MS = 10
_BUS_MS = 2
_BUS_RESET = 0x40
# what firmware set up, as (offset, size): cache line and latency, BARs, ROM, interrupt line
_KEPT = [(config.CACHE_LINE, 2), (config.ROM, 4), (config.INTERRUPT_LINE, 1)]
_KEPT += [(offset, 4) for offset in bars.registers()]


def reset(window: "Window", function: "Function") -> "Generator[int, None, None]":
    """Resets a function, and restores what firmware set up; it then decodes nothing and does no DMA.

    Yields the milliseconds to wait before going on. Raises PciError if there is no way to reset it, or if it
    does not come back.
    """
    way = _way(window, function)
    function.write(config.COMMAND, 2, config.COMMAND_NO_INTX)
    identity = function.read(config.ID, 4)
    express = capabilities.find(function, capabilities.EXPRESS)
    saved = [(offset, size, function.read(offset, size)) for offset, size in _KEPT]
    control = function.read(express + capabilities.EXPRESS_DEVCTL, 2) if express else 0
    if express:
        waited = 0
        while waited < _PENDING_MS and _pending(function, express):
            waited += _STEP_MS
            yield _STEP_MS
    yield from way
    waited = 0
    while function.read(config.ID, 4) != identity:
        if waited >= _RETURN_MS:
            raise PciError("%s did not come back within %d ms of its reset" % (name(function.bdf), waited))
        waited += _STEP_MS
        yield _STEP_MS
    function.write(config.COMMAND, 2, config.COMMAND_NO_INTX)
    for offset, size, value in saved:
        function.write(offset, size, value)
    if express:
        function.write(express + capabilities.EXPRESS_DEVCTL, 2, control & ~capabilities.DEVCTL_RESET)


def _pending(function: "Function", express: int) -> bool:
    status = function.read(express + capabilities.EXPRESS_DEVSTA, 2)
    return bool(status & capabilities.DEVSTA_PENDING)


def _way(window: "Window", function: "Function") -> "Generator[int, None, None]":
    express = capabilities.find(function, capabilities.EXPRESS)
    if express and function.read(express + capabilities.EXPRESS_DEVCAP, 4) & capabilities.DEVCAP_RESET:
        return _function_reset(function, express)
    power = capabilities.find(function, capabilities.POWER_MANAGEMENT)
    if power and not function.read(power + capabilities.PMCSR, 2) & capabilities.PMCSR_NO_SOFT_RESET:
        return _power_reset(function, power)
    bus = function.bdf >> 8
    port = window.bridge_to(bus)
    if port is not None and [other.bdf for other in window.functions(bus)] == [function.bdf]:
        return _bus_reset(port)
    raise PciError(
        "%s can't be reset: it has no function-level reset, no power state that resets it, and is not alone "
        "behind a port; give it a slot of its own" % name(function.bdf)
    )


def _function_reset(function: "Function", express: int) -> "Generator[int, None, None]":
    control = function.read(express + capabilities.EXPRESS_DEVCTL, 2)
    function.write(express + capabilities.EXPRESS_DEVCTL, 2, control | capabilities.DEVCTL_RESET)
    yield _RESET_MS


def _power_reset(function: "Function", power: int) -> "Generator[int, None, None]":
    awake = function.read(power + capabilities.PMCSR, 2) & ~capabilities.PMCSR_STATE
    function.write(power + capabilities.PMCSR, 2, awake | capabilities.PMCSR_D3HOT)
    yield _POWER_MS
    function.write(power + capabilities.PMCSR, 2, awake)
    yield _POWER_MS


def _bus_reset(port: "Function") -> "Generator[int, None, None]":
    control = port.read(config.BRIDGE_CONTROL, 2)
    port.write(config.BRIDGE_CONTROL, 2, control | _BUS_RESET)
    yield _BUS_MS
    port.write(config.BRIDGE_CONTROL, 2, control & ~_BUS_RESET)
    yield _RESET_MS
