"""From a function as it is found to a device that a driver domain may have."""

from xoar.pci import bars, config
from xoar.pci.config import name
from xoar.pci.errors import PciError
from xoar.pci.interrupts import Interrupts
from xoar.pci.reset import reset
from xoar.pci.shadow import Shadow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Protocol

    from xoar.pci.bars import Bar
    from xoar.pci.config import Function, Window
    from xoar.pci.interrupts import Mapper

    class Xen(Mapper, Protocol):
        """What Xen does for one function of one domain. All raise OSError."""

        def prepare_msix(self) -> None:
            """Makes Xen take note of the MSI-X table and keep the domain from writing to it."""

        def release_msix(self) -> None:
            """Takes that back."""


_EBUSY = 16  # xen/include/public/errno.h
_RETRY_MS = 100
_RETRIES = 10


class Device:
    """A function that was reset: its memory windows, what a driver domain sees of it, its interrupts."""

    def __init__(self, function: "Function", windows: "list[Bar]", xen: "Xen") -> None:
        self.windows = windows
        self.space = Shadow(function, windows)
        self.interrupts = Interrupts(function, windows, xen)


def prepare(window: "Window", bdf: int, xen: "Xen") -> "Generator[int, None, Device]":
    """Finds a function, resets it, measures its windows and prepares its MSI-X table; returns the Device.

    Yields the milliseconds to wait before going on. Raises PciError: such a device can't be handed out.
    """
    function = window.function(bdf)
    if not function.present:
        raise PciError("there is no device at %s" % name(bdf))
    if function.header_type != 0:
        raise PciError("%s is a bridge, and only devices can be handed out" % name(bdf))
    yield from reset(window, function)
    windows = bars.measure(function)
    for bar in windows:
        if not bar.address:
            number = (bar.offset - config.BAR0) // 4
            raise PciError("firmware gave BAR %d of %s no address" % (number, name(bdf)))
    # Xen reads the MSI-X table
    function.write(config.COMMAND, 2, config.QUIET)
    device = Device(function, windows, xen)
    if device.interrupts.has_table:
        yield from _prepare_msix(xen, bdf)
    return device


def _prepare_msix(xen: "Xen", bdf: int) -> "Generator[int, None, None]":
    for _ in range(_RETRIES):
        try:
            xen.release_msix()
        except OSError as error:
            # it was not prepared, or a domain that is being destroyed still has interrupts
            if error.args[0] != _EBUSY:
                raise PciError("Xen does not release the MSI-X table of %s: %s" % (name(bdf), error))
        try:
            xen.prepare_msix()
            return
        except OSError as error:
            if error.args[0] != _EBUSY:
                raise PciError("Xen does not take the MSI-X table of %s: %s" % (name(bdf), error))
        yield _RETRY_MS
    raise PciError("interrupts of %s are still in use after %d ms" % (name(bdf), _RETRIES * _RETRY_MS))
