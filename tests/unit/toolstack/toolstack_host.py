"""A Toolstack with its neighbours in memory: a Builder that can fail, the real XenStore, an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xoar.messages.channel import Channel
from xoar.messages.codec import Decoder, Message, encode
from xoar.shards.xenstore.store import records
from xoar.toolstack.mirror import Mirror
from xoar.toolstack.store import StoreLink
from xoar.toolstack.toolstack import HostToolstack, TenantToolstack
from xoar.xen.ring import SharedPage, xenstore_rings
from xoar.xenstore.client import Client
from xoar.xenstore.domains import Domains
from xoar.xenstore.errors import Refused
from xoar.xenstore.quotas import quotas
from xoar.xenstore.ringlink import RingLink
from xoar.xenstore.server import Server

TOOLSTACK = 4
GARBAGE = 1000
"""The stream whose requests are not the tests' own, so that ids may repeat."""
KERNEL = bytes([1]) * 32


def shared_page() -> SharedPage:
    memory = memoryview(bytearray(4096))
    return SharedPage(memory, memory.cast("I"))


class ListShelf:
    """Where a Toolstack's memory outlives it."""

    def __init__(self, *records: bytes) -> None:
        self.records = list(records)
        self.room = 1 << 20

    def load(self) -> list[bytes]:
        return list(self.records)

    def store(self, records: list[bytes]) -> None:
        self.records = list(records)


class FakeBuilder:
    """Answers the Toolstack's requests; `fail` names kinds to refuse, `hold` kinds to leave unanswered."""

    def __init__(self, channel: Channel, store: Server) -> None:
        self.channel = channel
        self.store = store
        self.domains: dict[int, str] = {}
        self.requests: list[str] = []
        self.fail: set[str] = set()
        self.busy = 0  # so many requests to destroy something come too early
        self.hold: set[str] = set()
        self.held: list[Message] = []
        self.next_domid = 5
        self.shards = {1: "xenstore", 2: "console", 3: "builder", TOOLSTACK: "toolstack"}
        # what build_shard can build, by name, and what of it there is
        self.late: dict[str, int] = {}
        self.built: dict[int, str] = {}
        self.parents: dict[int, str] = {}
        # why domains have ended, when they were built (ns), and a clock that goes on with each list of them
        self.reasons: dict[int, str] = {}
        self.created: dict[int, int] = {}
        self.now_ns = 10**9
        # back ends: guest, driver domain, kind, number
        self.links: set[tuple[int, int, bytes, int]] = set()
        # driver domains' devices, and rights that were permitted or withdrawn
        self.devices: dict[str, int] = {}
        self.permitted: list[tuple[Any, ...]] = []

    def serve(self) -> None:
        for message in self.channel.receive():
            self.requests.append(message.kind)
            if message.kind in self.hold:
                self.held.append(message)
            else:
                self.answer(message)
        self.channel.flush()

    def answer_held(self) -> None:
        self.hold.clear()
        held, self.held = self.held, []
        for message in held:
            self.answer(message)

    def answer(self, message: Message) -> None:
        kind, id = message.kind, message.id
        if kind in self.fail:
            self.channel.fail(id, 12, f"{kind} fails in this test")
            return
        if kind == "build":
            domid, self.next_domid = self.next_domid, self.next_domid + 1
            self.domains[domid] = "paused"
            self.created[domid] = self.now_ns
            self.introduce(domid, message.fields.uuid)
            self.channel.send(
                "built", id, domid=domid, store_gfn=11, store_port=1, console_gfn=12, console_port=2
            )
        elif kind == "build_shard":
            self.build_shard(message)
        elif kind == "destroy" and self.busy:
            self.busy -= 1
            self.channel.fail(id, 16, f"domain {message.fields.domid} is being destroyed already")
        elif kind in ("unpause", "destroy") and message.fields.domid in self.built:
            self.change_shard(message)
        elif kind in ("unpause", "destroy") and message.fields.domid not in self.domains:
            self.channel.fail(id, 2, "there is no such domain")
        elif kind == "unpause":
            self.domains[message.fields.domid] = "running"
            self.channel.send("done", id)
        elif kind == "destroy":
            del self.domains[message.fields.domid]
            self.store.release(message.fields.domid)
            self.unlink(message.fields.domid)
            self.channel.send("done", id)
        elif kind in ("plug", "unplug"):
            self.change_device(kind, id, message.fields)
        elif kind in ("allow_delegation", "withdraw_delegation"):
            self.channel.send("done", id)
        elif kind == "domains":
            self.answer_domains(message)
        elif kind == "quotas":
            rows = [(name, 1, 4096, 1, 0, 3, 65536, 2, 4) for name in self.late if name.startswith("tenant-")]
            self.channel.send("quota_list", id, more=0, quotas=rows[message.fields.start :])
        elif kind == "assign_pci_device":
            if message.fields.bdf in self.devices.values():
                self.channel.fail(id, 16, "it is somebody's")
            else:
                self.devices[message.fields.driver] = message.fields.bdf
                self.channel.send("done", id)
        elif kind == "withdraw_pci_device":
            assert self.late[message.fields.driver] not in self.built
            if self.devices.pop(message.fields.driver, None) is None:
                self.channel.fail(id, 2, f"{message.fields.driver} has no device")
            else:
                self.channel.send("done", id)
        elif kind == "devices":
            rows = [(bdf, 0x020000, 0x8086, 0x10D3, name) for name, bdf in self.devices.items()]
            self.channel.send("device_list", id, more=0, devices=rows)
        elif kind == "permits":
            self.channel.send("permit_list", id, more=0, permits=[("console", "xen", "debug", 1)])
        elif kind == "permit_hypercall":
            self.permitted.append(tuple(message.fields))
            self.channel.send("done", id)
        elif kind == "journal":
            entries = [(3, 5, "toolstack", "something", "done")]
            self.channel.send("journal_page", id, more=0, dropped=3, now_ns=9, entries=entries)
        elif kind == "images":
            images = [(bytes([n]) * 32, f"image{n}", "kernel", 100 * n, 50 * n) for n in (1, 2)]
            self.channel.send("library", id, more=0, images=images[message.fields.start :])

    def build_shard(self, message: Message) -> None:
        domid = self.late[message.fields.name]
        assert domid not in self.built, "built twice"
        self.built[domid] = "paused"
        self.introduce(domid, bytes(16))
        self.channel.send(
            "built", message.id, domid=domid, store_gfn=21, store_port=1, console_gfn=22, console_port=2
        )

    def change_device(self, kind: str, id: int, device: Any) -> None:
        link = (device.domid, self.late[device.driver], device.device_kind.encode(), device.number)
        try:
            if kind == "plug":
                self.store.make_back_end(*link)
                self.links.add(link)
            elif link in self.links:
                self.store.remove_back_end(*link)
                self.links.remove(link)
            else:
                raise Refused("ENOENT")
        except Refused:
            self.channel.fail(id, 2, "it serves no devices yet")
        else:
            self.channel.send("done", id)

    def unlink(self, domid: int) -> None:
        """A domain is gone."""
        for link in [link for link in self.links if domid in link[:2]]:
            self.links.remove(link)
            if domid == link[0]:
                self.store.remove_back_end(*link)

    def introduce(self, domid: int, uuid: bytes) -> None:
        self.store.introduce(domid, TOOLSTACK, records(domid, TOOLSTACK, uuid))

    def change_shard(self, message: Message) -> None:
        domid = message.fields.domid
        if message.kind == "unpause":
            self.built[domid] = "running"
        else:
            del self.built[domid]
            self.store.release(domid)
            self.unlink(domid)
        self.channel.send("done", message.id)

    def answer_domains(self, message: Message) -> None:
        self.now_ns += 10**9
        every = sorted(set(self.shards) | set(self.domains) | set(self.built))
        names = {**self.shards, **{domid: name for name, domid in self.late.items() if domid in self.built}}
        wanted = [domid for domid in every if domid >= message.fields.start]
        rows = [
            (domid, self.domains.get(domid, "blocked"), self.reasons.get(domid, "none"), 4096, 4096, 1, 7,
             self.created.get(domid, 0),
             names.get(domid, ""), self.parents.get(domid, self.of(domid)), "system_u:system_r:x_t")
            for domid in wanted[:24]
        ]  # fmt: skip
        self.channel.send(
            "domain_list", message.id, total_kib=1000, free_kib=400, now_ns=self.now_ns,
            xen_version="4.17.5", more=int(len(wanted) > 24), domains=rows,
        )  # fmt: skip

    def of(self, domid: int) -> str:
        """The parent of a domain."""
        return "toolstack" if domid in self.domains or domid in self.built else ""

    def stop(self, domid: int, reason: str) -> None:
        """A domain ends by itself."""
        self.reasons[domid] = reason
        if reason == "vanished":
            self.domains.pop(domid, None)
            self.unlink(domid)
        else:
            self.domains[domid] = "shutdown"
        self.channel.send("stopped", 0, domid=domid, reason=reason)


class Host:
    """`run` lets everything move until nothing does; the Toolstack only when an event wakes it."""

    def __init__(
        self,
        words: dict[str, list[str]] | None = None,
        role: str = "toolstack",
        shelf: ListShelf | None = None,
    ) -> None:
        self.now = 1000
        self.uniques = 0
        self.woken = True
        self.reports: list[str] = []
        self.server = Server(Domains({99}), quotas())
        self.shelf = shelf if shelf is not None else ListShelf()
        self.serve_store = True
        self.role = role
        self.words = words or {}
        self.decoders: dict[int, Decoder] = {}
        self.answers: dict[tuple[int, int], Message] = {}
        self.hung_up: list[int] = []
        self.last_id = 0
        self.uuids = 0
        self.fake = FakeBuilder(self._open(), self.server)
        self._wake_up()
        self.toolstack.begin()

    def _open(self) -> Channel:
        """New links; Builder's end."""
        self.store_page = shared_page()
        self.ring = RingLink(self.store_page, self.server, self.server.introduce(TOOLSTACK))
        self.builder_page = shared_page()
        to_server, to_client = xenstore_rings(self.builder_page)
        builder = Channel(to_server, to_client, self.wake, self.role, "builder")
        self.console_page = shared_page()
        to_server, to_client = xenstore_rings(self.console_page)
        self.console = Channel(to_client, to_server, self.wake, self.role, "console")
        return builder

    def _wake_up(self) -> None:
        """A Toolstack with these links, that has not begun."""
        writer, reader = xenstore_rings(self.store_page)
        client = Client(reader, writer, lambda: None, self.fail)
        self.store = StoreLink(client, Mirror(lambda: self.now))
        to_server, to_client = xenstore_rings(self.builder_page)
        self.link = Channel(to_client, to_server, lambda: None, "builder", self.role, self.reports.append)
        to_server, to_client = xenstore_rings(self.console_page)
        relay = Channel(to_server, to_client, lambda: None, "console", self.role, self.reports.append)
        kind = TenantToolstack if self.role == "tenant" else HostToolstack
        shelf, settled = self.shelf_of(client)
        self.toolstack = kind(
            self.link, self.store, relay, lambda key: self.words.get(key, []), lambda: self.now, TOOLSTACK,
            self.unique, self.reports.append, shelf=shelf, is_settled=settled,
        )  # fmt: skip
        self.guests = self.toolstack.guests

    def shelf_of(self, client: Client) -> tuple[Any, Callable[[], bool]]:
        """Where the Toolstack's memory is, and whether all is there."""
        return self.shelf, lambda: True

    def begin_anew(self) -> None:
        """The Toolstack is gone, and there is another one: what is on its way to the first one is lost."""
        self.fake.channel = self._open()
        self._wake_up()
        self.decoders.clear()
        self.woken = True
        self.toolstack.begin()

    def roll_back(self) -> None:
        """The Toolstack, which is idle, begins its next life on the links that it has."""
        assert self.toolstack.idle
        self._wake_up()
        self.woken = True
        self.toolstack.begin(at_rest=True)

    def unique(self) -> bytes:
        self.uniques += 1
        return bytes([self.uniques])

    def fail(self) -> None:
        raise AssertionError("the Toolstack waits for XenStore")

    def run(self, turns: int = 40) -> None:
        for _ in range(turns):
            self.fake.serve()
            self.neighbours()
            if self.serve_store and self.ring.serve():
                self.wake()
            deadline = self.toolstack.deadline_ms()
            if self.woken or (deadline is not None and deadline <= self.now):
                self.woken = False
                self.woken = self.toolstack.turn() or self.woken
            self.console.flush()
            for message in self.console.receive():
                self.relayed(message)

    def wake(self) -> None:
        """One of the Toolstack's event channels fires."""
        self.woken = True

    def neighbours(self) -> None:
        """What other domains do in a turn; nothing here."""

    def relayed(self, message: Message) -> None:
        channel = message.fields.channel
        if message.kind == "hangup":
            self.hung_up.append(channel)
            return
        decoder = self.decoders.setdefault(channel, Decoder())
        decoder.feed(message.fields.data)
        while reply := decoder.next():
            assert channel == GARBAGE or (channel, reply.id) not in self.answers, "answered twice"
            self.answers[channel, reply.id] = reply

    def send(self, kind: str, channel: int = 1, **fields: Any) -> int:
        """Sends an operator's request; its id."""
        self.last_id += 1
        self.console.send("relay", 0, channel=channel, data=encode(kind, self.last_id, **fields))
        return self.last_id

    def ask(self, kind: str, **fields: Any) -> Message:
        """A request and its answer, which must come without anything else happening."""
        id = self.send(kind, **fields)
        self.run()
        return self.answers[1, id]

    def create_fields(self, name: str = "web", **changes: Any) -> dict[str, Any]:
        self.uuids += 1
        return {
            "name": name, "uuid": self.uuids.to_bytes(16, "big"), "kernel": KERNEL, "ramdisk": bytes(32),
            "command_line": "console=hvc0", "memory_kib": 65536, "vcpus": 2,
            "on_reboot": "restart", "on_crash": "keep", "group": "", "disks": [], "nics": [], **changes,
        }  # fmt: skip

    def create(self, name: str = "web", **changes: Any) -> int:
        """Creates a guest; its domid."""
        reply = self.ask("guest_create", **self.create_fields(name, **changes))
        assert reply.kind == "started", reply
        domid: int = reply.fields.domid
        return domid

    def as_domain(self, domid: int) -> Client:
        """A XenStore client of a domain, or of a manager (99)."""
        page = shared_page()
        link = RingLink(page, self.server, self.server.connect(domid))
        writer, reader = xenstore_rings(page)
        return Client(reader, writer, lambda: link.serve(), lambda: link.serve())

    def tree(self) -> list[str]:
        """Every path in XenStore below /local/domain and /vm."""
        client = self.as_domain(99)

        def below(path: str) -> list[str]:
            if not client.exists(path):
                return []
            found = []
            for name in client.directory(path):
                found += [f"{path}/{name}", *below(f"{path}/{name}")]
            return found

        return below("/local/domain") + below("/vm")

    def state(self, name: str = "web") -> str:
        state: str = self.ask("guest_show", name=name).fields.state
        return state

    def nothing_is_left(self) -> bool:
        return not self.fake.domains and not self.guests.all and self.tree() == []
