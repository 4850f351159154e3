"""How a guest's domain goes, with its devices and records (the table in guest.py)."""

from xoar.messages.errors import ENOENT
from xoar.toolstack import device as nodes
from xoar.toolstack import records
from xoar.toolstack.guest import CLOSE, DESTROY, REMOVE
from xoar.toolstack.store import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.devices import Devices
    from xoar.toolstack.guest import Guest
    from xoar.toolstack.store import StoreLink
    from xoar.toolstack.waits import Waits

    Done = Callable[[int, str], None]


RETRIES = 20
RETRY_MS = 1000
"""How often, and after what time each, a domain is destroyed again that somebody destroys already."""


class Ends:
    """Of each end `done(errno, text)` is called once: with "" if nothing is left, otherwise with the reason
    why the domain could not be destroyed."""

    def __init__(
        self,
        builder: "Builder",
        store: "StoreLink",
        devices: "Devices",
        waits: "Waits",
        report: "Callable[[str], None]",
    ) -> None:
        self._waits = waits
        self._builder = builder
        self._store = store
        self._devices = devices
        self._report = report

    def end(self, guest: "Guest", done: "Done") -> None:
        """Ends a guest's domain."""
        if not guest.plugged:
            self._destroy(guest, done)
            return
        # before the domain's end, which waits until back ends hold none of its pages; then XenStore removes
        # their nodes
        guest.phase = CLOSE
        batch = Batch(self._store)
        for device in guest.plugged:
            if not device.lost:
                nodes.close(batch, device)
        self._store.run(batch, lambda refused: self._destroy(guest, done))

    def _destroy(self, guest: "Guest", done: "Done") -> None:
        def destroyed(message: "Message") -> None:
            if message.kind == "done" or message.fields.errno == ENOENT:
                self._remove(guest, done)
            elif guest.tries:
                guest.tries -= 1
                self._waits.until(_never, RETRY_MS, lambda in_time: self._destroy(guest, done))
            else:
                done(message.fields.errno, message.fields.text)

        guest.phase = DESTROY
        self._builder.ask("destroy", destroyed, domid=guest.domid)

    def _remove(self, guest: "Guest", done: "Done") -> None:
        def removed(refused: str) -> None:
            if refused:
                self._report("guest %s: records are left: %s" % (guest.name, refused))
            guest.previous_domid = guest.domid
            guest.domid = 0
            guest.tries = 0
            # what was being unplugged has left with the domain
            for device in [device for device in guest.devices if device.closing]:
                guest.devices.remove(device)
                self._devices.forget(device)
            done(0, "")

        guest.phase = REMOVE
        for device in guest.plugged:
            self._devices.leave(device)
        self._store.run(records.remove(self._store, guest.config.uuid, guest.domid), removed)


def _never() -> bool:
    return False
