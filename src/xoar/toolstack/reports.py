"""What operators can ask about: guests, domains, images, the host."""

from xoar.messages.errors import ENOENT
from xoar.messages.records import GUEST, OBJECT, PLUGGED_DISK, PLUGGED_NIC
from xoar.toolstack.device import VBD, VIF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.device import Device
    from xoar.toolstack.guest import Guest, Request
    from xoar.toolstack.guests import Guests
    from xoar.toolstack.rollbacks import Rollbacks

_GUESTS_PER_PAGE = 64
_NS_PER_MS = 1_000_000


class Reports:
    """Answers from the guests' model and from what Builder and Restorer say; `clock` as in Guests."""

    def __init__(
        self, builder: "Builder", guests: "Guests", rollbacks: "Rollbacks", clock: "Callable[[], int]"
    ) -> None:
        self._builder = builder
        self._guests = guests
        self._rollbacks = rollbacks
        self._clock = clock

    def ps(self, start: int, request: "Request") -> None:
        """Answers with a page of domains."""
        self._ask("domains", self._objects, request, start)

    def images(self, start: int, request: "Request") -> None:
        """Answers with a page of the image library."""
        self._ask("images", self._library, request, start)

    def host(self, request: "Request") -> None:
        """Answers with the host's memory and clock."""

        def answer(domains: "list[Any]", last: "Any") -> None:
            request.answer(
                "host",
                total_kib=last.total_kib,
                free_kib=last.free_kib,
                xen_version=last.xen_version,
                uptime_ms=last.now_ns // _NS_PER_MS,
                domains=len(domains),
            )

        self.domains(request, answer)

    def domains(self, request: "Request", answer: "Callable[[list[Any], Any], None]") -> None:
        """Calls `answer` with all domains of Builder's list, and its last page; or refuses the request."""
        found: "list[Any]" = []

        def page(fields: "Any", request: "Request") -> None:
            found.extend(fields.domains)
            if fields.more and fields.domains:
                self._ask("domains", page, request, fields.domains[-1].domid + 1)
            else:
                answer(found, fields)

        self._ask("domains", page, request, 0)

    def console(self, name: str, what: str, request: "Any") -> None:
        """Turns the operator's stream into a guest's console."""
        guest = self._guests.find(name) or self._guests.find_ended(name)
        domid = guest.domid or guest.previous_domid if guest is not None else 0
        if domid:
            request.become(domid, what)
        else:
            request.refuse(ENOENT, self._guests.absence(name))

    def _ask(
        self, kind: str, answered: "Callable[[Any, Request], None]", request: "Request", start: int
    ) -> None:
        def done(message: "Message") -> None:
            if message.kind == "error":
                request.refuse(message.fields.errno, message.fields.text)
            else:
                answered(message.fields, request)

        self._builder.ask(kind, done, start=start)

    def guests(self, start: int, request: "Request") -> None:
        """Answers with a page of guests."""
        guests = self._guests.all
        end = start + _GUESTS_PER_PAGE
        page = [self._entry(guest) for guest in guests[start:end]]
        request.answer("guests", more=int(len(guests) > end), guests=page)

    def _entry(self, guest: "Guest") -> "Any":
        return GUEST.value(
            guest.name,
            guest.domid,
            guest.state,
            guest.reason,
            guest.config.memory_kib,
            guest.config.vcpus,
            self._age_ms(guest),
            guest.restarts,
        )

    def _age_ms(self, guest: "Guest") -> int:
        return max(self._clock() - guest.started_ms, 0)

    def guest(self, name: str, request: "Request") -> None:
        """Answers with one guest, also one that ended lately."""
        guest = self._guests.find(name) or self._guests.find_ended(name)
        if guest is None:
            request.refuse(ENOENT, self._guests.absence(name))
            return
        config = guest.config
        request.answer(
            "guest",
            name=guest.name,
            uuid=config.uuid,
            domid=guest.domid,
            previous_domid=guest.previous_domid,
            state=guest.state,
            reason=guest.reason,
            kernel=config.kernel,
            ramdisk=config.ramdisk,
            command_line=config.command_line,
            memory_kib=config.memory_kib,
            vcpus=config.vcpus,
            on_reboot=config.on_reboot,
            on_crash=config.on_crash,
            group=config.group,
            age_ms=self._age_ms(guest),
            restarts=guest.restarts,
            note=guest.note[:256],
            disks=[_disk(device) for device in guest.devices if device.kind == VBD],
            nics=[_nic(device) for device in guest.devices if device.kind == VIF],
        )

    def _objects(self, fields: "Any", request: "Request") -> None:
        objects = [self._object(domain, fields.now_ns) for domain in fields.domains]
        request.answer("objects", more=fields.more, objects=objects)

    def _object(self, domain: "Any", now_ns: int) -> "Any":
        guest = self._guests.by_domid(domain.domid)
        # Builder names the shards; a guest that is being destroyed may have no name any more
        kind = "shard" if domain.name and guest is None else "guest"
        age_ms = max(now_ns - domain.created_ns, 0) // _NS_PER_MS
        return OBJECT.value(
            domain.domid,
            guest.name if guest is not None else domain.name,
            kind,
            domain.label,
            domain.memory_kib,
            domain.vcpus,
            domain.state,
            domain.cpu_time_ns,
            age_ms,
            domain.parent,
            *self._rollbacks.of(domain.name),
        )

    def _library(self, fields: "Any", request: "Request") -> None:
        request.answer("library", more=fields.more, images=fields.images)


def _disk(device: "Device") -> "Any":
    return PLUGGED_DISK.value(*_fields(device), device.state, device.failure[:128])


def _nic(device: "Device") -> "Any":
    return PLUGGED_NIC.value(
        *_fields(device),
        device.number,
        device.driver.name,
        device.state,
        device.seen_address,
        device.failure[:128],
    )


def _fields(device: "Device") -> "list[Any]":
    return list(device.config)
