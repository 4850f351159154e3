"""Builder's service: what it does to Xen, what it answers, and that failures leave nothing."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest

from xoar.builder import plan
from xoar.builder.devices import Devices
from xoar.builder.errors import BuildError
from xoar.builder.journal import Journal
from xoar.builder.library import KERNEL, LINUX, RAMDISK, ROOTFS, SHARD, Library
from xoar.builder.service import Service
from xoar.host import bundle, compress
from xoar.messages.codec import Message, encode
from xoar.messages.records import NO_IMAGE

from .test_library import unpack

Info = namedtuple("Info", "domid flags reason pages max_pages vcpus cpu_time sid")
KERNEL_ENTRY = bundle.Entry("linux", KERNEL, b"kernel")
RAMDISK_ENTRY = bundle.Entry("linux", RAMDISK, b"ramdisk")
IMAGES = [
    KERNEL_ENTRY,
    RAMDISK_ENTRY,
    bundle.Entry("pciback", SHARD, b"pciback"),
    bundle.Entry("tenant", SHARD, b"tenant"),
    bundle.Entry("netback", LINUX, b"driver kernel"),
    bundle.Entry("netback", ROOTFS, b"driver root"),
]
PLAN = plan.parse("""\
shard xenstore 1 16384 1 xenstore_t xenstore
shard console 2 16384 1 console_t console
shard builder 3 12288 1 builder_t builder
shard toolstack 4 12288 1 toolstack_t toolstack
late pciback 5 12288 1 pciback_t pciback
late tenant-acme 32512 12288 1 tenant_t tenant
driver net0 netback 6 98304 1 netback_t netback 256
driver net1 netback 7 98304 1 netback_t netback 0
link pciback xenstore xenstore 1
link pciback builder pciback 2
link tenant-acme xenstore xenstore 1
link tenant-acme builder builder 2
link tenant-acme console operator 3
ecam pciback
quota tenant-acme 65536 3 2 3
optional console xen debug console_xen_debug
optional netback mmu stat netback_mmu_stat
""")
SHARDS = {shard.domid: shard.name for shard in PLAN.shards}
PCIBACK, NET0, ACME = 5, 6, 32512
FIRST_GUEST = 32
WINDOW = (0xC0000000, 0x10000000)
_POWEROFF, _CRASH = 0, 3


class FakeXen:
    """Domains as Xen would list them; `hold` keeps destroyed ones dying."""

    def __init__(self) -> None:
        self.present = {domid: Info(domid, 0, None, 4096, 4352, 1, 0, domid) for domid in SHARDS}
        self.time = 1000
        self.fail_after: Exception | None = None
        self.fail_before: Exception | None = None
        self.running: set[int] = set()
        self.hold: set[int] = set()
        self.words: list[str] = []
        self.links: list[tuple[str, int, int]] = []
        self.device_memory: dict[int, list[tuple[int, int]]] = {}
        self.assigned: dict[int, int] = {}
        self.opened: dict[int, FakeChannel] = {}
        self.reporters: dict[str, Callable[[str], None]] = {}
        self.switched: list[tuple[str, bool]] = []

    def build_shard(
        self,
        shard: Any,
        words: list[str],
        image: Any,
        links: list[tuple[str, int, int]],
        with_ecam: bool,
    ) -> dict[int, tuple[int, int]]:
        assert with_ecam == (shard.name == "pciback")
        self.words = words
        self.links = links
        self.build(shard.domid)
        return {1: (3, 12), 2: (5, 13), 3: (6, 14)}

    def build_driver(
        self, driver: Any, bdf: int, kernel: Any, rootfs: Any, memory: list[tuple[int, int]]
    ) -> dict[int, tuple[int, int]]:
        self.device_memory[driver.domid] = memory
        self.assigned[driver.domid] = bdf
        return self.build(driver.domid)

    def open(self, domid: int, gref: int, port: int, name: str, report: Callable[[str], None]) -> FakeChannel:
        assert name in ("pciback", "tenant")
        self.reporters[name] = report
        self.opened[domid] = FakeChannel()
        return self.opened[domid]

    def close(self, domid: int) -> None:
        del self.opened[domid]

    def build(self, domid: int, *_: Any) -> dict[int, tuple[int, int]]:
        if self.fail_before:
            raise self.fail_before
        self.present[domid] = Info(domid, 1 << 3, None, 100, 100, 1, 0, 9)
        if self.fail_after:
            raise self.fail_after
        return {0: (4, 11), 1: (3, 12)}

    def unpause(self, domid: int) -> None:
        self.running.add(domid)

    def destroy(self, domid: int) -> None:
        if domid in self.hold:
            self.present[domid] = self.present[domid]._replace(flags=1)
        else:
            del self.present[domid]

    def end(self, domid: int, reason: int) -> None:
        self.present[domid] = self.present[domid]._replace(flags=4, reason=reason)

    def domains(self) -> list[Info]:
        return [self.present[domid] for domid in sorted(self.present)]

    def label(self, sid: int) -> str:
        return f"system_u:system_r:type{sid}_t"

    def memory_kib(self) -> tuple[int, int]:
        return 4096, 2048

    def switch(self, boolean: str, on: bool) -> None:
        self.switched.append((boolean, on))

    def version(self) -> str:
        return "4.17.5"

    def now(self) -> int:
        return self.time


class FakeChannel:
    """Collects what is sent, encoded once so that the schema checks it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, dict[str, Any]]] = []

    def send(self, kind: str, id: int, **fields: Any) -> bool:
        encode(kind, id, **fields)
        self.sent.append((kind, id, fields))
        return True

    def fail(self, id: int, errno: int, text: str) -> bool:
        return self.send("error", id, errno=errno, text=text)

    def take(self) -> list[tuple[str, int, dict[str, Any]]]:
        sent, self.sent = self.sent, []
        return sent


class World:
    def __init__(self) -> None:
        packed = bundle.pack(IMAGES, lambda e: compress.compress_blocks(e.content))
        self.xen = FakeXen()
        self.toolstack = FakeChannel()
        self.servers = {"xenstore": FakeChannel(), "console": FakeChannel()}
        self.service = Service(
            self.xen,
            Library(memoryview(packed), unpack),
            {"toolstack": self.toolstack},
            self.servers,  # type: ignore[arg-type]
            PLAN,
            Devices(PLAN.drivers, [WINDOW]),
            Journal(lambda: self.xen.time, lambda line: None),
            FIRST_GUEST,
        )

    def ask(self, kind: str, id: int = 7, **fields: Any) -> None:
        self.service.handle("toolstack", message(kind, id, **fields))

    def build(self, client: str = "toolstack", **changes: Any) -> None:
        fields = {
            "uuid": os.urandom(16),
            "kernel": KERNEL_ENTRY.digest,
            "ramdisk": RAMDISK_ENTRY.digest,
            "command_line": "",
            "memory_kib": 32768,
            "vcpus": 1,
            "group": "",
        }
        self.service.handle(client, message("build", 7, **{**fields, **changes}))

    def answer(self, kind: str = "done", **fields: Any) -> list[tuple[str, str]]:
        """Has the servers answer all their requests; what those were."""
        asked = []
        for name, channel in self.servers.items():
            for request, id, _ in channel.take():
                asked.append((name, request))
                if id:
                    self.service.answered(name, message(kind, id, **fields))
        return asked

    def built(self) -> int:
        self.build()
        self.answer()
        ((kind, _, fields),) = self.toolstack.take()
        assert kind == "built"
        return int(fields["domid"])


def message(kind: str, id: int, **fields: Any) -> Message:
    from xoar.messages.codec import Decoder

    decoder = Decoder()
    decoder.feed(encode(kind, id, **fields))
    found = decoder.next()
    assert found is not None
    return found


@pytest.fixture
def world() -> World:
    return World()


def test_a_domain_is_introduced_to_both_servers_before_the_answer(world: World) -> None:
    world.build()
    assert world.toolstack.take() == []
    assert sorted(world.answer()) == [("console", "introduce"), ("xenstore", "introduce")]
    ((kind, id, fields),) = world.toolstack.take()
    assert (kind, id) == ("built", 7)
    assert fields == {
        "domid": FIRST_GUEST, "store_gfn": 3, "store_port": 12, "console_gfn": 4, "console_port": 11,
    }  # fmt: skip
    assert FIRST_GUEST not in world.xen.running


@pytest.mark.parametrize("error", [OSError(12, "no memory"), BuildError(22, "bad image"), MemoryError()])
@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
def test_a_build_that_fails_leaves_no_domain_and_tells_why(world: World, error: Exception, when: str) -> None:
    setattr(world.xen, when, error)
    world.build()
    ((kind, id, _),) = world.toolstack.take()
    assert (kind, id) == ("error", 7)
    assert set(world.xen.present) == set(SHARDS)
    assert world.answer() == []
    setattr(world.xen, when, None)
    assert world.built() > FIRST_GUEST


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kernel": bytes(32)}, "no kernel"),
        ({"ramdisk": KERNEL_ENTRY.digest}, "no ramdisk"),
        ({"vcpus": 0}, "vCPUs"),
        ({"vcpus": 65}, "vCPUs"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_without_a_trace(
    world: World, changes: dict[str, Any], text: str
) -> None:
    world.build(**changes)
    ((kind, _, fields),) = world.toolstack.take()
    assert kind == "error" and text in fields["text"]
    assert set(world.xen.present) == set(SHARDS)


def test_a_guest_without_ramdisk_is_built(world: World) -> None:
    world.build(ramdisk=NO_IMAGE)
    world.answer()
    assert world.toolstack.take()[0][0] == "built"


@pytest.mark.parametrize("kind", ["error", None])
def test_a_server_that_refuses_or_hangs_makes_the_build_fail_and_leaves_nothing(
    world: World, kind: str | None
) -> None:
    world.build()
    if kind == "error":
        world.answer("error", errno=13, text="no")
    else:
        for channel in world.servers.values():
            channel.take()
        world.service.expire()
        world.xen.time += 6 * 10**9
        world.service.expire()
    world.answer()  # release
    ((answer, _, _),) = world.toolstack.take()
    assert answer == "error"
    assert set(world.xen.present) == set(SHARDS)


def test_servers_time_begins_when_requests_go_out(world: World) -> None:
    """Several domains that are asked for at once are built before anybody hears of the first."""
    for _ in range(3):
        world.build()
        world.xen.time += 4 * 10**9
    assert world.service.expire() == world.xen.time + 5 * 10**9
    world.xen.time += 4 * 10**9
    world.answer()
    world.service.expire()
    assert [kind for kind, _, _ in world.toolstack.take()] == ["built"] * 3


def test_a_release_that_begins_as_a_request_expires_has_its_own_time(world: World) -> None:
    world.build()
    for _ in range(2):
        deadline = world.service.expire()
        assert deadline is not None
        world.xen.time = deadline
    world.service.expire()
    assert set(world.xen.present) == set(SHARDS)


def test_destroy_releases_first_and_answers_when_the_domain_is_gone(world: World) -> None:
    domid = world.built()
    world.xen.hold.add(domid)
    world.ask("destroy", 8, domid=domid)
    assert domid in world.xen.present
    assert sorted(world.answer()) == [("console", "release"), ("xenstore", "release")]
    assert world.toolstack.take() == []
    del world.xen.present[domid]
    world.service.domains_changed()
    assert [sent[:2] for sent in world.toolstack.take()] == [("done", 8)]


def test_a_domain_that_does_not_die_is_reported_after_a_time(world: World) -> None:
    domid = world.built()
    world.xen.hold.add(domid)
    world.ask("destroy", 8, domid=domid)
    world.answer()
    world.xen.time += 11 * 10**9
    world.service.expire()
    ((kind, _, fields),) = world.toolstack.take()
    assert kind == "error" and "dying" in fields["text"]


def test_servers_that_hang_do_not_keep_a_domain_alive(world: World) -> None:
    domid = world.built()
    world.ask("destroy", 8, domid=domid)
    world.service.expire()
    world.xen.time += 6 * 10**9
    world.service.expire()
    assert domid not in world.xen.present
    assert world.toolstack.take()[0][0] == "done"


def test_shards_are_nobodys_to_control(world: World) -> None:
    for domid in SHARDS:
        world.ask("destroy", domid=domid)
        world.ask("unpause", domid=domid)
    assert [sent[0] for sent in world.toolstack.take()] == ["error"] * 8
    assert set(world.xen.present) == set(SHARDS)
    assert not world.xen.running


def test_a_guest_that_ends_is_reported_once_with_its_reason(world: World) -> None:
    domid = world.built()
    world.ask("unpause", domid=domid)
    world.toolstack.take()
    world.xen.end(domid, _CRASH)
    world.service.domains_changed()
    world.service.domains_changed()
    assert world.toolstack.take() == [("stopped", 0, {"domid": domid, "reason": "crash"})]
    assert world.servers["xenstore"].take() == [("stopped", 0, {"domid": domid, "reason": "crash"})]


def test_a_shard_that_ends_is_put_back_if_somebody_does_that(world: World) -> None:
    asked: list[str] = []
    domids = {name: domid for domid, name in SHARDS.items()}
    last = list(SHARDS.values())[-1]
    world.service.kicks[last] = lambda: asked.append(last)
    for times in (1, 2):
        world.xen.end(domids[last], _CRASH)
        world.service.domains_changed()
        world.service.domains_changed()
        assert len(asked) == times
        world.xen.present[domids[last]] = world.xen.present[domids[last]]._replace(flags=0, reason=None)
        world.service.domains_changed()
    world.xen.end(domids["xenstore"], _CRASH)
    world.service.domains_changed()
    assert asked == [last] * 2


def test_bootstrapper_is_destroyed_when_it_has_ended(world: World) -> None:
    world.xen.present[0] = Info(0, 4, _POWEROFF, 1, 1 << 40, 1, 0, 0)
    world.service.domains_changed()
    assert 0 not in world.xen.present
    world.service.domains_changed()
    assert world.toolstack.take() == []


def test_a_toolstack_that_dies_leaves_nothing_half_created_and_its_guests_running(world: World) -> None:
    started, waiting = world.built(), world.built()
    world.ask("unpause", domid=started)
    world.xen.end(4, _CRASH)
    world.service.domains_changed()
    world.answer()
    assert started in world.xen.present
    assert waiting not in world.xen.present


def test_domids_are_not_used_again_soon(world: World) -> None:
    first = world.built()
    world.ask("destroy", domid=first)
    world.answer()
    world.toolstack.take()
    assert world.built() != first


def test_all_domains_and_the_hosts_memory_are_listed(world: World) -> None:
    world.xen.present[0] = Info(0, 1, None, 1, 1 << 40, 1, 0, 0)  # no limit on domain 0's memory
    for domid in range(10, 60):
        world.xen.present[domid] = Info(domid, 1 << 4, None, 256, 256, 2, 5, 9)
    seen: list[int] = []
    more = 1
    while more:
        world.ask("domains", start=seen[-1] + 1 if seen else 0)
        ((kind, _, fields),) = world.toolstack.take()
        assert kind == "domain_list" and (fields["total_kib"], fields["free_kib"]) == (4096, 2048)
        seen += [row[0] for row in fields["domains"]]
        more = fields["more"]
    assert seen == sorted(world.xen.present)


def test_a_bug_is_answered_and_survived(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.xen.fail_before = ZeroDivisionError("oops")
    world.build()
    ((kind, _, fields),) = world.toolstack.take()
    assert kind == "error" and "bug" in fields["text"]
    assert "bug" in capsys.readouterr().out


def test_pciback_is_not_told_of_a_device_that_is_in_use(world: World) -> None:
    world.ask("build_shard", name="pciback")
    world.answer()
    assert world.xen.words == ["device=net0:6:256"]
    claim = message("claim", 3, driver="net0", bdf=256, bars=[(WINDOW[0], 4096)])
    world.service.handle("pciback", claim)
    world.ask("build_shard", name="net0")
    world.answer()
    world.ask("destroy", domid=PCIBACK)
    world.answer()
    world.ask("build_shard", name="pciback")
    assert world.xen.words == []
