"""Message interrupts of a function, on behalf of its driver domain: mapped by Xen, switched on here.

Xen writes the messages themselves, where no driver domain can; the switch in the capability it leaves to us.
"""

from xoar.pci import capabilities, config
from xoar.pci.config import name
from xoar.pci.errors import PciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from xoar.pci.bars import Bar
    from xoar.pci.config import Function

    class Mapper(Protocol):
        """Interrupts of one function of one domain, as Xen maps them. Both raise OSError."""

        def map(self, entry: int, table: int) -> int:
            """The pirq of an MSI-X entry, or of MSI if `table` is 0."""

        def unmap(self, pirq: int) -> None:
            """Takes a pirq back. ESRCH: there is no such domain; EINVAL: it has no such pirq."""


MOST_PIRQ = 0xFFFF
"""The protocol's answer has 16 bits for one."""

_ESRCH, _EINVAL = 3, 22  # xen/include/public/errno.h


class Interrupts:
    """The interrupts that a driver domain has switched on, by MSI or by MSI-X.

    Raises PciError if the function has neither, or if its MSI-X table lies in none of its windows.
    """

    def __init__(self, function: "Function", windows: "list[Bar]", mapper: "Mapper") -> None:
        self._function = function
        self._mapper = mapper
        self._pirqs: "list[int]" = []
        self._msi = capabilities.find(function, capabilities.MSI)
        self._msix = capabilities.find(function, capabilities.MSIX)
        self.entries = 0  # of the MSI-X table
        self._table = 0
        if self._msix:
            control = function.read(self._msix + capabilities.MSIX_CONTROL, 2)
            self.entries = (control & capabilities.MSIX_ENTRIES) + 1
            self._table = self._table_window(windows)
        elif not self._msi:
            raise PciError(
                "%s has neither MSI nor MSI-X, and other interrupts can't be given to a driver domain"
                % name(function.bdf)
            )

    @property
    def has_table(self) -> bool:
        """Whether there is an MSI-X table, which Xen has to be told of."""
        return self._msix != 0

    def enable_msi(self) -> int:
        """Switches MSI on; returns the pirq. OSError if Xen refuses, PciError if there is no MSI."""
        self.disable()
        if not self._msi:
            raise PciError("no MSI")
        self._map(0, 0)
        self._switch(self._msi + capabilities.MSI_CONTROL, capabilities.MSI_VECTORS, capabilities.MSI_ENABLE)
        return self._pirqs[0]

    def enable_msix(self, entries: "list[int]") -> "list[int]":
        """Switches MSI-X on with these entries of the table; returns their pirqs.

        If Xen refuses one (OSError), or one is not in the table (PciError), MSI-X is off and none is mapped.
        """
        self.disable()
        if not entries or max(entries) >= self.entries:
            raise PciError("no such MSI-X entry")
        for entry in entries:
            self._map(entry, self._table)
        self._switch(
            self._msix + capabilities.MSIX_CONTROL, capabilities.MSIX_MASK_ALL, capabilities.MSIX_ENABLE
        )
        return list(self._pirqs)

    def disable(self) -> None:
        """Switches all interrupts off. What Xen has taken back already, with its domain, is no trouble.

        OSError: Xen does not take one back. None is switched on again until it does: a driver domain could
        use up those of the machine otherwise.
        """
        if self._msi:
            self._switch(self._msi + capabilities.MSI_CONTROL, capabilities.MSI_ENABLE, 0)
        if self._msix:
            self._switch(self._msix + capabilities.MSIX_CONTROL, capabilities.MSIX_ENABLE, 0)
        while self._pirqs:
            try:
                self._mapper.unmap(self._pirqs[-1])
            except OSError as error:
                if error.args[0] not in (_ESRCH, _EINVAL):
                    raise
            self._pirqs.pop()

    def _map(self, entry: int, table: int) -> None:
        try:
            pirq = self._mapper.map(entry, table)
            self._pirqs.append(pirq)
            if pirq > MOST_PIRQ:
                raise PciError("pirq %d has no room in the protocol" % pirq)
        except (OSError, PciError):
            self.disable()
            raise

    def _switch(self, offset: int, off: int, on: int) -> None:
        # 16 bits at once: Xen refuses any other access to these registers
        old = self._function.read(offset, 2)
        new = old & ~off | on
        if new != old:
            self._function.write(offset, 2, new)

    def _table_window(self, windows: "list[Bar]") -> int:
        place = self._function.read(self._msix + capabilities.MSIX_TABLE, 4) & capabilities.MSIX_TABLE_BAR
        for window in windows:
            if window.offset == config.BAR0 + 4 * place:
                return window.address
        raise PciError(
            "%s has its MSI-X table in BAR %d, which is no memory" % (name(self._function.bdf), place)
        )
