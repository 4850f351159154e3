"""One driver domain's device, from the reset to the service, over all lives of the domain.

    PREPARING   the device is being reset; then it is claimed, or a fault reported
    READY       waits for the frontend's directory in XenStore
    OFFERED     our directory stands; waits for the frontend's page and event channel
    CONNECTED   operations are answered
    FAILED      the device can't be handed out

The frontend's directory vanishes with its domain: then, whatever the phase, the device is prepared and
claimed anew, and no domain may have it before that. A frontend that starts again in the same domain has its
device reset, too. Closing is never written: a driver domain keeps its device when this shard is gone.
"""

from xoar.abi import xen as abi
from xoar.pci import config, device, pciif
from xoar.pci.errors import PciError
from xoar.xenstore.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from xoar.pci.bars import Bar
    from xoar.pci.config import Window
    from xoar.pci.device import Device, Xen
    from xoar.xen.ring import SharedPage
    from xoar.xenstore.client import Client

    class Transport(Protocol):
        """The frontend's page, mapped, and its event channel, bound."""

        page: SharedPage

        def notify(self) -> None:
            """Signals the frontend."""

        def close(self) -> None:
            """Unmaps the page and closes the channel."""

    class Host(Protocol):
        """What a driver's service needs around it."""

        domid: int
        """This shard's own."""
        window: Window
        store: Client

        def now_ms(self) -> int:
            """A clock that never goes back."""

        def xen(self, domid: int, bdf: int) -> Xen:
            """Xen's interrupts for a function of a domain."""

        def connect(self, domid: int, gref: int, port: int) -> Transport:
            """Maps a domain's page and binds its port. Raises OSError."""

        def claim(self, driver: str, bdf: int, windows: list[Bar]) -> None:
            """Tells Builder that the device may be assigned."""

        def fault(self, driver: str, text: str) -> None:
            """Tells Builder that it can't be."""

        def report(self, text: str) -> None:
            """Takes a line for Xen's console."""


PREPARING, READY, OFFERED, CONNECTED, FAILED = range(5)

_MAGIC = b"7"  # XEN_PCI_MAGIC of io/pciif.h
_RESET_INTERVAL_MS = 1000
_MAX_REPORTS = 5


class Driver:
    """The service for driver domain `domid`, called `name`, whose device is function `bdf`."""

    def __init__(self, host: "Host", name: str, domid: int, bdf: int) -> None:
        self.name = name
        self.frontend = "/local/domain/%d/device/pci/0" % domid
        self.backend = "/local/domain/%d/backend/pci/%d/0" % (host.domid, domid)
        self.phase = PREPARING
        self._host = host
        self._domid = domid
        self._bdf = bdf
        self._xen = host.xen(domid, bdf)
        self._device: "Device | None" = None
        self._transport: "Transport | None" = None
        self._protocol: "pciif.Backend | None" = None
        self._reports = _MAX_REPORTS
        self._due = self._next_reset = host.now_ms()
        self._job = device.prepare(host.window, bdf, self._xen)
        self._prepare()

    @property
    def due_ms(self) -> "int | None":
        """When to call `advance`, on the host's clock; None: not before something else happens."""
        return self._due if self.phase == PREPARING else None

    def advance(self) -> None:
        """Goes on with the preparation, if it is time."""
        now = self._host.now_ms()
        if self.phase != PREPARING or now < self._due:
            return
        try:
            self._due = now + next(self._job)
        except StopIteration as end:
            self._prepared(end.value)
        except PciError as error:
            self._failed(str(error))
        except Exception as error:
            self._failed("a bug: " + repr(error))

    def changed(self) -> None:
        """Looks at the frontend's directory, in which something has changed."""
        if self.phase == PREPARING:
            return
        if not self._exists():
            self._prepare()
            return
        state = self._state()
        if state == abi.XenbusStateInitialising and self.phase == CONNECTED:
            self._prepare()
        self._go_on(state)

    def serve(self) -> None:
        """Answers the operation that waits in the frontend's page, if there is one."""
        if self._protocol is not None and self._protocol.serve() and self._transport is not None:
            self._transport.notify()

    def _prepare(self) -> None:
        self._protocol = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._host.store.rm(self.backend)
        if self._device is not None:
            try:
                self._device.interrupts.disable()
            except OSError as error:
                self._failed("its interrupts can't be taken back: %s" % (error.args[-1],))
                return
            self._device = None
        # the domain decides when its frontend starts again: it must not keep us busy with resets
        self._due = max(self._host.now_ms(), self._next_reset)
        self._next_reset = self._due + _RESET_INTERVAL_MS
        self._job = device.prepare(self._host.window, self._bdf, self._xen)
        self.phase = PREPARING

    def _prepared(self, made: "Device") -> None:
        self._device = made
        self.phase = READY
        self._host.claim(self.name, self._bdf, made.windows)
        self._go_on(self._state())

    def _failed(self, text: str) -> None:
        self.phase = FAILED
        self._host.fault(self.name, text)

    def _go_on(self, state: int) -> None:
        waits = state == abi.XenbusStateInitialised
        if self.phase == READY and (waits or state == abi.XenbusStateInitialising):
            self._offer()
        if self.phase == OFFERED and waits:
            self._connect()

    def _offer(self) -> None:
        store = self._host.store
        store.mkdir(self.backend)
        # what is made below inherits this
        store.set_perms(self.backend, ["n%d" % self._host.domid, "r%d" % self._domid])
        for key, value in (
            ("frontend", self.frontend),
            ("frontend-id", "%d" % self._domid),
            ("online", "1"),
            ("num_devs", "1"),
            ("dev-0", config.name(self._bdf)),
            ("vdev-0", pciif.VIRTUAL_NAME),
            ("state-0", "%d" % abi.XenbusStateInitialised),
            ("root_num", "1"),
            ("root-0", "0000:00"),
            ("state", "%d" % abi.XenbusStateInitialised),
        ):
            store.write(self.backend + "/" + key, value)
        self.phase = OFFERED

    def _connect(self) -> None:
        if self._device is None:
            return
        try:
            if self._host.store.read(self.frontend + "/magic") != _MAGIC:
                raise PciError("it speaks another version of the protocol")
            gref = self._number("pci-op-ref")
            transport = self._host.connect(self._domid, gref, self._number("event-channel"))
        except (OSError, Refused, PciError) as error:
            self._say("cannot connect to %s: %s" % (self.name, error))
            return
        self._transport = transport
        words = transport.page.words
        self._protocol = pciif.Backend(words, self._device.space, self._device.interrupts)
        self._host.store.write(self.backend + "/state", "%d" % abi.XenbusStateConnected)
        self.phase = CONNECTED

    def _exists(self) -> bool:
        try:
            self._host.store.read(self.frontend)
            return True
        except Refused:
            return False

    def _state(self) -> int:
        try:
            return self._number("state")
        except (Refused, PciError):
            return 0

    def _number(self, key: str) -> int:
        untrusted_text = self._host.store.read(self.frontend + "/" + key)
        if not untrusted_text.isdigit() or len(untrusted_text) > 10:
            raise PciError("%s is no number" % key)
        return int(untrusted_text) & 0xFFFFFFFF

    def _say(self, text: str) -> None:
        if self._reports:
            self._reports -= 1
            self._host.report(text)
