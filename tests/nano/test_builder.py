"""Builder's pure parts, the same under CPython and MicroPython."""

import struct
from array import array

from xoar.abi import xen as abi
from xoar.builder import acpi, elf, plan, pv, start
from xoar.builder.delegation import Delegation
from xoar.builder.devices import Devices
from xoar.builder.domains import LINKS, THERE, Domain, Domains
from xoar.builder.errors import BuildError
from xoar.builder.journal import Journal
from xoar.builder.library import BLOCK, ENTRY, HEADER, KERNEL, MAGIC, Library
from xoar.messages.memory import Memory
from xoar.xen.box import Box


def no_unpack(block, target):
    raise ValueError("damaged LZ4 block")


def library(content):
    """A library with one image, its blocks stored as they are."""
    blocks = [content[i : i + BLOCK] for i in range(0, len(content), BLOCK)]
    stored = b"".join([struct.pack("<I", len(block)) for block in blocks] + blocks)
    offset = struct.calcsize(HEADER) + struct.calcsize(ENTRY)
    head = struct.pack(HEADER, MAGIC, 1, 0)
    head += struct.pack(ENTRY, bytes(32), b"linux", b"kernel", len(content), len(stored), offset)
    return Library(memoryview(head + stored), no_unpack)


def make_elf():
    note = struct.pack("<III", 4, 4, abi.XEN_ELFNOTE_PHYS32_ENTRY) + b"Xen\0" + struct.pack("<I", 0x200040)
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 176, 0, 0x200000, 4, 4096, 1)
    head += struct.pack("<IIQQQQQQ", 4, 5, 180, 0, 0, len(note), len(note), 1)
    return head + b"text" + note


def test_an_executable_is_parsed():
    found = elf.parse(library(make_elf()).named("linux", KERNEL))
    assert found.entry == 0x200040
    assert (found.start, found.end) == (0x200000, 0x201000)


def test_rubbish_is_refused():
    for content in (b"", b"\x7fELF" * 30, make_elf()[:100], bytes(BLOCK + 1)):
        try:
            elf.parse(library(content).images[0])
        except BuildError:
            continue
        raise AssertionError(content[:20])


def test_an_image_reads_across_blocks():
    content = bytes(range(256)) * (BLOCK // 256) + b"tail"
    assert library(content).images[0].read(BLOCK - 2, 5) == b"\xfe\xfftai"


def test_addresses_of_a_hole_in_a_pv_kernel_share_the_frame_before_it():
    base = 0xFFFFFFFF80000000
    notes = {abi.XEN_ELFNOTE_ENTRY: base, abi.XEN_ELFNOTE_VIRT_BASE: base}
    segments = [elf.Segment(0, 0, 0x1C00000, 0x1000), elf.Segment(0, 0, 0x1000000, 0x3000)]
    where = pv.layout(elf.Executable(0, segments, 0x1000000, 0x1C01000, notes), 65536, 10000)
    assert (where.hole, where.hole_end) == (0x1004, 0x1C00)
    frames = array("Q", b"\xff" * (8 * where.count))
    for frame in range(where.count):
        if not where.hole <= frame < where.hole_end:
            frames[frame] = 0x100000 + frame
    found = [entry >> 12 for index in range(3, 3 + where.low) for entry in pv.table(where, frames, index)]
    shared = [0x101003] * (where.hole_end - where.hole)
    below = list(range(0x100000, 0x101004))
    assert found[: where.end] == below + shared + list(range(0x101C00, 0x100000 + where.end))


def test_start_pages_and_acpi_tables_fit_their_frames():
    pages = start.pages(65536, "console=hvc0", [(0x400000, 10)], start.ACPI)
    assert [address for address, _ in pages] == [start.START_INFO, start.COMMAND_LINE]
    assert abi.hvm_start_info.get(pages[0][1], "magic") == abi.XEN_HVM_START_MAGIC_VALUE
    assert start.ACPI + len(acpi.tables(start.ACPI, 64)) <= 0x10000


def test_a_plan_is_read():
    read = plan.parse("shard a 1 4096 1 l a\nshard b 2 4096 1 l b\nlink a b b 2\nword b x=1\nlibrary b\n")
    assert read.links[0].server is read.shards[1]
    assert read.shards[1].words == ["x=1"] and read.library == [read.shards[1]]


class _Parts:
    """What Builder remembers, with these links of shards that are built on request."""

    def __init__(self, box, said):
        read = plan.parse("shard a 1 4096 1 l a\nlate b 7 4096 1 l b\ndriver net0 n 8 4096 1 l n 256\n")
        self.domains = Domains(read.shards, 32, 5)
        self.devices = Devices(read.drivers, [(0xC0000000, 0x10000)])
        self.delegation = Delegation({"b": 3})
        self.journal = Journal(lambda: 9, lambda line: None)
        parts = (self.domains, self.devices, self.delegation)
        links = {"b": (7, ()), "net0": (8, LINKS)}
        recalls = [
            lambda message: self.domains.recall(message, links),
            self.devices.recall,
            self.delegation.recall,
        ]
        remembers = [part.remember for part in parts]
        self.memory = Memory("builder", box, remembers, recalls, self.journal, said.append)


def test_what_is_in_the_box_is_known_in_the_next_life():
    box, said = Box(memoryview(bytearray(1 << 15))), []
    life = _Parts(box, said)
    assert life.memory.load() == 0
    record = Domain("", 6, "a", LINKS, b"u" * 16, 64, 1, "g")
    record.stage = THERE
    life.domains.records[life.domains.free([0, 1])] = record
    life.devices.claim("net0", 256, [(0xC0000000, 4096)])
    life.delegation.allow("net0", "b")
    life.journal.enter("a", "something", "done")
    life.memory.store()

    records = box.load()
    records.append(b"rubbish")
    box.store(records)
    other = _Parts(box, said)
    assert other.memory.load() == 7
    found = other.domains.records[32]
    assert (found.uuid, found.parent, found.stage, found.group) == (b"u" * 16, "a", THERE, "g")
    assert other.domains.free([0, 1, 32]) == 33
    assert other.devices.give("net0") == [(0xC0000000, 4096)]
    assert [entry.what for entry in other.journal.since(0, 5)[0]] == ["something"]
    assert len(said) == 1
