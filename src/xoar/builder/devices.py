"""Which devices PCIBack has found, whose they are, and what memory they have: what Builder may hand out.

A device is one driver domain's or nobody's. At boot the boot plan says whose; `assign` and `withdraw` change
that. PCIBack is trusted with configuration space, not with memory: a claim counts only for a device that is a
driver domain's, and only with memory inside the windows that Bootstrapper handed over, which hold no RAM, and
that no other device has claimed or was given. PCIBack comes back for each restart: what a domain was given
stays its own until it is given anew or withdrawn, so that a false claim can't hand it to another.
"""

from xoar.builder.errors import EINVAL, ENOENT, BuildError
from xoar.messages.errors import EBUSY
from xoar.messages.records import NO_DEVICE, function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.codec import Message

PAGE = 4096
_FOUND_PAGE = 64  # devices in one message
MOST_FOUND = 256
"""Devices that PCIBack may tell of."""


class Devices:
    """`drivers`: those of the boot plan; `windows`: (address, size) of memory that can be devices'."""

    def __init__(self, drivers: "list[Any]", windows: "list[tuple[int, int]]") -> None:
        self._drivers = drivers
        self._bdfs: "dict[str, int]" = {driver.name: driver.bdf for driver in drivers}
        self._windows = windows
        self._claims: "dict[str, list[tuple[int, int]]]" = {}
        self._given: "dict[str, list[tuple[int, int]]]" = {}
        self._found: "list[Any]" = []
        self._withdrawn: "list[int]" = []
        self._recalled = False  # nothing of the boot plan holds then

    # whose they are

    def bdf(self, driver: str) -> int:
        """The driver domain's device, or NO_DEVICE."""
        return self._bdfs.get(driver, NO_DEVICE)

    def owner(self, bdf: int) -> str:
        """The driver domain whose device this is; "" for nobody's."""
        for driver, own in self._bdfs.items():
            if own == bdf:
                return driver
        return ""

    def words(self, present: "Any") -> "list[str]":
        """PCIBack's words: the devices of driver domains that are not `present`, which it resets and claims,
        and those that were withdrawn, which it resets."""
        words = [
            "device=%s:%d:%d" % (driver.name, driver.domid, self._bdfs[driver.name])
            for driver in self._drivers
            if self._bdfs[driver.name] != NO_DEVICE and driver.domid not in present
        ]
        return words + ["withdrawn=%d" % bdf for bdf in self._withdrawn if not self.owner(bdf)]

    def assign(self, driver: str, bdf: int) -> None:
        """Makes a device that is nobody's a driver domain's that has none. Raises BuildError."""
        has = self._known(driver)
        if has != NO_DEVICE:
            raise BuildError(EBUSY, "%s has %s: withdraw that first" % (driver, function_name(has)))
        if bdf not in [row.bdf for row in self._found]:
            raise BuildError(ENOENT, "PCIBack has found no device at %s" % function_name(bdf))
        if self.owner(bdf):
            raise BuildError(EBUSY, "%s is %s's" % (function_name(bdf), self.owner(bdf)))
        self._bdfs[driver] = bdf

    def withdraw(self, driver: str) -> None:
        """Makes a driver domain's device nobody's; the domain must be gone. Raises BuildError."""
        bdf = self._known(driver)
        if bdf == NO_DEVICE:
            raise BuildError(ENOENT, "%s has no device" % driver)
        self._bdfs[driver] = NO_DEVICE
        self._claims.pop(driver, None)
        self._given.pop(driver, None)
        if bdf not in self._withdrawn:
            self._withdrawn.append(bdf)

    def _known(self, driver: str) -> int:
        if driver not in self._bdfs:
            raise BuildError(ENOENT, "the boot plan has no driver domain %s" % driver)
        return self._bdfs[driver]

    # what PCIBack says

    def seen(self, start: int, found: "list[Any]") -> None:
        """PCIBack has found these devices, from position `start` of its list on; it tells of all each time.

        Raises BuildError for a page that does not follow the last one, or too many devices.
        """
        if start == 0:
            self._found = []
        if start != len(self._found) or start + len(found) > MOST_FOUND:
            raise BuildError(EINVAL, "this list of devices has no such page")
        self._found += found

    def remember(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages (kind, fields) with which `recall` makes this anew."""
        found: "list[tuple[str, dict[str, Any]]]" = []
        for driver, bdf in self._bdfs.items():
            claimed, given = self._claims.get(driver), self._given.get(driver)
            found.append(
                (
                    "remember_device",
                    {
                        "driver": driver,
                        "bdf": bdf,
                        "is_claimed": int(claimed is not None),
                        "claimed": list(claimed or ()),
                        "is_given": int(given is not None),
                        "given": list(given or ()),
                    },
                )
            )
        for start in range(0, len(self._found), _FOUND_PAGE):
            found.append(("remember_found", {"devices": self._found[start : start + _FOUND_PAGE]}))
        for start in range(0, len(self._withdrawn), _FOUND_PAGE):
            bdfs = [(bdf,) for bdf in self._withdrawn[start : start + _FOUND_PAGE]]
            found.append(("remember_withdrawn", {"bdfs": bdfs}))
        return found

    def recall(self, message: "Message") -> bool:
        """Takes one of them back, whoever wrote it; whether it was one of these. BuildError: it can't be."""
        fields = message.fields
        if message.kind == "remember_device":
            if not self._recalled:
                self._recalled = True
                self._bdfs = {driver.name: NO_DEVICE for driver in self._drivers}
            driver = fields.driver
            self._known(driver)
            if fields.bdf != NO_DEVICE and self.owner(fields.bdf) not in ("", driver):
                raise BuildError(EINVAL, "two driver domains have %s" % function_name(fields.bdf))
            self._bdfs[driver] = fields.bdf
            for there, bars, kept in (
                (fields.is_claimed, fields.claimed, self._claims),
                (fields.is_given, fields.given, self._given),
            ):
                if there:
                    for bar in bars:
                        self._check(driver, bar.address, bar.size)
                    kept[driver] = [(bar.address, bar.size) for bar in bars]
        elif message.kind == "remember_found":
            self.seen(len(self._found), list(fields.devices))
        elif message.kind == "remember_withdrawn":
            self._withdrawn += [row.bdf for row in fields.bdfs]
        else:
            return False
        return True

    def rows(self, start: int, most: int) -> "tuple[list[tuple[int, int, int, int, str]], bool]":
        """At most `most` devices from `start` on, as the schema's `found_device`; if there are more."""
        page = self._found[start : start + most]
        rows = [(row.bdf, row.class_code, row.vendor, row.device, self.owner(row.bdf)) for row in page]
        return rows, len(self._found) > start + most

    def claim(self, driver: str, bdf: int, bars: "list[tuple[int, int]]") -> None:
        """Keeps what PCIBack says of a device. BuildError(EINVAL) if it can't be so."""
        if bdf == NO_DEVICE or self.bdf(driver) != bdf:
            raise BuildError(EINVAL, "device %06x is not %s's" % (bdf, driver))
        for address, size in bars:
            self._check(driver, address, size)
        self._claims[driver] = list(bars)
        if bdf in self._withdrawn:
            self._withdrawn.remove(bdf)

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
