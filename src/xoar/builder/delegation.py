"""Which guest has a device of which driver domain, and which Toolstack's guests may have one.

The host's Toolstack may link its guests to every driver domain, a tenant's to those that are delegated to
it. A driver domain serves guests of one constraint group at a time; a tag means something among the guests of
one Toolstack, and guests without one are a group of their own. XenStore makes the node of a back end only
when Builder says so, and a back end looks at nothing else.
"""

from collections import OrderedDict, namedtuple

from xoar.builder.errors import BuildError
from xoar.messages.errors import EBUSY, EEXIST, ENOENT, ENOSPC, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.codec import Message

MAX_DEVICES = 16
"""Of one guest: 8 disks and 8 network interfaces, as messages have them."""

Device = namedtuple("Device", ("domid", "driver", "kind", "number"))
"""The key of a device: the guest's domid, and the name of the driver domain."""


class _Link:
    """Whose guest has the device: the Toolstack's name, and the guest's tag."""

    def __init__(self, toolstack: str, group: str) -> None:
        self.toolstack = toolstack
        self.group = group

    @property
    def company(self) -> "tuple[str, str]":
        """Equal for guests that may meet."""
        return (self.toolstack, self.group) if self.group else ("", "")


class Delegation:
    """All devices and all delegations. `quotas`: how many devices the guests of a Toolstack may have
    together; only those of tenants have one, and only they need delegations."""

    def __init__(self, quotas: "dict[str, int]") -> None:
        self._quotas = quotas
        self._allowed: "dict[str, list[str]]" = {name: [] for name in quotas}
        self._links: "OrderedDict[Device, _Link]" = OrderedDict()

    def allow(self, driver: str, toolstack: str) -> None:
        """Lets the guests of a Toolstack have devices of a driver domain. BuildError(ENOENT)."""
        allowed = self._of(toolstack)
        if driver not in allowed:
            allowed.append(driver)

    def withdraw(self, driver: str, toolstack: str) -> None:
        """Lets them have no further ones. BuildError(ENOENT) if they may have none anyway."""
        allowed = self._of(toolstack)
        if driver not in allowed:
            raise BuildError(ENOENT, "%s is not delegated to %s" % (driver, toolstack))
        allowed.remove(driver)

    def add(self, device: Device, toolstack: str, group: str) -> None:
        """Gives a guest of a Toolstack a device, from the moment at which XenStore is asked for its node.
        Raises BuildError if it may not have it now."""
        if toolstack in self._allowed and device.driver not in self._allowed[toolstack]:
            raise BuildError(EPERM, "driver domain %s is not delegated to %s" % (device.driver, toolstack))
        if device in self._links:
            text = "domain %d has a %s %d of %s already"
            raise BuildError(EEXIST, text % (device.domid, device.kind, device.number, device.driver))
        if len([other for other in self._links if other.domid == device.domid]) >= MAX_DEVICES:
            raise BuildError(
                EBUSY, "domain %d has %d devices, the most allowed" % (device.domid, MAX_DEVICES)
            )
        if toolstack in self._quotas:
            check_quota(toolstack, self._quotas[toolstack], "devices", self.had_by(toolstack), 1)
        made = _Link(toolstack, group)
        for other, link in self._links.items():
            if other.driver == device.driver and link.company != made.company:
                raise BuildError(EBUSY, _stranger(device.driver, toolstack, link))
        self._links[device] = made

    def remove(self, device: Device) -> None:
        """The guest has it no more. BuildError(ENOENT) if it did not have it."""
        if self._links.pop(device, None) is None:
            text = "domain %d has no %s %d of %s"
            raise BuildError(ENOENT, text % (device.domid, device.kind, device.number, device.driver))

    def of_guest(self, domid: int) -> "list[Device]":
        """The devices of a guest."""
        return [device for device in self._links if device.domid == domid]

    def of_driver(self, name: str) -> "list[Device]":
        """The devices that a driver domain serves."""
        return [device for device in self._links if device.driver == name]

    def had_by(self, toolstack: str) -> int:
        """How many devices the guests of a Toolstack have together."""
        return len([link for link in self._links.values() if link.toolstack == toolstack])

    def remember(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages (kind, fields) with which `recall` makes this anew."""
        found: "list[tuple[str, dict[str, Any]]]" = []
        for toolstack, drivers in self._allowed.items():
            for driver in drivers:
                found.append(("remember_delegation", {"driver": driver, "toolstack": toolstack}))
        for device, link in self._links.items():
            fields = {
                "domid": device.domid,
                "driver": device.driver,
                "device_kind": device.kind,
                "number": device.number,
                "toolstack": link.toolstack,
                "group": link.group,
            }
            found.append(("remember_link", fields))
        return found

    def recall(self, message: "Message") -> bool:
        """Takes one of them back, whoever wrote it; whether it was one of these. BuildError: it can't be."""
        fields = message.fields
        if message.kind == "remember_delegation":
            self.allow(fields.driver, fields.toolstack)
        elif message.kind == "remember_link":
            device = Device(fields.domid, fields.driver, fields.device_kind, fields.number)
            if device in self._links:
                raise BuildError(EEXIST, "the same device twice")
            # without the checks of `add`: a delegation may have been withdrawn since
            self._links[device] = _Link(fields.toolstack, fields.group)
        else:
            return False
        return True

    def _of(self, toolstack: str) -> "list[str]":
        if toolstack not in self._allowed:
            raise BuildError(ENOENT, "%s is no tenant's Toolstack" % toolstack)
        return self._allowed[toolstack]


def check_quota(toolstack: str, limit: int, what: str, had: int, wants: int) -> None:
    """Raises BuildError(ENOSPC) if the guests of a Toolstack would have more than they may."""
    if had + wants > limit:
        text = "the quota of %s is %d %s: its guests have %d, this one needs %d"
        raise BuildError(ENOSPC, text % (toolstack, limit, what, had, wants))


def _stranger(driver: str, toolstack: str, link: _Link) -> str:
    """Why a guest can't have a device of a driver domain; one Toolstack hears nothing of another's groups."""
    if link.toolstack != toolstack:
        return "%s serves guests of another tenant's group" % driver
    return "%s serves guests %s" % (driver, "of group %s" % link.group if link.group else "without a group")
