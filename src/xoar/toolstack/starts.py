"""How a guest becomes a running domain, from waiting for driver domains to `unpause` (table in guest.py)."""

from xoar.messages.errors import EIO, ETIMEDOUT
from xoar.toolstack import records
from xoar.toolstack.guest import ABANDONED, BUILD, DRIVERS, LINK, PLUG, RECORDS, UNPAUSE

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

DRIVERS_MS = 400_000
"""How long a start waits for driver domains, which start at the same time as a host's first guests."""

PLUG_MS = 60_000
"""How long driver domains may take to prepare a guest's devices."""


class Starts:
    """Of each start `done(errno, text)` is called once: with "" if the guest runs, otherwise with the reason
    why it does not; nothing has been taken back then."""

    def __init__(self, builder: "Builder", store: "StoreLink", waits: "Waits", devices: "Devices") -> None:
        self._builder = builder
        self._store = store
        self._waits = waits
        self._devices = devices

    def start(self, guest: "Guest", done: "Done") -> None:
        """Starts a guest that has no domain."""
        if not guest.devices:
            self._build(guest, done)
            return

        def decided(in_time: bool) -> None:
            for device in guest.devices:
                if device.driver.trouble and not guest.doomed:
                    errno = EIO if in_time else ETIMEDOUT
                    done(errno, "%s: %s" % (device.title, device.driver.trouble))
                    return
            self._build(guest, done)

        def awaited() -> bool:
            # a guest that reboots has run with its devices: worth waiting for a driver domain's restart
            drivers = [device.driver for device in guest.devices]
            good = [not driver.trouble if guest.restarts else driver.decided for driver in drivers]
            return guest.doomed or all(good)

        guest.phase = DRIVERS
        self._waits.until(awaited, DRIVERS_MS, decided)

    def _build(self, guest: "Guest", done: "Done") -> None:
        if _abandoned(guest, done):
            return

        def built(message: "Message") -> None:
            if message.kind != "built":
                done(message.fields.errno, message.fields.text)
                return
            guest.domid = message.fields.domid
            if not _abandoned(guest, done):
                self._link(guest, message, done)

        config = guest.config
        guest.phase = BUILD
        self._builder.ask(
            BUILD,
            built,
            uuid=config.uuid,
            kernel=config.kernel,
            ramdisk=config.ramdisk,
            command_line=config.command_line,
            memory_kib=config.memory_kib,
            vcpus=config.vcpus,
            group=config.group,
        )

    def _link(self, guest: "Guest", built: "Message", done: "Done") -> None:
        def linked(errno: int, text: str) -> None:
            if text:
                done(errno, text)
            elif not _abandoned(guest, done):
                self._record(guest, built, done)

        if guest.devices:
            guest.phase = LINK
            self._devices.link(guest.devices, guest.domid, linked)
        else:
            self._record(guest, built, done)

    def _record(self, guest: "Guest", built: "Message", done: "Done") -> None:
        def recorded(refused: str) -> None:
            if refused:
                done(EIO, refused)
            elif guest.devices:
                self._await_devices(guest, done)
            else:
                self._unpause(guest, done)

        guest.phase = RECORDS
        batch = records.create(self._store, guest.config, built.fields)
        for device in guest.devices:
            self._devices.plug(batch, device)
        self._store.run(batch, recorded)

    def _await_devices(self, guest: "Guest", done: "Done") -> None:
        def prepared(in_time: bool) -> None:
            for device in guest.devices:
                if guest.doomed or (device.prepared and not device.failure):
                    continue
                text = "driver domain %s did not prepare it in %d s" % (device.driver.name, PLUG_MS // 1000)
                errno = EIO if device.failure else ETIMEDOUT
                done(errno, "%s: %s" % (device.title, device.failure or text))
                return
            self._unpause(guest, done)

        guest.phase = PLUG
        self._waits.until(
            lambda: guest.doomed or all([device.prepared for device in guest.devices]), PLUG_MS, prepared
        )

    def _unpause(self, guest: "Guest", done: "Done") -> None:
        if _abandoned(guest, done):
            return

        def unpaused(message: "Message") -> None:
            if message.kind != "done":
                done(message.fields.errno, message.fields.text)
            elif not _abandoned(guest, done):
                done(0, "")

        guest.phase = UNPAUSE
        self._builder.ask("unpause", unpaused, domid=guest.domid)


def _abandoned(guest: "Guest", done: "Done") -> bool:
    if not guest.doomed:
        return False
    done(0, ABANDONED)
    return True
