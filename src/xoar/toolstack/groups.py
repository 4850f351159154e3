"""Constraint groups: a driver domain serves guests of one group at a time.

A guest that breaks into its driver domain reaches the other guests of it, so whom it may meet there is for
their operator to say. A guest's group is a tag in its configuration; those without one are a group, too. The
shards that a host has once (XenStore, Console, Builder, Toolstack) serve all groups.
"""

from xoar.toolstack.driver import BLKBACK, FAILED, NETBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.toolstack.driver import Driver

    Use = tuple[Driver, Any]

_ROOM = 256
"""Characters of an error's text (schema)."""

_PLACES = {NETBACK: "a network on", BLKBACK: "a volume on"}


def refusal(driver: "Driver", group: str, uses: "list[Use]", drivers: "list[Driver]") -> str:
    """Why a guest of `group` can't have a device of `driver` now, and what it can have; "" if it can.

    `uses` has each driver domain with the configuration of each guest that has a device of it, or is being
    given one; `drivers` are all of the host.
    """
    stranger = _stranger(driver, group, uses)
    if stranger is None:
        return ""
    text = "%s serves guest %s %s; guests %s " % (driver.name, stranger.name, _of(stranger.group), _of(group))
    fit = [
        other.name
        for other in drivers
        if other.kind == driver.kind and other.state != FAILED and _stranger(other, group, uses) is None
    ]
    if not fit:
        return text + "need another %s, or this one free of others" % driver.kind
    text += "can use %s %s" % (_PLACES[driver.kind], fit[0])
    for name in fit[1:]:
        if len(text) + 2 + len(name) <= _ROOM:
            text += ", " + name
    return text


def _stranger(driver: "Driver", group: str, uses: "list[Use]") -> "Any | None":
    """A guest of another group that uses a driver domain."""
    for used, guest in uses:
        if used is driver and guest.group != group:
            return guest
    return None


def _of(group: str) -> str:
    return "of group %s" % group if group else "without a group"
