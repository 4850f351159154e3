"""A guest's life as the Toolstack's shard runs it, with the real XenStore and a Builder that says yes."""

from test_messages import shared_page

from xoar.messages.channel import Channel
from xoar.messages.codec import Decoder, encode
from xoar.toolstack.store import StoreLink
from xoar.toolstack.toolstack import Toolstack
from xoar.xen.ring import xenstore_rings
from xoar.xenstore.client import Client
from xoar.xenstore.domains import Domains
from xoar.xenstore.quotas import quotas
from xoar.xenstore.ringlink import RingLink
from xoar.xenstore.server import Server

ME = 4


class Host:
    def __init__(self):
        self.now = 1000
        self.store = Server(Domains({ME}), quotas())
        page = shared_page()
        self.ring = RingLink(page, self.store, self.store.introduce(ME))
        writer, reader = xenstore_rings(page)
        self.client = StoreLink(Client(reader, writer, lambda: None, lambda: None))
        to_server, to_client = xenstore_rings(shared_page())
        self.link = Channel(to_client, to_server, lambda: None, "builder", "toolstack")
        self.fake = Channel(to_server, to_client, lambda: None, "toolstack", "builder")
        self.domid = 4
        to_server, to_client = xenstore_rings(shared_page())
        self.console = Channel(to_client, to_server, lambda: None, "toolstack", "console")
        self.relay = Channel(to_server, to_client, lambda: None, "console", "toolstack")
        self.toolstack = Toolstack(
            self.link, self.client, [self.relay], lambda key: [], lambda: self.now, ME, lambda text: None
        )
        self.decoder = Decoder()

    def ask(self, kind, **fields):
        self.console.send("relay", 0, channel=1, data=encode(kind, 8, **fields))
        return self.run()

    def run(self):
        for _ in range(30):
            for message in self.fake.receive():
                if message.kind == "build":
                    self.domid += 1
                    self.store.introduce(self.domid)
                    places = {"store_gfn": 1, "store_port": 2, "console_gfn": 3, "console_port": 4}
                    self.fake.send("built", message.id, domid=self.domid, **places)
                else:
                    self.fake.send("done", message.id)
            self.ring.serve()
            self.toolstack.turn()
            for message in self.console.receive():
                self.decoder.feed(message.fields.data)
        return self.decoder.next()

    def create(self, name):
        fields = {"name": name, "uuid": b"u" * 16, "kernel": b"k" * 32, "ramdisk": bytes(32)}
        fields.update({"command_line": "", "memory_kib": 32768, "vcpus": 1, "disks": [], "nics": []})
        return self.ask("guest_create", on_reboot="restart", on_crash="keep", **fields)


def test_a_guest_is_created_comes_back_after_its_reboot_and_is_destroyed():
    host = Host()
    assert host.create("web").fields.domid == 5
    host.fake.send("stopped", 0, domid=5, reason="reboot")
    host.run()
    guest = host.ask("guest_show", name="web").fields
    assert (guest.domid, guest.previous_domid, guest.state) == (6, 5, "running")
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.ask("guest_list", start=0).fields.guests == []


def test_a_shutdown_that_is_ignored_is_refused_in_time():
    host = Host()
    host.create("web")
    assert host.ask("guest_shutdown", name="web", timeout_ms=50) is None
    host.now += 50
    assert host.run().fields.errno == 110


def test_a_second_guest_of_the_same_name_is_refused():
    host = Host()
    host.create("web")
    assert host.create("web").fields.text == "there is a guest web already"
