"""The Toolstack put together: its parts, and one turn of its loop."""

from xoar.toolstack import tenants
from xoar.toolstack.api import Key, Operators
from xoar.toolstack.builder import Builder
from xoar.toolstack.devices import Devices
from xoar.toolstack.driver import declared
from xoar.toolstack.drivers import Drivers
from xoar.toolstack.guests import Guests
from xoar.toolstack.hotplug import Hotplug
from xoar.toolstack.networks import Networks
from xoar.toolstack.reports import Reports
from xoar.toolstack.tenants import Tenants
from xoar.toolstack.volumes import Volumes
from xoar.toolstack.waits import Waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.messages.channel import Channel
    from xoar.toolstack.api import Handlers
    from xoar.toolstack.store import StoreLink


class Toolstack:
    """`link` goes to Builder, `relay` to Console; `settings(key)` are the command line's values.

    `clock()` is in ms and never goes back; `domid` is the Toolstack's own; `unique()` gives bytes that it
    never gave before, on no boot of the host; `report` takes lines for Xen's console.
    """

    def __init__(
        self,
        link: "Channel",
        store: "StoreLink",
        relay: "Channel",
        settings: "Callable[[str], list[str]]",
        clock: "Callable[[], int]",
        domid: int,
        unique: "Callable[[], bytes]",
        report: "Callable[[str], None]" = print,
    ) -> None:
        self.builder = Builder(link)
        self.waits = Waits(clock)
        self.drivers = Drivers(self.builder, store, self.waits, clock, domid, declared(settings), report)
        self.networks = Networks(store, self.drivers, lambda name: self.devices.users(name))
        self.volumes = Volumes(store, self.drivers)
        self.devices = Devices(store, self.drivers, self.networks, domid)
        self.guests = Guests(self.builder, store, self.waits, self.devices, clock, domid, report)
        self.hotplug = Hotplug(self.guests, self.devices, store, self.waits)
        self.reports = Reports(self.builder, self.guests, clock)
        self.tenants = Tenants(self.builder, store, clock, domid, tenants.declared(settings), report)
        self._link = link
        self._store = store
        self._relay = relay
        keys = [Key(bytes.fromhex(word), unique) for word in settings("key")]
        role, key = ("tenant", keys[0]) if keys else ("toolstack", None)
        self._operators = Operators(relay, self.handlers(), role, key)
        self.drivers.start()
        self.tenants.start()

    def turn(self) -> bool:
        """Does what there is to do; whether there is more already."""
        for message in self._link.receive():
            fields = message.fields
            if message.kind == "stopped":
                self.guests.stopped(fields.domid, fields.reason)
                self.drivers.stopped(fields.domid, fields.reason)
                self.tenants.stopped(fields.domid, fields.reason)
            elif message.kind == "device":
                self.drivers.device(fields.driver, fields.state, fields.text)
            else:
                self.builder.answer(message)
        more = self._link.more
        more = self._store.poll() or more
        if not self._relay.congested:
            for message in self._relay.receive():
                self._operators.receive(message)
            more = more or self._relay.more
        more = self.waits.poll() or more
        more = self._store.finish() or more
        if self._link.broken:
            more = self.builder.fail_all("the link to Builder is broken: %s" % self._link.broken) or more
        self.guests.poll()
        self._operators.flush()
        self.builder.flush()
        return more

    def deadline_ms(self) -> "int | None":
        """When there is something to do though nothing has happened."""
        deadlines = [self.waits.deadline_ms(), self.guests.deadline_ms()]
        known = [deadline for deadline in deadlines if deadline is not None]
        return min(known) if known else None

    def handlers(self) -> "Handlers":
        """What serves each of the operators' requests."""
        guests, reports, hotplug = self.guests, self.reports, self.hotplug
        drivers, networks, volumes = self.drivers, self.networks, self.volumes
        return {
            "guest_create": lambda fields, request: guests.create(fields, request),
            "guest_shutdown": lambda fields, request: guests.shutdown(
                fields.name, fields.timeout_ms, request
            ),
            "guest_reboot": lambda fields, request: guests.reboot(fields.name, fields.timeout_ms, request),
            "guest_destroy": lambda fields, request: guests.destroy(fields.name, request),
            "guest_list": lambda fields, request: reports.guests(fields.start, request),
            "guest_show": lambda fields, request: reports.guest(fields.name, request),
            "ps": lambda fields, request: reports.ps(fields.start, request),
            "image_list": lambda fields, request: reports.images(fields.start, request),
            "host_info": lambda fields, request: reports.host(request),
            "disk_attach": hotplug.attach_disk,
            "disk_detach": hotplug.detach_disk,
            "nic_attach": hotplug.attach_nic,
            "nic_detach": hotplug.detach_nic,
            "driver_list": lambda fields, request: drivers.page(fields.start, request),
            "driver_restart": lambda fields, request: drivers.restart(
                fields.name, fields.timeout_ms, request
            ),
            "network_create": lambda fields, request: networks.create(fields.network, request),
            "network_delete": lambda fields, request: networks.delete(fields.name, request),
            "network_list": lambda fields, request: networks.page(fields.start, request),
            "volume_change": volumes.change,
            "volume_progress": lambda fields, request: volumes.progress(fields.driver, request),
            "guest_console": lambda fields, request: reports.console(fields.name, fields.what, request),
            "tenant_list": lambda fields, request: self.tenants.page(fields.start, request),
            "volume_list": lambda fields, request: volumes.page(fields.start, request),
        }
