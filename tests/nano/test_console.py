"""The Console's core as its shard runs it: introductions, a console, a log, a guest that writes rubbish."""

from test_messages import shared_page

from xoar.messages.channel import Channel
from xoar.messages.line import LineClient
from xoar.shards.console.console import Console
from xoar.xen.ring import console_rings, xenstore_rings


class Guest:
    def __init__(self):
        self.page = shared_page()
        self.to_guest, self.from_guest = console_rings(self.page)
        self.port = 9

    def notify(self):
        pass

    def close(self):
        pass


class Host:
    def __init__(self):
        self.guest = Guest()
        to_server, to_client = xenstore_rings(shared_page())
        self.reports = []
        self.channel = Channel(to_server, to_client, lambda: None, "toolstack", "console")
        self.console = Console(
            self.connect, lambda domid, gref, port, peer: self, None, None, self.reports.append
        )
        self.console.toolstack("toolstack", 4, 2, 1)
        to_server, to_client = xenstore_rings(shared_page())
        self.builder = Channel(to_client, to_server, lambda: None, "console", "builder")
        self.served = Channel(to_server, to_client, lambda: None, "builder", "console")
        self.operator = LineClient()
        self.operator.hello(1)
        self.run()

    def connect(self, domid, gref, port):
        if gref:
            raise OSError(13, "no such grant")
        return self.guest

    def ask(self, kind, **fields):
        if kind == "introduce":
            fields = dict(fields, link="console", name="", parent=4, uuid=bytes(16))
        self.builder.send(kind, 3, **fields)
        for message in self.served.receive():
            self.console.introduction(self.served, message)
        return self.builder.receive()[0]

    def run(self):
        events = []
        for _ in range(10):
            self.console.domains.fired([9])
            self.console.receive(self.operator.take(500))
            self.console.turn()
            events += self.operator.feed(self.console.line.take(4000))
        return [(event.kind, event.data) for event in events]


def test_a_console_carries_both_directions():
    host = Host()
    assert host.ask("introduce", domid=5, gref=0, port=1).kind == "done"
    channel = host.operator.open("console", "5")
    host.run()
    host.operator.write(channel, b"root\n")
    host.guest.from_guest.write(b"login: ")
    assert host.run() == [("data", b"login: ")]
    assert host.guest.to_guest.read(100) == b"root\n"


def test_refused_introductions_are_answered():
    host = Host()
    reply = host.ask("introduce", domid=5, gref=7, port=1)
    assert reply.kind == "error" and reply.fields.errno == 13
    assert host.ask("release", domid=5).kind == "error"


def test_a_broken_ring_ends_one_console_and_its_log_remains():
    host = Host()
    host.ask("introduce", domid=5, gref=0, port=1)
    host.guest.from_guest.write(b"last words")
    host.run()
    host.guest.page.words[3084 // 4] = 0x80000000
    host.run()
    assert len(host.reports) == 1
    assert host.ask("release", domid=5).kind == "done"
    host.operator.open("log", "5")
    kinds = host.run()
    assert kinds[1][1].startswith(b"last words\r\n[xoar: console of domain 5 stopped")
    assert kinds[-1] == ("closed", "")
