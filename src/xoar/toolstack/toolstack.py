"""The Toolstack put together: its parts, and one turn of its loop."""

from xoar.messages.errors import ENOSPC
from xoar.toolstack import rollbacks, tenants
from xoar.toolstack.api import Key, Operators
from xoar.toolstack.builder import Builder
from xoar.toolstack.delegated import DelegatedDrivers, DelegatedNetworks
from xoar.toolstack.delegations import Delegations
from xoar.toolstack.devices import Devices
from xoar.toolstack.driver import declared
from xoar.toolstack.drivers import Drivers
from xoar.toolstack.guests import Guests
from xoar.toolstack.hotplug import Hotplug
from xoar.toolstack.memory import Memory
from xoar.toolstack.networks import DeclaredNetworks
from xoar.toolstack.recovery import Recovery
from xoar.toolstack.relayed import Relayed
from xoar.toolstack.reports import Reports
from xoar.toolstack.rollbacks import Rollbacks
from xoar.toolstack.store import Batch
from xoar.toolstack.tenants import Tenants
from xoar.toolstack.volumes import Volumes
from xoar.toolstack.waits import Waits
from xoar.xenstore import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message
    from xoar.toolstack.agents import Agents
    from xoar.toolstack.api import Handlers
    from xoar.toolstack.guest import Request
    from xoar.toolstack.memory import Shelf, Thing
    from xoar.toolstack.networks import Networks
    from xoar.toolstack.recovery import Domains
    from xoar.toolstack.store import StoreLink


_SETTLE_MS = 60_000
_RECALLED = (
    "kept_counts",
    "kept_driver",
    "kept_tenant",
    "kept_network",
    "kept_delegation",
    "kept_rollbacks",
)
_MIRRORED = ("kept_watch", "kept_node")


class Toolstack:
    """What the host's Toolstack and those of tenants have in common.

    `link` goes to Builder, `relay` to Console; `settings(key)` are the command line's values.

    `clock()` is in ms and never goes back; `domid` is the Toolstack's own; `unique()` gives bytes that it
    never gave before, on no boot of the host; `report` takes lines for Xen's console;
    `restorer` and `kicks` as in Rollbacks; `shelf` is where its memory is (memory.py), `is_settled()` whether
    all is there that was put there. Nothing is sent before `begin`, or read.
    """

    role = ""
    _reserve = 0
    """Bytes of the memory for what no operator asks for."""

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
        restorer: "Channel | None" = None,
        kicks: "dict[str, Callable[[], None]] | None" = None,
        shelf: "Shelf | None" = None,
        is_settled: "Callable[[], bool]" = lambda: True,
    ) -> None:
        self.used = False
        """Whether anybody has asked for anything, or told of anything, that this life had to deal with."""
        self.builder = Builder(link)
        self.waits = Waits(clock)
        self._link = link
        self._renewals = link.renewals
        self._relay_renewals = relay.renewals
        self._store = store
        self._relay = relay
        self._settings = settings
        self._clock = clock
        self._domid = domid
        self._report = report
        self.drivers, self.networks = self._devices_from()
        self.volumes = Volumes(store, self.drivers)
        self.devices = Devices(self.builder, store, self.drivers, self.networks, domid)
        self.guests = Guests(self.builder, store, self.waits, self.devices, clock, domid, report)
        self.hotplug = Hotplug(self.guests, self.devices, store, self.waits)
        policies = rollbacks.policies(settings)
        self.rollbacks = Rollbacks(restorer, policies, kicks or {}, self.waits, clock)
        self.reports = Reports(self.builder, self.guests, self.rollbacks, clock)
        keys = [Key(bytes.fromhex(word), unique) for word in settings("key")]
        self.memory = Memory(shelf, report, self._reserve)
        self._recovery = Recovery(
            self.builder,
            self.waits,
            self.guests,
            self.devices,
            self.hotplug,
            self.memory,
            clock,
            domid,
            report,
        )
        self._is_settled = is_settled
        self.begun = False
        """Whether it knows what there is: Builder's domains, and what XenStore has."""
        self._is_compared = False
        self._settling: "int | None" = None  # until when (ms) what is read is waited for
        self._operators = Operators(relay, self.handlers(), self.role, keys[0] if keys else None)

    def _devices_from(self) -> "tuple[Agents, Networks]":
        """What serves guests' devices; called once, before the rest of this is there."""
        raise NotImplementedError

    def begin(self, at_rest: bool = False) -> None:
        """Begins to serve, with what the last life has left in the memory; called once. `at_rest`: XenStore
        goes on watching for it. Raises what the shelf raises: then it is not known what there was."""
        records = self.memory.recall()
        self._recall(records, at_rest)
        self._recovery.recall(records)
        self._recovery.compare(self._compared)

    def _recall(self, records: "list[Message]", at_rest: bool) -> None:
        """Takes what is not the guests' from the last life's records."""

    def _compared(self, domains: "Domains") -> None:
        """Builder has said which domains there are: at the start, and when it has begun anew."""
        if not self._is_compared:
            self._is_compared = True
            self._settling = self._clock() + _SETTLE_MS

    def _settle(self) -> bool:
        """Begins to serve once all is known that XenStore has; whether there was a step towards it.

        A watch's first event may come after its answer, but comes before that to a later request; what it
        tells of may be watched as well. Who does not answer is waited for a minute only.
        """
        if self._store.idle and self._store.has_watched:
            self._store.has_watched = False
            batch = Batch(self._store)
            batch.add(wire.READ, "/local/domain/%d/domid" % self._domid)
            self._store.run(batch, lambda refused: None)
        elif self._is_told() or (self._settling is not None and self._clock() >= self._settling):
            self.begun, self._settling = True, None
        else:
            return False
        return True

    def _is_told(self) -> bool:
        """Whether nobody is about to say anything that it is to know before it serves."""
        return self._store.idle

    def builder_renewed(self) -> None:
        """Builder has begun anew, and knows nothing of what it was asked for."""
        self.guests.persist()
        self.builder.renewed()
        self._recovery.compare(self._compared)

    def things(self) -> "list[Thing]":
        """What is to be remembered, each with its kind of record and its fields."""
        return self.guests.remembered()

    @property
    def idle(self) -> bool:
        """Whether nothing at all is on its way: the next life can go on where this one stops."""
        links = self._link.quiet and self._relay.quiet and self._store.idle and self.rollbacks.idle
        asked = self.builder.idle and self._operators.idle and self.volumes.idle and self._recovery.idle
        own = self.waits.idle and self.guests.idle and self._is_settled()
        return bool(links and asked and own and self._parts_idle())

    def _parts_idle(self) -> bool:
        """Whether nothing is on its way with what only some Toolstacks have."""
        return True

    def turn(self) -> bool:
        """Does what there is to do; whether there is more already."""
        messages = self._link.receive()
        if self._link.renewals != self._renewals:
            self._renewals = self._link.renewals
            self.builder_renewed()
        for message in messages:
            fields = message.fields
            if message.kind == "stopped":
                self.used = True
                self._stopped(fields.domid, fields.reason)
            elif message.kind in ("device", "surveyed"):
                self._heard(message)
            else:
                self.builder.answer(message)
        more = self._link.more
        more = self._store.poll() or more
        # nobody is served by who does not know yet what there is
        if (self.begun or self._link.broken) and not self._relay.congested:
            messages = self._relay.receive()
            if self._relay.renewals != self._relay_renewals:
                self._relay_renewals = self._relay.renewals
                self._operators.forget()
            for message in messages:
                self.used = True
                self._operators.receive(message)
            more = more or self._relay.more
        more = self.rollbacks.turn() or more
        more = self.waits.poll() or more
        more = self._store.finish() or more
        if self._settling is not None:
            more = self._settle() or more
        if self._link.broken:
            more = self.builder.fail_all("the link to Builder is broken: %s" % self._link.broken) or more
        self.guests.poll()
        if self.memory.exists:
            self.memory.update(self.things())
        if self._is_settled():
            # what an answer says is remembered before anybody hears of it
            self._operators.flush()
        self.builder.flush()
        return more

    def deadline_ms(self) -> "int | None":
        """When there is something to do though nothing has happened."""
        deadlines = [self.waits.deadline_ms(), self.guests.deadline_ms(), self._settling]
        known = [deadline for deadline in deadlines if deadline is not None]
        return min(known) if known else None

    def _stopped(self, domid: int, reason: str) -> None:
        self.guests.stopped(domid, reason)

    def _heard(self, message: "Message") -> None:
        """Builder tells of devices; only the host's Toolstack."""

    def handlers(self) -> "Handlers":
        """What serves each of the operators' requests."""
        guests, reports, hotplug = self.guests, self.reports, self.hotplug
        fits = self._if_room
        drivers, networks, volumes = self.drivers, self.networks, self.volumes
        return {
            "guest_create": self._create,
            "guest_shutdown": lambda fields, request: guests.shutdown(
                fields.name, fields.timeout_ms, request
            ),
            "guest_reboot": lambda fields, request: guests.reboot(fields.name, fields.timeout_ms, request),
            "guest_destroy": lambda fields, request: guests.destroy(fields.name, request),
            "guest_list": lambda fields, request: reports.guests(fields.start, request),
            "guest_show": lambda fields, request: reports.guest(fields.name, request),
            "guest_console": lambda fields, request: reports.console(fields.name, fields.what, request),
            "ps": lambda fields, request: reports.ps(fields.start, request),
            "image_list": lambda fields, request: reports.images(fields.start, request),
            "host_info": lambda fields, request: reports.host(request),
            "disk_attach": fits("kept_disk", hotplug.attach_disk),
            "disk_detach": hotplug.detach_disk,
            "nic_attach": fits("kept_nic", hotplug.attach_nic),
            "nic_detach": hotplug.detach_nic,
            "driver_list": lambda fields, request: drivers.page(fields.start, request),
            "network_list": lambda fields, request: networks.page(fields.start, request),
            "volume_list": lambda fields, request: volumes.page(fields.start, request),
            "volume_change": volumes.change,
            "volume_progress": lambda fields, request: volumes.progress(fields.driver, request),
        }

    def _create(self, fields: "Any", request: "Request") -> None:
        kinds = ["kept_guest"] + ["kept_disk"] * len(fields.disks) + ["kept_nic"] * len(fields.nics)
        lacks = self.memory.lacks(kinds)
        if lacks:
            request.refuse(ENOSPC, lacks)
        else:
            self.guests.create(fields, request)

    def _if_room(
        self, kind: str, serve: "Callable[[Any, Request], None]"
    ) -> "Callable[[Any, Request], None]":
        """Refuses what there is no room for in the memory."""

        def judged(fields: "Any", request: "Request") -> None:
            lacks = self.memory.lacks([kind])
            if lacks:
                request.refuse(ENOSPC, lacks)
            else:
                serve(fields, request)

        return judged


class HostToolstack(Toolstack):
    """The host's: it has driver domains and tenants' Toolstacks built, and delegates those to these."""

    role = "toolstack"
    drivers: Drivers
    networks: DeclaredNetworks

    _reserve = 56 * 1024

    def _parts_idle(self) -> bool:
        return self.drivers.idle and self.tenants.idle

    def things(self) -> "list[Thing]":
        counts = (self.rollbacks.first, self.volumes.last)
        things: "list[Thing]" = [(self, "kept_counts", counts)] if any(counts) else []
        things += [driver.remembered() for driver in self.drivers.all]
        things += [tenant.remembered() for tenant in self.tenants.all]
        things += self.networks.remembered() + self.delegations.remembered()
        things += self.rollbacks.remembered() + self._store.mirror.remembered()
        return things + super().things()

    def _recall(self, records: "list[Message]", at_rest: bool) -> None:
        # in this order: networks are driver domains', delegations networks'
        for kind in (_MIRRORED if at_rest else ()) + _RECALLED:
            for message in records:
                if message.kind == kind:
                    self._take(message)

    def _take(self, message: "Message") -> None:
        fields, wrong = message.fields, "there is no room for it, or it is not this host's"
        thing: "object | None" = None
        if message.kind == "kept_driver":
            thing = self.drivers.recall_driver(fields)
        elif message.kind == "kept_tenant":
            thing = self.tenants.recall(fields)
        elif message.kind == "kept_network":
            thing, wrong = self.networks.recall(fields)
        elif message.kind == "kept_delegation":
            thing, wrong = self.delegations.recall(fields)
        elif message.kind == "kept_rollbacks":
            thing = self.rollbacks.recall(fields)
        elif message.kind == "kept_watch":
            thing = self._store.mirror.recall_watch(fields)
        elif message.kind == "kept_node":
            thing = self._store.mirror.recall_node(fields)
        else:
            thing, self.rollbacks.first, self.volumes.last = self, fields.first, fields.last_change
        if thing is not None:
            self.memory.adopt(thing, message)
        elif message.kind not in _MIRRORED:  # these get too old
            self.memory.drop("%s: %s" % (message.kind, wrong))

    def _compared(self, domains: "Domains") -> None:
        if self._is_compared:
            self.drivers.compare(domains)
        else:
            self.drivers.begin(domains)
        self.tenants.compare(domains)
        super()._compared(domains)

    def _devices_from(self) -> "tuple[Drivers, DeclaredNetworks]":
        drivers = Drivers(
            self.builder,
            self._store,
            self.waits,
            self._clock,
            self._domid,
            declared(self._settings),
            self._report,
        )
        networks = DeclaredNetworks(self._store, drivers, self._network_users)
        self.tenants = Tenants(
            self.builder,
            self._store,
            self.waits,
            self._clock,
            self._domid,
            tenants.declared(self._settings),
            self._report,
        )
        self.delegations = Delegations(
            self.builder, self._store, drivers, networks, self.tenants, self._domid, self._report
        )
        return drivers, networks

    def _network_users(self, name: str) -> "list[str]":
        return self.devices.users(name) + self.delegations.users(name)

    def turn(self) -> bool:
        if self.begun:
            self.tenants.poll()
        return super().turn()

    def deadline_ms(self) -> "int | None":
        ours, tenants = super().deadline_ms(), self.tenants.deadline_ms()
        if ours is None or tenants is None:
            return tenants if ours is None else ours
        return min(ours, tenants)

    def _stopped(self, domid: int, reason: str) -> None:
        super()._stopped(domid, reason)
        self.drivers.stopped(domid, reason)
        self.tenants.stopped(domid, reason)

    def _heard(self, message: "Message") -> None:
        if message.kind == "surveyed":
            self.drivers.surveyed()
        else:
            self.drivers.device(message.fields.driver, message.fields.state, message.fields.text)

    def handlers(self) -> "Handlers":
        drivers, networks, delegations = self.drivers, self.networks, self.delegations
        relayed = Relayed(self.builder)
        return dict(
            super().handlers(),
            driver_restart=lambda fields, request: drivers.restart(fields.name, fields.timeout_ms, request),
            driver_assign=lambda fields, request: drivers.assign(
                fields.name, fields.bdf, fields.timeout_ms, request
            ),
            driver_withdraw=lambda fields, request: drivers.withdraw(fields.name, fields.timeout_ms, request),
            device_show=lambda fields, request: relayed.ask("devices", request, start=fields.start),
            network_create=self._if_room(
                "kept_network", lambda fields, request: networks.create(fields.network, request)
            ),
            network_delete=lambda fields, request: networks.delete(fields.name, request),
            shard_reboot=lambda fields, request: self.rollbacks.ask(fields.name, fields.timeout_ms, request),
            rollback_list=lambda fields, request: self.rollbacks.page(fields.start, request),
            tenant_list=lambda fields, request: self.tenants.page(fields.start, request),
            permit_show=lambda fields, request: relayed.ask("permits", request, start=fields.start),
            permit_change=lambda fields, request: relayed.ask(
                "permit_hypercall",
                request,
                shard=fields.shard,
                security_class=fields.security_class,
                permission=fields.permission,
                on=fields.on,
            ),
            journal_show=lambda fields, request: relayed.ask("journal", request, start=fields.start),
            delegate=self._if_room("kept_delegation", delegations.delegate),
            withdraw=delegations.withdraw,
            delegation_list=lambda fields, request: delegations.page(fields.start, request),
        )


class TenantToolstack(Toolstack):
    """A tenant's: it has what is delegated to it."""

    role = "tenant"
    drivers: DelegatedDrivers
    networks: DelegatedNetworks

    def _devices_from(self) -> "tuple[DelegatedDrivers, DelegatedNetworks]":
        drivers = DelegatedDrivers(self._store, self._clock, self._domid)
        return drivers, DelegatedNetworks(self._store, drivers, self._domid)

    def _is_told(self) -> bool:
        # driver domains say anew how they are whenever a tenant's Toolstack is built
        return super()._is_told() and not self.drivers.expecting

    def begin(self, at_rest: bool = False) -> None:
        super().begin(at_rest)
        # networks are told of after the driver domains that serve them
        self.drivers.start()
        self.networks.start()
