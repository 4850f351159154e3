"""A Toolstack that begins anew: what it remembers of its guests, compared with the domains that Builder has.

Afterwards each guest that was remembered is there or has ended, with a note that says why, and each domain of
this Toolstack is a guest's. Nothing of the memory is believed that can't be: who took over the last life may
have written it. It can't say more than an operator could have asked for, and Builder holds this Toolstack to
its own domains.
"""

from xoar.messages.errors import ENOENT
from xoar.messages.schema import BY_NAME
from xoar.toolstack import configuration
from xoar.toolstack.devices import Unfit
from xoar.toolstack.ends import RETRIES, RETRY_MS
from xoar.toolstack.guest import CONFIG_FIELDS, Guest
from xoar.toolstack.guests import MAX_ENDED, MAX_GUESTS, MAX_QUICK_ENDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.devices import Devices
    from xoar.toolstack.guests import Guests
    from xoar.toolstack.hotplug import Hotplug
    from xoar.toolstack.memory import Memory
    from xoar.toolstack.waits import Waits

    Domains = dict[int, Any]
    """Builder's rows by domid."""

_AT_REST = ("running", "stopping", "rebooting", "kept")
_LAST_DOMID = 0x7FEF


class Recovery:
    """`domid` is this Toolstack's; for `clock` and `report` see Guests."""

    def __init__(
        self,
        builder: "Builder",
        waits: "Waits",
        guests: "Guests",
        devices: "Devices",
        hotplug: "Hotplug",
        memory: "Memory",
        clock: "Callable[[], int]",
        domid: int,
        report: "Callable[[str], None]",
    ) -> None:
        self._builder = builder
        self._waits = waits
        self._guests = guests
        self._devices = devices
        self._hotplug = hotplug
        self._memory = memory
        self._clock = clock
        self._domid = domid
        self._report = report
        # of each guest that is to be compared with Builder's list: whether nothing was on its way
        self._recalled: "list[tuple[Guest, bool]]" = []
        self._comparing = self._once_more = False

    @property
    def idle(self) -> bool:
        """Whether all is compared."""
        return not self._comparing

    # what is remembered

    def recall(self, messages: "list[Message]") -> None:
        """Takes guests and their devices from the last life's records."""
        by_uuid: "dict[bytes, Guest]" = {}
        for message in messages:
            if message.kind == "kept_guest":
                wrong = self._recall_guest(message, by_uuid)
                if wrong:
                    self._memory.drop("guest %s: %s" % (message.fields.name, wrong))
        for message in messages:
            if message.kind in ("kept_disk", "kept_nic"):
                self._recall_device(message, by_uuid.get(message.fields.guest))

    def _recall_guest(self, message: "Message", by_uuid: "dict[bytes, Guest]") -> str:
        """What is wrong with the record of a guest; "" if it is one of ours now."""
        fields = message.fields
        config = BY_NAME["guest_create"].record.value(*(tuple(fields)[:CONFIG_FIELDS] + ([], [])))
        wrong = configuration.judge(config)[1]
        if wrong:
            return wrong
        ended = fields.state == "ended"
        if ended and len(self._guests.ended) >= MAX_ENDED:
            return "too many have ended"
        if not ended:
            if self._guests.find(config.name) is not None or config.uuid in by_uuid:
                return "there is another one"
            if fields.domid > _LAST_DOMID or self._guests.by_domid(fields.domid) is not None:
                return "it can't be domain %d" % fields.domid
            if len(self._guests.all) >= MAX_GUESTS:
                return "there are too many"
        guest = Guest(config, [], min(fields.started_ms, self._clock()))
        guest.state, guest.reason, guest.note = fields.state, fields.reason, fields.note
        guest.domid = 0 if ended else fields.domid
        guest.previous_domid = fields.previous_domid
        guest.restarts = fields.restarts
        guest.quick_ends = min(fields.quick_ends, MAX_QUICK_ENDS)
        guest.rebuild = bool(fields.rebuild)
        self._guests.adopt(guest)
        self._memory.adopt(guest, message)
        if not ended:
            by_uuid[config.uuid] = guest
            self._devices.recall_resting(config, fields.resting)
            settled = fields.settled and guest.domid and fields.state in _AT_REST
            self._recalled.append((guest, bool(settled)))
        return ""

    def _recall_device(self, message: "Message", guest: "Guest | None") -> None:
        if guest is None:
            self._memory.drop("a device of no guest")
            return
        try:
            device = self._devices.recall(guest.config, guest.devices, guest.domid, message)
        except Unfit as unfit:
            self._memory.drop(unfit.text)
            return
        guest.devices.append(device)
        self._memory.adopt(device, message)

    # what there is

    def compare(self, compared: "Callable[[Domains], None]") -> None:
        """Asks Builder for the domains, ends those of ours that no guest is, and goes on with the guests that
        were recalled. Then calls `compared(domains)`."""
        if self._comparing:
            # what is on its way may be too old; if it fails, it is asked again anyway
            self._once_more = True
            return
        self._comparing, self._once_more = True, False
        rows: "list[Any]" = []
        # what was built since the first page is not the last life's
        limits: "list[int]" = []

        def again(in_time: bool) -> None:
            self._comparing = False
            self.compare(compared)

        def answered(message: "Message") -> None:
            if message.kind == "error":
                self._waits.until(lambda: False, RETRY_MS, again)
                return
            page = message.fields
            limits.append(page.now_ns)
            rows.extend(page.domains)
            if page.more and page.domains:
                self._builder.ask("domains", answered, start=page.domains[-1].domid + 1)
            else:
                self._found({row.domid: row for row in rows}, limits[0], compared)

        self._builder.ask("domains", answered, start=0)

    def _found(self, domains: "Domains", before_ns: int, compared: "Callable[[Domains], None]") -> None:
        me = domains[self._domid].name if self._domid in domains else ""
        ours = [row for row in domains.values() if not row.name and row.parent == me and me]
        known = [guest.domid for guest in self._guests.all]
        strange = [row.domid for row in ours if row.domid not in known and row.created_ns < before_ns]
        waiting = list(strange)

        def goes_on() -> None:
            if waiting:
                return
            recalled, self._recalled = self._recalled, []
            for guest, settled in recalled:
                domain = domains.get(guest.domid) if guest.domid else None
                if domain is not None and domain not in ours:
                    self._memory.drop("guest %s is not domain %d" % (guest.name, guest.domid))
                    domain, guest.domid = None, 0
                self._guests.recover(guest, settled, domain)
                if guest.domid and not guest.phase:
                    self._hotplug.resume(guest)
            self._comparing = False
            compared(domains)
            if self._once_more:
                self.compare(compared)

        def ended(domid: int) -> None:
            waiting.remove(domid)
            goes_on()

        for domid in strange:
            self._report("toolstack: domain %d is of no guest that is known: it is destroyed" % domid)
            self.end(domid, ended)
        if not strange:
            goes_on()

    def end(self, domid: int, ended: "Callable[[int], None]", tries: int = RETRIES) -> None:
        """Destroys a domain that nobody has a use for."""

        def destroyed(message: "Message") -> None:
            if message.kind == "done" or message.fields.errno == ENOENT:
                ended(domid)
            elif tries:
                # somebody is destroying it, perhaps for the last life
                self._waits.until(lambda: False, RETRY_MS, lambda _: self.end(domid, ended, tries - 1))
            else:
                self._report("toolstack: domain %d is left: %s" % (domid, message.fields.text))
                ended(domid)

        self._builder.ask("destroy", destroyed, domid=domid)
