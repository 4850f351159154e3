"""Devices that are plugged into a running guest, and unplugged from it.

Unplugging needs the guest: its driver lets go, then the backend closes, and only then are the nodes removed.
What a guest does not let go of in time stays plugged as a whole, marked as closing, and leaves when the guest
does let go, or with the guest's domain.
"""

from xoar.messages.errors import EBUSY, EIO, ENOENT, ETIMEDOUT
from xoar.toolstack import device as nodes
from xoar.toolstack.device import VBD, VIF
from xoar.toolstack.devices import Unfit
from xoar.toolstack.guest import ENDING, SETTLED
from xoar.toolstack.store import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.toolstack.device import Device
    from xoar.toolstack.devices import Devices
    from xoar.toolstack.guest import Guest, Request
    from xoar.toolstack.guests import Guests
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.waits import Waits


RELEASE_MS = 10_000
"""How long a guest and a driver domain may take to let go of what could not be plugged."""


class Hotplug:
    """Operators' requests about devices of running guests."""

    def __init__(self, guests: "Guests", devices: "Devices", store: "StoreLink", waits: "Waits") -> None:
        self._guests = guests
        self._devices = devices
        self._store = store
        self._waits = waits

    def attach_disk(self, fields: "Any", request: "Request") -> None:
        """Serves disk_attach."""
        self._attach(self._devices.add_disk, fields.disk, fields, request)

    def attach_nic(self, fields: "Any", request: "Request") -> None:
        """Serves nic_attach."""
        self._attach(self._devices.add_nic, fields.nic, fields, request)

    def detach_disk(self, fields: "Any", request: "Request") -> None:
        """Serves disk_detach."""
        self._detach(VBD, fields.device, fields, request)

    def detach_nic(self, fields: "Any", request: "Request") -> None:
        """Serves nic_detach."""
        self._detach(VIF, fields.handle, fields, request)

    def resume(self, guest: "Guest") -> None:
        """Goes on with what the last life had begun with a guest that is settled: a device that is to be
        unplugged goes when the guest lets go of it; one that may have been linked, and no more, at once."""
        for device in list(guest.devices):
            if not device.domid:
                device.domid = guest.domid
                self._devices.unplug(device, self._unplugged(guest, device))
            elif device.closing:
                self._await_closed(guest, device, None)

    def _attach(self, add: "Callable[..., Device]", config: "Any", fields: "Any", request: "Request") -> None:
        guest = self._running(fields.guest, request)
        if guest is None:
            return
        try:
            device = add(guest.config, guest.devices, config)
        except Unfit as unfit:
            request.refuse(unfit.errno, unfit.text)
            return
        if device.driver.trouble:
            self._devices.forget(device)
            request.refuse(EBUSY, "%s: %s" % (device.title, device.driver.trouble))
            return
        guest.devices.append(device)
        gone = _gone(guest)

        def linked(errno: int, text: str) -> None:
            if gone():
                device.closing = True
                request.refuse(EIO, "guest %s ended meanwhile" % guest.name)
            elif text:
                guest.devices.remove(device)
                self._devices.forget(device)
                request.refuse(errno, text)
            else:
                self._plug(guest, device, fields.timeout_ms, request)

        self._devices.link([device], guest.domid, linked)

    def _plug(self, guest: "Guest", device: "Device", timeout_ms: int, request: "Request") -> None:
        gone = _gone(guest)

        def decided(in_time: bool) -> None:
            if gone():
                device.closing = True
                request.refuse(EIO, "guest %s ended meanwhile" % guest.name)
            elif device.connected:
                request.answer("done")
            elif device.failure:
                self._take_back(guest, device, EIO, device.failure, request)
            else:
                text = "neither side said why; is its driver loaded in the guest?"
                if not device.prepared:
                    text = "driver domain %s did not prepare it in time" % device.driver.name
                self._take_back(guest, device, ETIMEDOUT, text, request)

        def written(refused: str) -> None:
            if refused:
                device.hotplug, device.error = "error", refused

        batch = Batch(self._store)
        self._devices.plug(batch, device)
        self._store.run(batch, written)
        self._waits.until(lambda: gone() or device.connected or bool(device.failure), timeout_ms, decided)

    def _take_back(self, guest: "Guest", device: "Device", errno: int, text: str, request: "Request") -> None:
        text = "%s of guest %s: %s" % (device.title, guest.name, text)
        self._close(guest, device, RELEASE_MS)
        self._waits.until(
            lambda: device not in guest.devices, None, lambda in_time: request.refuse(errno, text)
        )

    def _detach(self, kind: str, which: "Any", fields: "Any", request: "Request") -> None:
        guest = self._running(fields.guest, request)
        if guest is None:
            return
        device = _of(guest, kind, which)
        if device is None:
            what = "disk %s" % which if kind == VBD else "network interface %d" % which
            request.refuse(ENOENT, "guest %s has no %s" % (guest.name, what))
            return
        gone = _gone(guest)

        def decided(in_time: bool) -> None:
            if in_time:
                request.answer("done")
                return
            text = "guest %s has not let go of %s in time: stop using it in the guest (umount, swapoff, ip "
            text += "link set down); it stays plugged until then"
            request.refuse(ETIMEDOUT, text % (guest.name, device.title))

        if not device.closing:
            self._close(guest, device, None)
        self._waits.until(lambda: gone() or device not in guest.devices, fields.timeout_ms, decided)

    def _close(self, guest: "Guest", device: "Device", timeout_ms: "int | None") -> None:
        """Unplugs a device; after `timeout_ms` whether or not it is let go of."""
        device.closing = True
        batch = Batch(self._store)
        if not device.lost:
            nodes.close(batch, device)
        self._store.run(batch, lambda refused: None)
        self._await_closed(guest, device, timeout_ms)

    def _await_closed(self, guest: "Guest", device: "Device", timeout_ms: "int | None") -> None:
        gone = _gone(guest)

        def closed(in_time: bool) -> None:
            if gone():
                return
            self._devices.unplug(device, self._unplugged(guest, device))

        # the next life can wait for it as well, as long as it takes
        self._waits.until(lambda: gone() or device.closed, timeout_ms, closed, timeout_ms is None)

    def _unplugged(self, guest: "Guest", device: "Device") -> "Callable[[], None]":
        def unplugged() -> None:
            if device in guest.devices:
                guest.devices.remove(device)
                self._devices.forget(device)

        return unplugged

    def _running(self, name: str, request: "Request") -> "Guest | None":
        guest = self._guests.find(name)
        if guest is None:
            request.refuse(ENOENT, self._guests.absence(name))
        elif guest.phase != SETTLED or guest.state != "running":
            request.refuse(EBUSY, "guest %s is %s; devices are plugged while it runs" % (name, guest.state))
            return None
        return guest


def _gone(guest: "Guest") -> "Callable[[], bool]":
    domid = guest.domid
    return lambda: guest.domid != domid or guest.phase in ENDING


def _of(guest: "Guest", kind: str, which: "Any") -> "Device | None":
    for device in guest.devices:
        if device.kind == kind and which in (device.number, getattr(device.config, "device", None)):
            return device
    return None
