"""One driver domain: what it is, and where in its life it is. Only `drivers.Drivers` changes that."""

from xoar.messages.records import NO_DEVICE
from xoar.toolstack.records import domain_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.toolstack.memory import Thing

WAITING = "waiting"
BUILDING = "building"
STARTING = "starting"
READY = "ready"
FAILED = "failed"
UNASSIGNED = "unassigned"

NETBACK = "netback"
BLKBACK = "blkback"


class Driver:
    """A driver domain, which keeps its domid over restarts.

    state      waits for                                                         then
    waiting    PCIBack's claim of its device (Builder's `device`)                building
    building   Builder's `built`, XenStore's replies, Builder's `done`           starting
    starting   its agent's word in service/state                                 ready or failed
    unassigned an operator who gives it a device                                 waiting

    `domid` exists while `up` is set, its records while `recorded` is; `asked` is set while Builder builds it.
    To a tenant's Toolstack, whose domid is `tenant`, it is ready or waiting.
    """

    def __init__(self, name: str, kind: str, domid: int, device: int, tenant: int = 0) -> None:
        self.name = name
        self.home = tenant_path(domid, tenant) if tenant else domain_path(domid)
        self.kind = kind
        self.domid = domid
        self.device = device
        # a tenant is not told of the device
        self.state = WAITING if tenant or device != NO_DEVICE else UNASSIGNED
        self.note = ""
        self.restarts = 0
        self.since_ms = 0
        self.asked = False
        self.up = False
        self.recorded = False
        # what the agent says
        self.said_state = ""
        self.said_note = ""

    @property
    def said(self) -> str:
        """Where its agent says something to this Toolstack."""
        return self.home + "/service"

    @property
    def requests(self) -> str:
        """Where its agent looks for requests of this Toolstack."""
        return self.home + "/requests"

    @property
    def decided(self) -> bool:
        """Whether its start has come to an end, good or bad, or none goes on."""
        return self.state in (READY, FAILED, UNASSIGNED)

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way with it."""
        return self.decided and not self.asked

    def remembered(self) -> "Thing":
        """What there is to remember."""
        flags = (int(self.up), int(self.recorded))
        said = (self.name, self.device, self.state, int(self.settled), self.note[:256], self.restarts)
        return self, "kept_driver", said + (self.since_ms,) + flags

    @property
    def trouble(self) -> str:
        """Why it can't serve now; "" if it can."""
        if self.state == READY:
            return ""
        if self.state == FAILED:
            return "driver domain %s failed: %s" % (self.name, self.note)
        if self.state == UNASSIGNED:
            return "driver domain %s has no device (xoar driver assign)" % self.name
        return "driver domain %s is not ready yet (%s)" % (self.name, self.state)


def tenant_path(driver: int, tenant: int) -> str:
    """What a driver domain and the Toolstack of a tenant that it is delegated to have in common."""
    return "%s/tenants/%d" % (domain_path(driver), tenant)


NOBODY = Driver("", "", 0, NO_DEVICE)
"""The driver domain of a device that is gone."""


def declared(settings: "Callable[[str], list[str]]") -> "tuple[list[Driver], int]":
    """The driver domains and PCIBack's domid (0: none) of the command line's words.

    `driver=<name>:<shard>:<domid>:<PCI function, decimal as in messages>` and `pciback=<domid>`.
    """
    drivers = []
    for word in settings("driver"):
        name, kind, domid, device = word.split(":")
        drivers.append(Driver(name, kind, int(domid), int(device)))
    pciback = settings("pciback")
    return (drivers, int(pciback[0])) if pciback else ([], 0)
