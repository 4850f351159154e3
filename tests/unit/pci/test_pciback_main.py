"""The shard's main, with a machine of this process under it: hypercalls, pages, XenStore, Builder."""

import sys
import types
from collections.abc import Callable

import pytest
from simulated_pci import NIC, Machine, Simulated, machine, nic
from simulated_pci import Xen as Interrupts
from test_xenstore import Machine as StoreMachine
from test_xenstore import guest

from xoar.abi import xen as abi
from xoar.messages.channel import Channel
from xoar.xen import ring

ECAM = 0xC0000000
STORE, BUILDER = 16, 17  # frames of the links
FRONTEND = "/local/domain/6/device/pci/0"
PORT = 40


class End(BaseException):
    """The test has seen enough."""


class Hardware(types.ModuleType):
    """The module `nano`. `steps` are called one by one whenever the shard would sleep for ever."""

    def __init__(self, cards: Machine) -> None:
        super().__init__("nano")
        self.cards = cards
        self.time = 10**9
        self.pages: dict[int, bytearray] = {}
        self.interrupts = Interrupts()
        self.physdev: list[tuple[int, dict[str, int]]] = []
        self.steps: list[Callable[[], None]] = []
        self.turn: Callable[[], bool] = lambda: False
        self.signals: list[int] = []

    def page(self, frame: int) -> memoryview:
        return memoryview(self.pages.setdefault(frame, bytearray(4096)))

    def memory(self, address: int, length: int, typecode: str = "B") -> object:
        if address >= ECAM:
            return self.cards.open_page(address - ECAM + self.cards.address)[length and 4096 // length]
        return self.page(address // 4096).cast(typecode)

    def shared_info(self) -> int:
        return 0x100000

    def address(self, buffer: object) -> int:
        return 0

    def now(self) -> int:
        return self.time

    def wait(self, deadline: int) -> list[int]:
        self.time += 1000
        if self.turn() or 0 < deadline <= self.time:
            return []
        if deadline:
            self.time = deadline
        elif self.steps:
            self.steps.pop(0)()
        else:
            raise End
        return []

    def hypercall(self, number: int, operation: int, request: bytearray, *rest: int) -> int:
        if number == abi.HYPERVISOR_physdev_op:
            return self._physdev(operation, request)
        if operation == abi.EVTCHNOP_bind_interdomain and number == abi.HYPERVISOR_event_channel_op:
            abi.evtchn_bind_interdomain.set(request, "local_port", PORT)
        if operation == abi.EVTCHNOP_send and number == abi.HYPERVISOR_event_channel_op:
            self.signals.append(abi.evtchn_send.get(request, "port"))
        return 0

    def _physdev(self, operation: int, request: bytearray) -> int:
        try:
            if operation == abi.PHYSDEVOP_map_pirq:
                fields = {
                    name: abi.physdev_map_pirq.get(request, name) for name in abi.physdev_map_pirq.fields
                }
                self.physdev.append((operation, fields))
                pirq = self.interrupts.map(fields["entry_nr"], fields["table_base"])
                abi.physdev_map_pirq.set(request, "pirq", pirq)
            elif operation == abi.PHYSDEVOP_prepare_msix:
                self.interrupts.prepare_msix()
                self.physdev.append((operation, {"devfn": abi.physdev_pci_device.get(request, "devfn")}))
            elif operation == abi.PHYSDEVOP_release_msix:
                self.interrupts.release_msix()
        except OSError as error:
            return -int(error.args[0])
        return 0


class Host:
    """The shard `main` and what is around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, card: Simulated) -> None:
        self.nano = Hardware(machine(card))
        monkeypatch.setitem(sys.modules, "nano", self.nano)
        import xoar.shards.pciback.main as shard
        import xoar.xen.boot as boot

        words = (
            f"name=pciback domid=5 uses=xenstore:{STORE}:1 uses=builder:{BUILDER}:2 ecam={ECAM}:0:15 "
            f"device=nic:6:{NIC} device=disk:7:{0x500}"
        )
        monkeypatch.setattr(boot, "command_line", lambda: words)
        self.main = shard.main
        self.store = StoreMachine()
        self.toolstack = self.store.add(4)
        store_page = ring.SharedPage(self.nano.page(STORE), self.nano.page(STORE).cast("I"))
        self.store.pages[5] = store_page
        _, self.replies = ring.xenstore_rings(store_page)
        guest(self.store, self.toolstack, 5)
        to_builder, to_client = ring.xenstore_rings(
            ring.SharedPage(self.nano.page(BUILDER), self.nano.page(BUILDER).cast("I"))
        )
        self.builder = Channel(to_builder, to_client, lambda: None, "pciback", "builder")
        self.told: list[tuple[object, ...]] = []
        self.nano.turn = self.turn

    def turn(self) -> bool:
        self.store.run(5)
        messages = self.builder.receive()
        for message in messages:
            self.told.append((message.kind, *message.fields))
            self.builder.send("done", message.id)
        return bool(messages) or self.replies.readable() > 0

    def build_domain(self) -> None:
        self.front = guest(self.store, self.toolstack, 6)
        self.toolstack.mkdir(FRONTEND)
        self.toolstack.set_perms(FRONTEND, ["n6", "r5"])
        self.toolstack.write(FRONTEND + "/state", "1")

    def start_frontend(self) -> None:
        for key, value in (("pci-op-ref", "8"), ("event-channel", "3"), ("magic", "7"), ("state", "3")):
            self.front.write(FRONTEND + "/" + key, value)

    def enable_msix(self) -> None:
        frame = next(frame for frame in self.nano.pages if frame not in (STORE, BUILDER))
        self.words = self.nano.page(frame).cast("I")
        self.words[1], self.words[8], self.words[10], self.words[0] = (
            abi.XEN_PCI_OP_enable_msix,
            1,
            4 << 16,
            1,
        )


@pytest.fixture
def host(monkeypatch):
    """The shard's modules are forgotten afterwards, as they hold this test's `nano`."""
    before = set(sys.modules)
    yield Host(monkeypatch, nic())
    for name in [name for name in set(sys.modules) - before if name.startswith("xoar.")]:
        package, _, module = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(module, None)
        del sys.modules[name]


def test_devices_are_claimed_and_served(host, capsys):
    host.nano.steps = [host.build_domain, host.start_frontend, host.enable_msix]
    with pytest.raises(End):
        host.main()
    assert ("fault", "disk", "there is no device at 0000:05:00.0") in host.told
    assert ("claim", "nic", NIC, [(0xFE800000, 0x20000), (0xFEA00000, 0x4000)]) in host.told
    assert [told for told in host.told if told[0] == "found"] == [
        ("found", 0, 0, [(0, 0x020000, 0x8086, 0x10D3), (NIC, 0x020000, 0x8086, 0x10D3)])
    ]
    assert len(host.told) == 3
    assert host.front.read("/local/domain/5/backend/pci/6/0/state") == b"4"
    assert (host.words[0], host.words[2], host.words[10] & 0xFFFF) == (0, 0, 33)
    assert PORT in host.nano.signals
    assert host.nano.physdev == [
        (abi.PHYSDEVOP_prepare_msix, {"devfn": 0}),
        (
            abi.PHYSDEVOP_map_pirq,
            {
                "domid": 6,
                "type": abi.MAP_PIRQ_TYPE_MSI_SEG,
                "index": 0xFFFFFFFF,
                "pirq": 0xFFFFFFFF,
                "bus": 1,
                "devfn": 0,
                "entry_nr": 4,
                "table_base": 0xFEA00000,
            },
        ),
    ]
    assert "bug" not in capsys.readouterr().out
