"""One virtual device of a guest: a disk (vbd) or a network interface (vif), its nodes and its state.

Node names, their owners and readers are libxl's (libxl__device_generic_add in libxl_device.c, libxl_nic.c,
libxl_disk.c), with what docs/devices.md adds, and without those that only libxl's scripts and emulators read:
each node costs requests of its driver domain's kernel. Where libxl has a transaction, the order does it:
Linux takes a device for new when `state` is 1, which is therefore written last, the frontend's first: a
backend whose frontend has no state gives up, a frontend waits.
"""

from xoar.toolstack.records import domain_path
from xoar.xenstore import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.toolstack.driver import Driver
    from xoar.toolstack.memory import Thing
    from xoar.toolstack.store import Batch

VBD = "vbd"
VIF = "vif"

# XenbusState (public/io/xenbus.h)
INITIALISING = 1
CONNECTED = 4
CLOSING = 5
CLOSED = 6

_FIRST_DISK = 202 << 8
_LETTERS = "abcdefghijklmnop"
_RATE_PERIOD_US = 50_000
_NO_REASON = "its driver domain does not say why"


def disk_number(name: str) -> "int | None":
    """The vbd number of xvda..xvdp: major 202, 16 minors each (docs/misc/vbd-interface.7)."""
    letter = name[3:]
    if name[:3] != "xvd" or len(letter) != 1 or letter not in _LETTERS:
        return None
    return _FIRST_DISK + 16 * _LETTERS.index(letter)


def rate(rate_kib: int) -> str:
    """xen-netback's `rate`: bytes that may be sent in each period, and the period in us."""
    return "%d,%d" % (rate_kib * 1024 * _RATE_PERIOD_US // 1_000_000, _RATE_PERIOD_US)


def mac_text(mac: bytes) -> str:
    """The usual form, six pairs of hexadecimal digits."""
    return ":".join(["%02x" % byte for byte in mac])


class Device:
    """`config` is a DISK or a NIC; `number` the vbd number or the handle. While `domid` is not 0 its nodes
    are there, for that domain."""

    def __init__(self, kind: str, number: int, config: "Any", driver: "Driver") -> None:
        self.kind = kind
        self.number = number
        self.config = config
        self.driver = driver
        self.reset()

    def reset(self) -> None:
        """There are no nodes (any more)."""
        self.domid = 0
        self.backend_state = 0
        self.hotplug = ""
        self.error = ""
        self.seen_address = ""
        self.lost = False
        self.closing = False

    def remembered(self, guest: bytes) -> "Thing":
        """What there is to remember; `guest` is its guest's uuid."""
        shared = (guest, self.driver.domid, int(self.domid != 0), int(self.lost), int(self.closing))
        if self.kind == VBD:
            return self, "kept_disk", shared + tuple(self.config)
        return self, "kept_nic", shared + (self.driver.name, self.number) + tuple(self.config)

    @property
    def title(self) -> str:
        """How an operator knows it."""
        if self.kind == VBD:
            return "disk %s (volume %s)" % (self.config.device, self.config.volume)
        return "network interface %d (network %s)" % (self.number, self.config.network)

    @property
    def failure(self) -> str:
        """Why it does not work; "" if it may."""
        if self.lost:
            return "its driver domain %s has ended; it comes back when the guest reboots" % self.driver.name
        return (self.error or _NO_REASON) if self.hotplug == "error" else ""

    @property
    def prepared(self) -> bool:
        """Whether its driver domain has decided about it."""
        return self.hotplug == "connected" or bool(self.failure)

    @property
    def connected(self) -> bool:
        """Whether both sides have it in use."""
        return self.backend_state == CONNECTED and not self.failure

    @property
    def closed(self) -> bool:
        """Whether its backend holds nothing of the guest any more."""
        return self.lost or self.backend_state in (0, CLOSED)

    @property
    def state(self) -> str:
        """As operators see it (records.PLUG_STATE)."""
        if self.failure:
            return "failed"
        if self.closing or self.backend_state in (CLOSING, CLOSED):
            return "closing"
        return "connected" if self.connected else "connecting"

    @property
    def frontend(self) -> str:
        """Its nodes on the guest's side."""
        return "%s/device/%s/%d" % (domain_path(self.domid), self.kind, self.number)

    @property
    def backend(self) -> str:
        """Its nodes on the driver domain's side; XenStore makes the first, when Builder has linked both."""
        return "%s/backend/%s/%d/%d" % (domain_path(self.driver.domid), self.kind, self.domid, self.number)


def write(batch: "Batch", owner: int, device: Device) -> None:
    """Writes all nodes of a device whose `domid` is set, below the back end's that is there; they belong to
    `owner`, the Toolstack."""
    driver, guest = device.driver.domid, device.domid
    front: "tuple[tuple[str, str], ...]"
    back: "tuple[tuple[str, str], ...]"
    config = device.config
    if device.kind == VBD:
        front = (("virtual-device", "%d" % device.number), ("device-type", "disk"))
        back = (("dev", config.device), ("mode", config.mode), ("params", config.volume))
    else:
        identity = (("handle", "%d" % device.number), ("mac", mac_text(config.mac)))
        front = identity
        # xen-netback wants a script to be named, which NetBack's agent does without
        back = identity + (("script", "none"), ("network", config.network), ("address", config.address))
        if config.rate_kib:
            back += (("rate", rate(config.rate_kib)),)
    batch.add(wire.RM, device.frontend)
    batch.make(device.frontend, owner, guest, driver)
    batch.write(device.frontend, (("backend", device.backend), ("backend-id", "%d" % driver)) + front)
    # the nodes that name the front end are there, and nobody's to change
    batch.write(device.backend, (("online", "1"),) + back)
    for path in (device.frontend, device.backend):
        batch.add(wire.WRITE, path + "/state", "%d" % INITIALISING)


def close(batch: "Batch", device: Device) -> None:
    """Asks both sides to let go of it: libxl's order, and what makes Linux's backends say CLOSED."""
    batch.write(device.backend, (("online", "0"), ("state", "%d" % CLOSING)))
