"""A guest whose disk and network card are driven badly, on command.

Commands: `<vbd|vif> rubbish`: entries and indices of noise; `<vbd|vif> absent`: requests for grants that do
not exist; `vbd writing`: sound writes without end, so that the domain ends while they are on their way.
Layouts: xen/include/public/io/blkif.h, netif.h, ring.h.
"""

import struct
from array import array

from pv_console import PvConsole, param

import nano
from xoar.abi import xen as abi
from xoar.builder.start import link_frame
from xoar.xen import events, frames, hypercall
from xoar.xen.pages import own_page
from xoar.xen.ring import PAGE_SIZE, xenstore_rings
from xoar.xenstore.client import Client

_GRANT_TABLE = 1  # XENMAPSPACE_grant_table
_REQ_PROD, _RSP_PROD = 0, 2  # words of a ring's head
_HEAD = 64
_WRITE = 1  # BLKIF_OP_WRITE
_INIT_WAIT = "2"
_ABSENT = 400  # the first of the grant references that are never given


class Grants:
    """Pages of this domain for others."""

    def __init__(self):
        frame = frames.take()
        request = abi.add_to_physmap_batch.new(
            domid=abi.DOMID_SELF,
            space=_GRANT_TABLE,
            size=1,
            idxs=nano.address(memoryview(array("Q", [0]))),
            gpfns=nano.address(memoryview(array("Q", [frame]))),
            errs=nano.address(memoryview(array("i", [0]))),
        )
        hypercall.memory_op("map the grant table", abi.XENMEM_add_to_physmap_batch, request)
        self._entries = nano.memory(frame * PAGE_SIZE, PAGE_SIZE)
        self._next = 8  # after the reserved ones
        self._kept = []

    def page(self, domid):
        """A new page that a domain may map: its grant reference, and its views."""
        buffer = bytearray(2 * PAGE_SIZE)
        self._kept.append(buffer)
        frame = (nano.address(buffer) + PAGE_SIZE - 1) // PAGE_SIZE
        entry = abi.grant_entry_v1
        reference = self._next
        self._next += 1
        entry.set(self._entries, "frame", frame, reference * entry.size)
        entry.set(self._entries, "domid", domid, reference * entry.size)
        entry.set(self._entries, "flags", abi.GTF_permit_access, reference * entry.size)
        return reference, own_page(frame)


class Device:
    """One device of this domain, connected to its backend with rings of ours."""

    def __init__(self, store, grants, kind, rings, nodes, state):
        (number,) = store.directory("device/" + kind)
        self.home = f"device/{kind}/{number}/"
        backend = store.read(self.home + "backend").decode()
        self.domid = int(store.read(self.home + "backend-id"))
        while store.read(backend + "/state").decode() != _INIT_WAIT:
            events.wait(nano.now() + 10000000)
        self.port = events.allocate(abi.DOMID_SELF, self.domid)
        self.rings = []
        for name in rings:
            reference, page = grants.page(self.domid)
            page.words[1] = page.words[3] = 1  # req_event, rsp_event
            self.rings.append(page)
            store.write(self.home + name, str(reference))
        for name, value in nodes:
            store.write(self.home + name, value)
        store.write(self.home + "event-channel", str(self.port))
        store.write(self.home + "state", str(state))
        while store.read(backend + "/state").decode() != "4":
            events.wait(nano.now() + 10000000)

    def submit(self, page, count):
        """Makes the backend look at `count` more entries."""
        page.words[_REQ_PROD] = (page.words[_REQ_PROD] + count) & 0xFFFFFFFF
        events.notify(self.port)
        events.wait(nano.now() + 1000000)


def vbd(store, grants):
    nodes = (("protocol", "x86_64-abi"),)
    return Device(store, grants, "vbd", ("ring-ref",), nodes, abi.XenbusStateInitialised)


def vif(store, grants):
    nodes = (("request-rx-copy", "1"), ("feature-rx-notify", "1"))
    return Device(store, grants, "vif", ("tx-ring-ref", "rx-ring-ref"), nodes, abi.XenbusStateConnected)


def disk_request(page, index, reference):
    """A write of one page at the volume's beginning."""
    at = _HEAD + index % 32 * 112
    struct.pack_into("<BBHIQQIBB", page.bytes, at, _WRITE, 1, 0, 0, index, 0, reference, 0, 7)


def packet_request(page, index, reference):
    """A packet of 100 bytes."""
    struct.pack_into("<IHHHH", page.bytes, _HEAD + index % 256 * 12, reference, 0, 0, index % 256, 100)


def noise(page, start):
    """Fills a page with noise from a place on."""
    seed = nano.now()
    for i in range(start, PAGE_SIZE):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        page.bytes[i] = seed >> 16 & 0xFF


def rubbish(device):
    """First entries of noise under sound indices, then indices of noise."""
    for page in device.rings:
        for _ in range(20):
            noise(page, _HEAD)
            device.submit(page, 8)
    for page in device.rings:
        for _ in range(20):
            noise(page, 0)
            events.notify(device.port)
            events.wait(nano.now() + 1000000)


def absent(device, request):
    """Requests for grants that do not exist; how many of them were answered."""
    page = device.rings[0]
    for i in range(16):
        request(page, i, _ABSENT + i)
    device.submit(page, 16)
    deadline = nano.now() + 20000000000
    while page.words[_RSP_PROD] < 16 and nano.now() < deadline:
        events.wait(nano.now() + 10000000)
    return page.words[_RSP_PROD]


def writing(device, reference):
    """Sound writes; 32 of them are always on their way."""
    page, index = device.rings[0], 0
    while True:
        while index - page.words[_RSP_PROD] < 32:
            disk_request(page, index, reference)
            index += 1
        page.words[_REQ_PROD] = index
        events.notify(device.port)
        events.wait(nano.now() + 1000000)


def main():
    console = PvConsole()
    page, port = own_page(link_frame(abi.GNTTAB_RESERVED_XENSTORE)), param(abi.HVM_PARAM_STORE_EVTCHN)
    writer, reader = xenstore_rings(page)
    store = Client(reader, writer, lambda: events.notify(port), lambda: events.wait(nano.now() + 1000000))
    grants = Grants()
    console.write("frontend ready")
    while True:
        words = console.line().split()
        if len(words) != 2:
            continue
        kind, deed = words
        device = vbd(store, grants) if kind == "vbd" else vif(store, grants)
        if deed == "rubbish":
            rubbish(device)
            console.write("rubbish written")
        elif deed == "absent":
            request = disk_request if kind == "vbd" else packet_request
            console.write(f"{absent(device, request)} answered")
        elif deed == "writing":
            console.write("writing")
            writing(device, grants.page(device.domid)[0])
