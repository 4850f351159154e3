"""What Builder knows of each domain besides what Xen says, and which domids are free. No I/O."""

from xoar.abi import xen as abi
from xoar.builder.errors import ENOENT, BuildError
from xoar.builder.plan import Quota
from xoar.messages.errors import EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.codec import Message

    Links = tuple[tuple[str, int, str], ...]

NO_UUID = bytes(16)
# what a guest or driver domain has: server, grant reference, and what the server calls the link
LINKS = (
    ("console", abi.GNTTAB_RESERVED_CONSOLE, "console"),
    ("xenstore", abi.GNTTAB_RESERVED_XENSTORE, "xenstore"),
)
BUILDING, THERE, DYING = "building", "there", "dying"
_LAST_DOMID = 0x7EFF  # above are those of tenants' shards (xoar.privilege.bootplan)
_MOST_ENDS = 32


class Domain:
    """One of them. `stage` is BUILDING until whoever asked for it has an answer."""

    def __init__(
        self,
        name: str,
        created: int,
        parent: "str | None",
        links: "Links" = LINKS,
        uuid: bytes = NO_UUID,
        memory_kib: int = 0,
        vcpus: int = 0,
        group: str = "",
    ) -> None:
        self.name = name  # a shard's; guests have none here
        self.links = links  # that servers are told of
        self.created = created
        self.parent = parent  # the Toolstack that asked for it; None: built by Bootstrapper
        self.uuid = uuid
        self.memory_kib = memory_kib
        self.vcpus = vcpus
        self.group = group  # of guests that share driver domains
        self.stage = THERE if parent is None else BUILDING
        self.started = parent is None
        self.reported = False  # its end has been reported
        self.port = 0  # of its link to Builder, if it has one

    def servers(self) -> "list[str]":
        """Each once, however many links lead there."""
        names: "list[str]" = []
        for server, _, _ in self.links:
            if server not in names:
                names.append(server)
        return names


class Domains:
    """`shards`: those of the boot plan that are built at boot. Guests get domids from `first` on."""

    def __init__(self, shards: "list[Any]", first: int, now: int) -> None:
        self.records = {shard.domid: Domain(shard.name, now, None) for shard in shards}
        self.records[0] = Domain("bootstrapper", 0, None)  # about to end, or gone already
        self._at_boot = list(self.records)
        self._first = self._next = first

    def own(self, client: str, domid: int) -> Domain:
        """A domain of this Toolstack. Raises BuildError."""
        record = self.records.get(domid)
        if record is None:
            raise BuildError(ENOENT, "there is no domain %d" % domid)
        if record.parent != client:
            raise BuildError(EPERM, "domain %d is not %s's" % (domid, client))
        return record

    def domid_of(self, name: "str | None") -> int:
        """The domid of the shard of this name, or 0."""
        domids = [domid for domid, record in self.records.items() if name and record.name == name]
        return domids[0] if domids else 0

    def had_by(self, client: str, devices: int) -> Quota:
        """What the guests of a Toolstack have together; `devices` is how many of these."""
        guests = [record for record in self.records.values() if record.parent == client]
        memory_kib, vcpus = [guest.memory_kib for guest in guests], [guest.vcpus for guest in guests]
        return Quota(sum(memory_kib), sum(vcpus), len(guests), devices)

    def is_seen_by(self, client: str, domid: int) -> bool:
        """Whether a tenant's Toolstack hears of a domain: itself, and its guests."""
        record = self.records.get(domid)
        return record is not None and client in (record.parent, record.name)

    def is_guests(self, domid: int) -> bool:
        """Whether only domains that Toolstacks asked for have such a domid."""
        return domid >= self._first

    def free(self, present: "list[int]") -> int:
        """A domid that is not in use; one that was is used again as late as possible."""
        while self._next in present or self._next in self.records:
            self._next = self._next + 1 if self._next < _LAST_DOMID else self._first
        domid = self._next
        self._next = domid + 1 if domid < _LAST_DOMID else self._first
        return domid

    def remember(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages (kind, fields) with which `recall` makes this anew."""
        ends = [
            (domid,)
            for domid in self._at_boot
            if domid and (domid not in self.records or self.records[domid].reported)
        ]
        found: "list[tuple[str, dict[str, Any]]]" = [
            ("remember_domid", {"domid": self._next}),
            ("remember_ends", {"domids": ends[:_MOST_ENDS]}),
        ]
        for domid, record in self.records.items():
            if record.parent is not None:
                found.append(
                    (
                        "remember_domain",
                        {
                            "domid": domid,
                            "name": record.name,
                            "created": record.created,
                            "parent": record.parent,
                            "uuid": record.uuid,
                            "memory_kib": record.memory_kib,
                            "vcpus": record.vcpus,
                            "group": record.group,
                            "stage": record.stage,
                            "started": int(record.started),
                            "reported": int(record.reported),
                            "port": record.port,
                        },
                    )
                )
        return found

    def recall(self, message: "Message", links: "dict[str, tuple[int, Links]]") -> bool:
        """Takes one of them back, whoever wrote it; whether it was one of these. `links`: the domid of each
        shard that is built on request, and its links; others must be guests. ValueError: it can't be."""
        fields = message.fields
        if message.kind == "remember_domid":
            if not self._first <= fields.domid <= _LAST_DOMID:
                raise ValueError("the next domid is %d" % fields.domid)
            self._next = fields.domid
        elif message.kind == "remember_ends":
            for end in fields.domids:
                if end.domid in self._at_boot:
                    self.records[end.domid].reported = True
        elif message.kind == "remember_domain":
            domid = fields.domid
            own, told = links.get(fields.name, (domid, LINKS))
            is_shard = fields.name in links
            if domid in self.records or domid != own or is_shard == bool(fields.uuid != NO_UUID):
                raise ValueError("domain %d can't be %s" % (domid, fields.name or "a guest"))
            if not is_shard and (fields.name or not self._first <= domid <= _LAST_DOMID):
                raise ValueError("domain %d is no guest's" % domid)
            record = self.records[domid] = Domain(
                fields.name,
                fields.created,
                fields.parent,
                told,
                fields.uuid,
                fields.memory_kib,
                fields.vcpus,
                fields.group,
            )
            record.stage = fields.stage
            record.started = bool(fields.started)
            record.reported = bool(fields.reported)
            record.port = fields.port
        else:
            return False
        return True
