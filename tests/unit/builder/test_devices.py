"""What Builder believes of PCIBack, what Bootstrapper finds of the machine, and requests for late shards."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.builder import hardware
from xoar.builder.devices import Devices
from xoar.builder.errors import BuildError

from .test_service import NET0, PCIBACK, PLAN, SHARDS, WINDOW, World, message

_RAM, _RESERVED = 1, 2


@given(st.integers(0, 1 << 34), st.integers(0, 1 << 30))
def test_no_claim_reaches_beyond_the_windows(address: int, size: int) -> None:
    devices = Devices(PLAN.drivers, [WINDOW])
    inside = size and WINDOW[0] <= address and address + size <= WINDOW[0] + WINDOW[1]
    if inside:
        devices.claim("net0", 256, [(address, size)])
        ((start, length),) = devices.give("net0")
        assert start % 4096 == length % 4096 == 0
        assert start <= address and address + size <= start + length
        assert WINDOW[0] <= start and start + length <= WINDOW[0] + WINDOW[1]
    else:
        with pytest.raises(BuildError):
            devices.claim("net0", 256, [(address, size)])
        with pytest.raises(BuildError):
            devices.give("net0")


def test_a_page_belongs_to_one_device() -> None:
    two = [PLAN.drivers[0], PLAN.drivers[0]._replace(name="net1", bdf=512)]
    devices = Devices(two, [WINDOW])
    devices.claim("net0", 256, [(0xC0000000, 0x2000)])
    with pytest.raises(BuildError, match="shares a page"):
        devices.claim("net1", 512, [(0xC0001800, 0x100)])
    devices.claim("net1", 512, [(0xC0002000, 0x100)])


def test_what_a_domain_was_given_cannot_be_claimed_for_another() -> None:
    two = [PLAN.drivers[0], PLAN.drivers[0]._replace(name="net1", bdf=512)]
    devices = Devices(two, [WINDOW])
    devices.claim("net0", 256, [(0xC0000000, 0x2000)])
    devices.give("net0")
    devices.claim("net0", 256, [])  # its domain has the memory all the same
    with pytest.raises(BuildError, match="shares a page"):
        devices.claim("net1", 512, [(0xC0001000, 0x1000)])
    devices.give("net0")  # built anew, without memory
    devices.claim("net1", 512, [(0xC0001000, 0x1000)])


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 22), st.integers(1, 1 << 20), st.sampled_from([1, 2, 3])), max_size=8
    )
)
def test_windows_hold_no_ram_no_firmware_and_no_configuration_space(
    pages: list[tuple[int, int, int]],
) -> None:
    memory_map = [(start << 12, size << 12, kind) for start, size, kind in pages]
    ecam = (0xB0000000, 0, 255)
    for start, size in hardware.windows(memory_map, ecam):
        assert size > 0 and start + size <= 0xFEC00000
        for other, length, _ in [*memory_map, (ecam[0], 256 << 20, _RESERVED)]:
            assert start + size <= other or other + length <= start


def test_windows_of_a_machine_like_qemus() -> None:
    memory_map = [(0, 0x80000000, _RAM), (0xB0000000, 0x10000000, _RESERVED), (1 << 32, 1 << 31, _RAM)]
    found = hardware.windows(memory_map, (0xB0000000, 0, 255))
    assert found == [(0x80000000, 0x30000000), (0xC0000000, 0x3EC00000)]


def test_configuration_space_is_found_through_acpi() -> None:
    memory = bytearray(0x1000)
    memory[0:8] = b"RSD PTR "
    struct.pack_into("<Q", memory, 24, 0x100)
    memory[0x100:0x104] = b"XSDT"
    struct.pack_into("<I", memory, 0x104, 36 + 16)
    struct.pack_into("<QQ", memory, 0x100 + 36, 0x200, 0x300)
    memory[0x200:0x204] = b"FACP"
    memory[0x300:0x304] = b"MCFG"
    struct.pack_into("<I", memory, 0x304, 44 + 16)
    struct.pack_into("<QHBB", memory, 0x300 + 44, 0xB0000000, 0, 0, 255)

    def read(address: int, length: int) -> bytes:
        return bytes(memory[address : address + length])

    assert hardware.mcfg(read, 0) == (0xB0000000, 0, 255)
    memory[0x300:0x304] = b"HPET"
    assert hardware.mcfg(read, 0) is None


def test_the_last_bus_is_behind_the_last_bridge() -> None:
    words = {0: 0x12378086, 0x0C: 0, 4 << 15: 0x1, (4 << 15) + 0x0C: 1 << 16, (4 << 15) + 0x18: 3 << 16}
    assert hardware.last_bus(lambda at: words.get(at, 0xFFFFFFFF), (0, 0, 255)) == 3


def test_pciback_is_built_with_its_links_and_becomes_a_client(world: World) -> None:
    world.ask("build_shard", name="pciback")
    assert world.answer() == [("xenstore", "introduce")]
    ((kind, _, fields),) = world.toolstack.take()
    assert (kind, fields["domid"], fields["console_port"]) == ("built", PCIBACK, 0)
    assert world.xen.links == [("xenstore", 1, 1), ("builder", 3, 2)]
    world.service.handle("pciback", claim(0xC0000000, 0x20000))
    assert [sent[0] for sent in world.xen.opened[PCIBACK].take()] == ["done"]
    assert world.toolstack.take() == [("device", 0, {"driver": "net0", "state": "claimed", "text": ""})]


def claim(address: int, size: int, bdf: int = 256) -> object:
    return message("claim", 3, driver="net0", bdf=bdf, bars=[(address, size)])


def test_a_driver_domain_gets_the_claimed_memory_once(world: World) -> None:
    with_pciback(world)
    world.service.handle("pciback", claim(0xC0000800, 0x1000))
    world.toolstack.take()
    world.ask("build_shard", name="net0")
    assert sorted(world.answer()) == [("console", "introduce"), ("xenstore", "introduce")]
    assert world.toolstack.take()[0][0] == "built"
    assert world.xen.device_memory[NET0] == [(0xC0000000, 0x2000)]
    world.ask("destroy", domid=NET0)
    world.answer()
    world.toolstack.take()
    world.ask("build_shard", name="net0")
    ((kind, _, fields),) = world.toolstack.take()
    assert kind == "error" and "PCIBack has not found" in fields["text"]
    assert NET0 not in world.xen.present


@pytest.mark.parametrize(("address", "bdf"), [(0x1000, 256), (0xC0000000, 257)])
def test_a_claim_that_cannot_be_is_refused_and_reported(world: World, address: int, bdf: int) -> None:
    with_pciback(world)
    world.service.handle("pciback", claim(address, 0x1000, bdf))
    assert [sent[0] for sent in world.xen.opened[PCIBACK].take()] == ["error"]
    ((kind, _, fields),) = world.toolstack.take()
    assert (kind, fields["state"]) == ("device", "failed")


def test_pciback_can_go_and_come_back(world: World) -> None:
    for _ in range(3):
        with_pciback(world)
        world.ask("destroy", domid=PCIBACK)
        assert world.answer() == [("xenstore", "release")]
        assert world.toolstack.take()[0][0] == "done"
        assert not world.xen.opened and set(world.xen.present) == set(SHARDS)


def test_a_shard_is_built_once_and_only_if_the_plan_has_it(world: World) -> None:
    with_pciback(world)
    for name, text in (("pciback", "there already"), ("xenstore", "no shard"), ("net9", "no shard")):
        world.ask("build_shard", name=name)
        ((kind, _, fields),) = world.toolstack.take()
        assert kind == "error" and text in fields["text"]


def with_pciback(world: World) -> None:
    world.ask("build_shard", name="pciback")
    world.answer()
    assert world.toolstack.take()[0][0] == "built"


@pytest.fixture
def world() -> World:
    return World()
