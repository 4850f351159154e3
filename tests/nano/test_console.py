"""The Console's core as its shard runs it: introductions, a console, a log, a guest that writes rubbish."""

from test_messages import shared_page

from xoar.messages.channel import Channel
from xoar.messages.line import LineClient
from xoar.shards.console.console import Console
from xoar.shards.console.links import Link
from xoar.shards.console.memory import ConsoleMemory
from xoar.xen.box import Box
from xoar.xen.copied import CONSOLE, MESSAGES, Copied
from xoar.xen.ring import console_rings, xenstore_rings


class Copies:
    """A guest's page, which is copied to the Console's buffer and back."""

    def __init__(self, buffer):
        self.page = shared_page()
        self.buffer = buffer

    def fetch(self):
        self.buffer.bytes[:] = self.page.bytes

    def store(self, runs):
        for offset, length in runs:
            self.page.bytes[offset : offset + length] = self.buffer.bytes[offset : offset + length]


class Port:
    port = 9

    def notify(self):
        pass

    def close(self):
        pass


class Host:
    def __init__(self):
        self.buffer, self.pages = shared_page(), {}
        self.guest = self.copies(9).page
        self.to_guest, self.from_guest = console_rings(self.guest)
        self.reports = []
        self.kept = memoryview(bytearray(4 * 2008 + 60000))
        self.begin()
        to_server, to_client = xenstore_rings(self.pages[3].page)
        self.builder = Channel(to_client, to_server, lambda: None, "console", "builder")
        self.console.line.greet()
        self.operator = LineClient()
        self.operator.hello(1)
        self.run()

    def copies(self, domid, buffer=None):
        if domid not in self.pages:
            self.pages[domid] = Copies(buffer)
        self.pages[domid].buffer = self.buffer if buffer is None else buffer
        return self.pages[domid]

    def begin(self):
        slots = [self.kept[i * 2008 : (i + 1) * 2008] for i in range(4)]
        self.console = Console(self.connect, self.reach, slots, None, None, self.reports.append)
        self.console.builder(3, 2, 1)
        self.console.toolstack("toolstack", 4, 2, 1)
        self.memory = ConsoleMemory(self.console, Box(self.kept[4 * 2008 :]), self.reports.append)

    def roll_back(self):
        assert self.memory.store(True)
        self.begin()
        self.memory.load(True)

    def reach(self, domid, gref, port, peer):
        buffer = shared_page()
        end = Copied(buffer, MESSAGES, self.copies(domid, buffer), Port())
        channel = Channel(end.to_server, end.to_client, lambda: None, peer, "console", self.reports.append)
        return Link(domid, end, channel)

    def connect(self, domid, gref, port):
        if gref:
            raise OSError(13, "no such grant")
        return Copied(self.buffer, CONSOLE, self.copies(9), Port())

    def ask(self, kind, **fields):
        if kind == "introduce":
            fields = dict(fields, link="console", name="", parent=4, uuid=bytes(16))
        self.builder.send(kind, 3, **fields)
        self.turn(b"")
        return self.builder.receive()[0]

    def turn(self, data):
        self.console.fired(None)
        self.console.turn(data)
        self.console.go_on()

    def run(self):
        events = []
        for _ in range(10):
            self.turn(self.operator.take(500))
            events += self.operator.feed(self.console.line.take(4000))
        return [(event.kind, event.data) for event in events]


def test_a_console_carries_both_directions():
    host = Host()
    assert host.ask("introduce", domid=5, gref=0, port=1).kind == "done"
    channel = host.operator.open("console", "5")
    host.run()
    host.operator.write(channel, b"root\n")
    host.from_guest.write(b"login: ")
    assert host.run() == [("data", b"login: ")]
    assert host.to_guest.read(100) == b"root\n"


def test_a_life_goes_on_with_what_is_on_its_way():
    host = Host()
    host.ask("introduce", domid=5, gref=0, port=1)
    channel = host.operator.open("console", "5")
    host.run()
    host.operator.write(channel, b"root\n")
    data = host.operator.take(500)
    host.turn(data[:9])
    host.from_guest.write(b"login: ")
    host.turn(data[9:12])
    host.roll_back()
    host.turn(data[12:])
    host.roll_back()
    assert host.run() == [("data", b"login: ")]
    host.roll_back()
    host.from_guest.write(b"password: ")
    assert host.run() == [("data", b"password: ")]
    assert host.to_guest.read(100) == b"root\n"
    assert host.reports == []


def test_refused_introductions_are_answered():
    host = Host()
    reply = host.ask("introduce", domid=5, gref=7, port=1)
    assert reply.kind == "error" and reply.fields.errno == 13
    assert host.ask("release", domid=5).kind == "error"


def test_a_broken_ring_ends_one_console_and_its_log_remains():
    host = Host()
    host.ask("introduce", domid=5, gref=0, port=1)
    host.from_guest.write(b"last words")
    host.run()
    host.guest.words[3084 // 4] = 0x80000000
    host.run()
    assert len(host.reports) == 1
    assert host.ask("release", domid=5).kind == "done"
    host.operator.open("log", "5")
    kinds = host.run()
    assert kinds[1][1].startswith(b"last words\r\n[xoar: console of domain 5 stopped")
    assert kinds[-1] == ("closed", "")
