"""Devices of guests: what Builder allows (delegation.py), XenStore is told to make, and takes away again."""

from xoar.builder.delegation import Device
from xoar.builder.errors import ENOENT, BuildError
from xoar.builder.operations import Call
from xoar.messages.errors import EIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.builder.delegation import Delegation
    from xoar.builder.operations import Operations

    Answer = Callable[[int, str], None]
    """Takes an error's number and text; (0, "") if it was done."""


class Plugging:
    """`drivers`: the driver domains of the boot plan."""

    def __init__(self, delegation: "Delegation", operations: "Operations", drivers: "list[Any]") -> None:
        self._delegation = delegation
        self._operations = operations
        self._domids = {driver.name: driver.domid for driver in drivers}

    def plug(self, device: Device, toolstack: str, group: str, answer: "Answer") -> None:
        """Links a Toolstack's guest, which has this group's tag, to a driver domain. Raises BuildError."""
        self.check_driver(device.driver)
        self._delegation.add(device, toolstack, group)

        def made(trouble: str) -> None:
            if trouble and device in self._delegation.of_guest(device.domid):
                # perhaps only the answer came too late: the node must not stay
                self._take_away(device, _no_matter)
            answer(EIO if trouble else 0, trouble)

        self._tell("make_back_end", device, made)

    def unplug(self, device: Device, answer: "Answer") -> None:
        """Takes a guest's device away. Raises BuildError."""
        self.check_driver(device.driver)
        self._take_away(device, lambda trouble: answer(EIO if trouble else 0, trouble))

    def ended(self, domid: int, name: str) -> None:
        """A domain is gone, a driver domain of that name or a guest: so are devices that it served or had."""
        for device in self._delegation.of_guest(domid):
            self._take_away(device, _no_matter)
        for device in self._delegation.of_driver(name):
            # the nodes have gone with the driver domain's
            self._delegation.remove(device)

    def check_driver(self, name: str) -> None:
        """Raises BuildError(ENOENT) if the host has no such driver domain."""
        if name not in self._domids:
            raise BuildError(ENOENT, "the boot plan has no driver domain %s" % name)

    def _take_away(self, device: Device, done: "Callable[[str], None]") -> None:
        self._delegation.remove(device)
        self._tell("remove_back_end", device, done)

    def _tell(self, kind: str, device: Device, done: "Callable[[str], None]") -> None:
        fields = {
            "domid": device.domid,
            "backend": self._domids[device.driver],
            "device_kind": device.kind,
            "number": device.number,
        }
        self._operations.start([Call("xenstore", kind, fields)], done)


def _no_matter(trouble: str) -> None:
    """XenStore says so if a node is not there any more."""
