"""Builder's service: requests of Toolstacks in, domains built and destroyed, XenStore and Console told.

Everything that takes several steps is an operation with a continuation (operations.py). A request that
fails is answered with `error` after all that it did has been taken back.
"""

from xoar.abi import xen as abi
from xoar.builder.delegation import Delegation, Device, check_quota
from xoar.builder.domains import LINKS, NO_UUID, THERE, Domain, Domains
from xoar.builder.ends import Ends
from xoar.builder.errors import ENOENT, ENOMEM, BuildError
from xoar.builder.library import KERNEL, LINUX, RAMDISK, ROOTFS, SHARD
from xoar.builder.operations import Call, Operations
from xoar.builder.permits import Permits
from xoar.builder.plugging import Plugging
from xoar.builder.reports import Reports
from xoar.builder.rights import Rights
from xoar.messages.errors import EBUSY, EEXIST, EINVAL, EIO, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.builder.devices import Devices
    from xoar.builder.interface import Machine
    from xoar.builder.journal import Journal
    from xoar.builder.library import Library
    from xoar.builder.plan import Plan, Quota
    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message


NO_IMAGE = bytes(32)
_GROWING = ("build", "build_shard", "plug", "allow_delegation")
"""Requests after which there is more to remember."""
_MAX_REFUSALS = 64


class Service:
    """`clients`: channels of the shards that ask Builder, by name; `servers`: those of XenStore and Console.

    `plan` is the boot plan; the shards in it that are built at boot run already. Guests get domids from
    `first_guest` on. `is_full()`: whether there is no room to remember more. `kicks`: what has a shard rolled
    back, by its name: those that are when they end.
    """

    def __init__(
        self,
        machine: "Machine",
        library: "Library",
        clients: "dict[str, Channel]",
        servers: "dict[str, Channel]",
        plan: "Plan",
        devices: "Devices",
        journal: "Journal",
        first_guest: int,
    ) -> None:
        self._machine = machine
        self._library = library
        self._clients = clients
        self._servers = servers
        self._plan = plan
        self._devices = devices
        self._delegation = Delegation({name: quota.devices for name, quota in plan.quotas.items()})
        self._journal = journal
        self._domains = Domains(plan.shards, first_guest, machine.now())
        self._records = self._domains.records
        self._operations = Operations(servers, machine.now)
        self._plugging = Plugging(self._delegation, self._operations, plan.drivers)
        self._permits = Permits(plan.optional, machine.switch)
        self._rights = Rights(
            journal,
            self._permits,
            devices,
            self._delegation,
            self._plugging,
            self._domains.domid_of,
            machine.now,
        )
        self._reports = Reports(machine, library, self._domains, plan.quotas, self._had_by)
        self._refusals = 0
        self.is_full: "Callable[[], bool]" = lambda: False
        self.kicks: "dict[str, Callable[[], None]]" = {}
        self._ends = Ends(
            machine, self._records, self._operations, self._plugging, clients, servers, self.kicks
        )

    # -- the life of Builder

    def remembers(self) -> "list[Callable[[], list[tuple[str, dict[str, Any]]]]]":
        """What each part has to remember, as messages (kind, fields)."""
        parts = (self._domains, self._devices, self._delegation, self._permits)
        return [part.remember for part in parts]

    def recalls(self) -> "list[Callable[[Message], bool]]":
        """What takes such messages back."""
        links = {}
        for shard in self._plan.late:
            links[shard.name] = (shard.domid, self._told_of(shard))
        for driver in self._plan.drivers:
            links[driver.name] = (driver.domid, LINKS)
        domains = self._domains
        return [
            lambda message: domains.recall(message, links),
            self._devices.recall,
            self._delegation.recall,
            self._permits.recall,
        ]

    def recalled(self) -> None:
        """All is taken back: what was half done is undone, and who is there is listened to."""
        self._permits.settle()
        present = {info.domid: info.flags & abi.XEN_DOMINF_dying for info in self._machine.domains()}
        for domid, record in list(self._records.items()):
            if record.stage != THERE and domid not in present:
                self._records.pop(domid)
                self._plugging.ended(domid, record.name)
            elif present.get(domid):
                record.reported = True  # it will vanish
            elif record.stage != THERE:
                self._ends.release(domid, lambda trouble: None)
            elif record.port:
                self._listen_to(domid, record)
        for domid, is_dying in present.items():
            if domid not in self._records and self._domains.is_guests(domid) and not is_dying:
                print("builder: nobody knows domain %d: it is destroyed" % domid)
                self._machine.destroy(domid)

    def _listen_to(self, domid: int, record: Domain) -> None:
        gref = self._link_to_builder(record.name)
        if gref is not None:
            report = self._journal.reporter(record.name)
            shard = _named(self._plan.late, record.name)
            channel = self._machine.open(domid, gref, record.port, shard.image, report)
            self._clients[record.name] = channel

    def _link_to_builder(self, name: str) -> "int | None":
        for link in self._plan.late_links:
            if link.client.name == name and link.server.name == "builder":
                gref: int = link.gref
                return gref
        return None

    @property
    def idle(self) -> bool:
        """Whether no operation goes on and no domain is dying."""
        return self._ends.idle and self._operations.idle

    # -- requests

    def handle(self, client: str, message: "Message") -> None:
        """Carries out one request of a Toolstack."""
        channel = self._clients[client]
        try:
            if message.kind in _GROWING and self.is_full():
                raise BuildError(ENOMEM, "Builder has no room to remember more domains and devices")
            name = "on_" + message.kind
            elsewhere = getattr(self._rights, name, None) or getattr(self._reports, name, None)
            serve = elsewhere or getattr(self, "_" + name)
            serve(client, channel, message)
        except BuildError as error:
            channel.fail(message.id, error.errno, str(error))
            if error.errno == EPERM:
                self._record_refusal("builder: refused %s to %s: %s" % (message.kind, client, error))
        except OSError as error:
            channel.fail(message.id, error.args[0], "Xen refused: %s" % (error.args[1:] or error.args)[0])
        except MemoryError:
            channel.fail(message.id, ENOMEM, "Builder has no memory left for this request")
        except Exception as error:  # a bug: it must not end Builder
            channel.fail(message.id, EIO, "a bug in Builder: " + repr(error))
            print("builder: bug while serving %s to %s: %s" % (message.kind, client, repr(error)))

    def _record_refusal(self, text: str) -> None:
        # who asks for ever must not fill Xen's log
        if self._refusals < _MAX_REFUSALS:
            self._refusals += 1
            print(text)

    def _on_build(self, client: str, channel: "Channel", message: "Message") -> None:
        request = message.fields
        kernel = self._library.find(request.kernel, KERNEL)
        ramdisk = None if request.ramdisk == NO_IMAGE else self._library.find(request.ramdisk, RAMDISK)
        if request.vcpus < 1 or request.vcpus > 64:
            raise BuildError(EINVAL, "a domain has 1 to 64 vCPUs, not %d" % request.vcpus)
        self._judge(client, request)
        domid = self._domains.free([info.domid for info in self._machine.domains()])
        self._records[domid] = Domain(
            "",
            self._machine.now(),
            client,
            LINKS,
            request.uuid,
            request.memory_kib,
            request.vcpus,
            request.group,
        )
        try:
            links = self._machine.build(
                domid, request.uuid, kernel, ramdisk, request.command_line, request.memory_kib, request.vcpus
            )
        except (BuildError, OSError, MemoryError):
            self._ends.take_back(domid)
            raise
        self._introduce(domid, links, channel, message.id)

    def _judge(self, client: str, request: "Any") -> None:
        """Raises BuildError for a guest that its Toolstack may not have."""
        if request.uuid == NO_UUID:
            raise BuildError(EINVAL, "a guest has a uuid other than zero")
        if request.uuid in [record.uuid for record in self._records.values()]:
            raise BuildError(EEXIST, "there is a domain with this uuid already")
        quota = self._plan.quotas.get(client)
        if quota is None:
            return
        has = self._had_by(client)
        for what, had, wants, limit in (
            ("guests", has.guests, 1, quota.guests),
            ("vCPUs", has.vcpus, request.vcpus, quota.vcpus),
            ("KiB", has.memory_kib, request.memory_kib, quota.memory_kib),
        ):
            check_quota(client, limit, what, had, wants)

    def _on_build_shard(self, client: str, channel: "Channel", message: "Message") -> None:
        name = message.fields.name
        wanted = _named(self._plan.late, name)
        build: "Callable[[Any], dict[int, tuple[int, int]]]" = self._build_late
        links: "tuple[tuple[str, int, str], ...]" = LINKS
        if wanted is not None:
            links = self._told_of(wanted)
        else:
            wanted = _named(self._plan.drivers, name)
            build = self._build_driver
        if wanted is None:
            raise BuildError(ENOENT, "the boot plan has no shard %s that is built on request" % name)
        if wanted.domid in self._records:
            raise BuildError(EBUSY, "%s is there already, as domain %d" % (name, wanted.domid))
        self._records[wanted.domid] = Domain(name, self._machine.now(), client, links)
        try:
            rings = build(wanted)
        except (BuildError, OSError, MemoryError):
            self._ends.take_back(wanted.domid)
            raise
        self._introduce(wanted.domid, rings, channel, message.id)

    def _opened_by(self, shard: "Any") -> "list[Any]":
        return [link for link in self._plan.late_links if link.client is shard]

    def _told_of(self, shard: "Any") -> "tuple[tuple[str, int, str], ...]":
        told = [link for link in self._opened_by(shard) if link.server.name in self._servers]
        return tuple([(link.server.name, link.gref, link.name) for link in told])

    def _build_late(self, shard: "Any") -> "dict[int, tuple[int, int]]":
        opened = self._opened_by(shard)
        links = [(link.server.name, link.server.domid, link.gref) for link in opened]
        words = list(shard.words)
        with_ecam = shard in self._plan.ecam
        if with_ecam:
            # it resets every device that it is told of: never one whose driver domain is there
            words += self._devices.words(self._records)
        image = self._library.named(shard.image, SHARD)
        rings = self._machine.build_shard(shard, words, image, links, with_ecam)
        gref = self._link_to_builder(shard.name)
        if gref is not None:
            record = self._records[shard.domid]
            record.port = rings[gref][1]
            self._listen_to(shard.domid, record)
        return rings

    def _build_driver(self, driver: "Any") -> "dict[int, tuple[int, int]]":
        kernel, rootfs = [self._library.named(driver.image, kind) for kind in (LINUX, ROOTFS)]
        bars = self._devices.give(driver.name)
        return self._machine.build_driver(driver, self._devices.bdf(driver.name), kernel, rootfs, bars)

    def _introduce(
        self, domid: int, links: "dict[int, tuple[int, int]]", channel: "Channel", request: int
    ) -> None:
        """Makes a new domain known to the servers of its links, then answers the request for it."""

        def introduced(trouble: str) -> None:
            if trouble:

                def gone(_: str) -> None:
                    channel.fail(request, EBUSY, trouble)

                self._ends.release(domid, gone)
                return
            record.stage = THERE
            store = links.get(abi.GNTTAB_RESERVED_XENSTORE, (0, 0))
            console = links.get(abi.GNTTAB_RESERVED_CONSOLE, (0, 0))
            channel.send(
                "built",
                request,
                domid=domid,
                store_gfn=store[0],
                store_port=store[1],
                console_gfn=console[0],
                console_port=console[1],
            )

        record = self._records[domid]
        calls = [
            Call(
                server,
                "introduce",
                {
                    "domid": domid,
                    "link": link,
                    "name": record.name,
                    "parent": self._domains.domid_of(record.parent),
                    "uuid": record.uuid,
                    "gref": gref,
                    "port": links[gref][1],
                },
            )
            for server, gref, link in record.links
        ]
        self._operations.start(calls, introduced)

    def _on_claim(self, client: str, channel: "Channel", message: "Message") -> None:
        claim = message.fields
        try:
            self._devices.claim(claim.driver, claim.bdf, [(bar.address, bar.size) for bar in claim.bars])
        except BuildError as error:
            self._tell_of_device(client, claim.driver, "failed", str(error))
            raise
        channel.send("done", message.id)
        self._tell_of_device(client, claim.driver, "claimed", "")

    def _on_fault(self, client: str, channel: "Channel", message: "Message") -> None:
        self._devices.forget(message.fields.driver)
        channel.send("done", message.id)
        self._tell_of_device(client, message.fields.driver, "failed", message.fields.text)

    def _tell_of_device(self, claimant: str, driver: str, state: str, text: str) -> None:
        self._tell_parent(claimant, "device", driver=driver, state=state, text=text[:256])

    def _tell_parent(self, client: str, kind: str, **fields: "Any") -> None:
        """Tells whoever had this shard built."""
        for record in self._records.values():
            if record.name == client and record.parent in self._clients:
                self._clients[record.parent].send(kind, 0, **fields)

    def _on_found(self, client: str, channel: "Channel", message: "Message") -> None:
        self._devices.seen(message.fields.start, message.fields.devices)
        channel.send("done", message.id)
        if not message.fields.more:
            self._tell_parent(client, "surveyed")

    def _on_unpause(self, client: str, channel: "Channel", message: "Message") -> None:
        domid = message.fields.domid
        record = self._domains.own(client, domid)
        self._machine.unpause(domid)
        record.started = True
        channel.send("done", message.id)

    def _on_destroy(self, client: str, channel: "Channel", message: "Message") -> None:
        domid = message.fields.domid
        self._domains.own(client, domid)
        if self._ends.is_dying(domid):
            raise BuildError(EBUSY, "domain %d is being destroyed already" % domid)

        answer = _answerer(channel, message.id)
        self._ends.release(domid, lambda trouble: answer(EBUSY if trouble else 0, trouble))

    # -- devices of guests

    def _on_plug(self, client: str, channel: "Channel", message: "Message") -> None:
        device, group = self._device(client, message.fields)
        self._plugging.plug(device, client, group, _answerer(channel, message.id))

    def _on_unplug(self, client: str, channel: "Channel", message: "Message") -> None:
        device, _ = self._device(client, message.fields)
        self._plugging.unplug(device, _answerer(channel, message.id))

    def _device(self, client: str, fields: "Any") -> "tuple[Device, str]":
        """The device that a Toolstack speaks of, and its guest's group. Raises BuildError."""
        record = self._domains.own(client, fields.domid)
        if self._ends.is_dying(fields.domid) or record.uuid == NO_UUID:
            raise BuildError(ENOENT, "domain %d is no guest that lives" % fields.domid)
        return Device(fields.domid, fields.driver, fields.device_kind, fields.number), record.group

    # -- answers of servers

    def answered(self, server: str, message: "Message") -> None:
        """Takes an answer of XenStore or Console."""
        self._operations.answered(server, message)

    # -- the end of domains

    def domains_changed(self) -> None:
        """Looks at what has ended (VIRQ_DOM_EXC), reports it, and completes what waited for it."""
        self._ends.changed()

    def expire(self) -> "int | None":
        """Ends what waited too long, before requests to servers go out; when (ns) to look again, or None."""
        self._operations.expire()
        self._ends.expire()
        self._operations.sent()
        deadlines = self._operations.deadlines() + self._ends.deadlines()
        return min(deadlines) if deadlines else None

    # -- helpers

    def _had_by(self, client: str) -> "Quota":
        """What the guests of a Toolstack have together."""
        return self._domains.had_by(client, self._delegation.had_by(client))


def _named(entries: "list[Any]", name: str) -> "Any":
    for entry in entries:
        if entry.name == name:
            return entry
    return None


def _answerer(channel: "Channel", request: int) -> "Callable[[int, str], None]":
    """Answers a request with `done`, or with an error's number and text."""

    def answer(errno: int, text: str) -> None:
        if errno:
            channel.fail(request, errno, text)
        else:
            channel.send("done", request)

    return answer
