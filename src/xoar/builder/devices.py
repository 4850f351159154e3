"""Which devices PCIBack has found, and what memory they have: what Builder may hand to driver domains.

PCIBack is trusted with configuration space, not with memory: a claim counts only for a device that the boot
plan gives to a driver domain, and only with memory inside the windows that Bootstrapper handed over, which
hold no RAM, and that no other device has claimed or was given. PCIBack comes back for each restart: what a
domain was given stays its own until it is given anew, so that a false claim can't hand it to another.
"""

from xoar.builder.errors import EINVAL, ENOENT, BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAGE = 4096


class Devices:
    """`drivers`: those of the boot plan; `windows`: (address, size) of memory that can be devices'."""

    def __init__(self, drivers: "list[Any]", windows: "list[tuple[int, int]]") -> None:
        self._bdfs = {driver.name: driver.bdf for driver in drivers}
        self._windows = windows
        self._claims: "dict[str, list[tuple[int, int]]]" = {}
        self._given: "dict[str, list[tuple[int, int]]]" = {}

    def claim(self, driver: str, bdf: int, bars: "list[tuple[int, int]]") -> None:
        """Keeps what PCIBack says of a device. BuildError(EINVAL) if it can't be so."""
        if self._bdfs.get(driver) != bdf:
            raise BuildError(EINVAL, "device %06x is not %s's" % (bdf, driver))
        for address, size in bars:
            self._check(driver, address, size)
        self._claims[driver] = list(bars)

    def forget(self, driver: str) -> None:
        """The device is not ready any more."""
        self._claims.pop(driver, None)

    def give(self, driver: str) -> "list[tuple[int, int]]":
        """Uses up a claim: (address, size) of each memory BAR, whole pages. BuildError(ENOENT) without one.

        PCIBack resets the device and claims it anew before it can be given to anybody again.
        """
        if driver not in self._claims:
            raise BuildError(ENOENT, "PCIBack has not found the device of %s" % driver)
        self._given[driver] = self._claims.pop(driver)
        return [_pages(address, size) for address, size in self._given[driver]]

    def _check(self, driver: str, address: int, size: int) -> None:
        first, length = _pages(address, size)
        what = "memory %#x+%#x of %s's device" % (address, size, driver)
        if not size or not _inside(first, length, self._windows):
            raise BuildError(EINVAL, what + " is outside of all device memory")
        for other, bars in list(self._claims.items()) + list(self._given.items()):
            for other_address, other_size in bars:
                start, extent = _pages(other_address, other_size)
                if other != driver and first < start + extent and start < first + length:
                    raise BuildError(EINVAL, "%s shares a page with %s's" % (what, other))


def _pages(address: int, size: int) -> "tuple[int, int]":
    start = address // PAGE * PAGE
    return start, (address + size - start + PAGE - 1) // PAGE * PAGE


def _inside(start: int, size: int, windows: "list[tuple[int, int]]") -> bool:
    return any([first <= start and start + size <= first + length for first, length in windows])
