"""Guests and driver domains as the Toolstack's shard runs them, with the real XenStore, a willing Builder."""

from test_messages import shared_page

from xoar.messages.channel import Channel
from xoar.messages.codec import Decoder, encode
from xoar.shards.xenstore.store import records
from xoar.toolstack.mirror import Mirror
from xoar.toolstack.store import StoreLink
from xoar.toolstack.toolstack import HostToolstack
from xoar.xen.ring import xenstore_rings
from xoar.xenstore.client import Client
from xoar.xenstore.domains import Domains
from xoar.xenstore.quotas import quotas
from xoar.xenstore.ringlink import RingLink
from xoar.xenstore.server import Server

ME, PCIBACK, NET, BLK = 4, 5, 6, 7
SHARDS = {"pciback": PCIBACK, "net0": NET, "disk0": BLK}
WORDS = {"driver": ["net0:netback:6:24", "disk0:blkback:7:32"], "pciback": ["5"]}


class Host:
    def __init__(self, words=None):
        self.words = words or {}
        self.links = []
        self.now = 1000
        self.domains = []
        self.shelf = None
        self.store = Server(Domains(set()), quotas())
        self.domid = 31 if words else 4
        self.begin()

    def begin(self):
        page = shared_page()
        self.ring = RingLink(page, self.store, self.store.introduce(ME))
        writer, reader = xenstore_rings(page)
        self.client = StoreLink(Client(reader, writer, lambda: None, lambda: None), Mirror(lambda: 0))
        to_server, to_client = xenstore_rings(shared_page())
        self.link = Channel(to_client, to_server, lambda: None, "builder", "toolstack")
        self.fake = Channel(to_server, to_client, lambda: None, "toolstack", "builder")
        to_server, to_client = xenstore_rings(shared_page())
        self.console = Channel(to_client, to_server, lambda: None, "toolstack", "console")
        self.relay = Channel(to_server, to_client, lambda: None, "console", "toolstack")
        self.toolstack = HostToolstack(
            self.link,
            self.client,
            self.relay,
            lambda key: self.words.get(key, []),
            lambda: self.now,
            ME,
            lambda: b"",
            lambda text: None,
            shelf=self.shelf,
        )
        self.toolstack.begin()
        self.decoder = Decoder()

    def ask(self, kind, **fields):
        self.console.send("relay", 0, channel=1, data=encode(kind, 8, **fields))
        return self.run()

    def introduce(self, domid, uuid):
        self.store.introduce(domid, ME, records(domid, ME, uuid))

    def run(self):
        for _ in range(30):
            for message in self.fake.receive():
                if message.kind == "build":
                    self.domid += 1
                    self.introduce(self.domid, message.fields.uuid)
                    self.domains.append(self.domid)
                    places = {"store_gfn": 1, "store_port": 2, "console_gfn": 3, "console_port": 4}
                    self.fake.send("built", message.id, domid=self.domid, **places)
                elif message.kind == "domains":
                    self.list_domains(message.id)
                elif message.kind == "build_shard":
                    domid = SHARDS[message.fields.name]
                    self.introduce(domid, bytes(16))
                    places = {"store_gfn": 1, "store_port": 2, "console_gfn": 3, "console_port": 4}
                    self.fake.send("built", message.id, domid=domid, **places)
                else:
                    if message.kind == "plug":
                        device = message.fields
                        kind = device.device_kind.encode()
                        backend = SHARDS[device.driver]
                        self.store.make_back_end(device.domid, backend, kind, device.number)
                        self.links.append((device.domid, backend, kind, device.number))
                    elif message.kind == "destroy":
                        for link in self.links:
                            if link[0] == message.fields.domid:
                                self.store.remove_back_end(*link)
                        self.store.release(message.fields.domid)
                        if message.fields.domid in self.domains:
                            self.domains.remove(message.fields.domid)
                    self.fake.send("done", message.id)
            self.ring.serve()
            self.toolstack.turn()
            for message in self.console.receive():
                self.decoder.feed(message.fields.data)
        return self.decoder.next()

    def list_domains(self, id):
        rows = [(ME, "blocked", "none", 4, 4, 1, 0, 0, "toolstack", "", "")]
        for domid in self.domains:
            rows.append((domid, "running", "none", 4, 4, 1, 0, 0, "", "toolstack", ""))
        fields = {"total_kib": 0, "free_kib": 0, "now_ns": 1, "xen_version": "", "more": 0}
        self.fake.send("domain_list", id, domains=rows, **fields)

    def as_domain(self, domid):
        page = shared_page()
        link = RingLink(page, self.store, self.store.connect(domid))
        writer, reader = xenstore_rings(page)
        return Client(reader, writer, link.serve, link.serve)

    def create(self, name, disks=(), nics=(), group=""):
        fields = {"name": name, "uuid": (name * 16)[:16].encode(), "kernel": b"k" * 32, "ramdisk": bytes(32)}
        fields.update({"command_line": "", "memory_kib": 32768, "vcpus": 1, "group": group})
        fields.update({"disks": disks, "nics": nics})
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


def test_a_guest_with_devices_starts_once_driver_domains_serve_and_lets_go_of_them_at_its_end():
    host = Host(WORDS)
    host.run()
    for name in ("net0", "disk0"):
        host.fake.send("device", 0, driver=name, state="claimed", text="")
    host.run()
    net, blk = host.as_domain(NET), host.as_domain(BLK)
    net.write("/local/domain/6/service/state", "ready")
    blk.write("/local/domain/7/service/state", "ready")
    host.run()
    drivers = host.ask("driver_list", start=0).fields.drivers
    assert [(row.name, row.state) for row in drivers] == [("net0", "ready"), ("disk0", "ready")]
    network = ("lan", "net0", "nat", 0, "10.9.0.0/24", [(22, "10.9.0.2", 22)], "")
    assert host.ask("network_create", network=network).kind == "done"
    assert net.read("/local/domain/6/networks/lan/forwards") == b"tcp:22:10.9.0.2:22"
    nic = ("lan", bytes(range(0, 12, 2)), "10.9.0.2", 0)
    assert host.create("web", [("xvda", "disk0", "root", "w")], [nic]) is None
    backends = ((net, "/local/domain/6/backend/vif/32/0"), (blk, "/local/domain/7/backend/vbd/32/51712"))
    for agent, path in backends:
        agent.write(path + "/state", "4")
        agent.write(path + "/hotplug-status", "connected")
    assert host.run().fields.domid == 32
    guest = host.ask("guest_show", name="web").fields
    assert (guest.disks[0].state, guest.nics[0].state) == ("connected", "connected")
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert not blk.exists("/local/domain/7/backend/vbd/32")


def test_a_driver_domain_that_guests_of_a_group_wait_for_is_not_shared_with_another_group():
    host = Host(WORDS)
    network = ("lan", "net0", "bridge", 0, "", [], "")
    assert host.ask("network_create", network=network).kind == "done"
    nics = [("lan", bytes([0, 0, 0, 0, 0, number]), "", 0) for number in (1, 2, 3)]
    assert host.create("web", nics=nics[:1], group="red") is None
    error = host.create("mail", nics=nics[1:2], group="blue").fields
    text = "net0 serves guest web of group red; guests of group blue need another netback, or this one"
    assert (error.errno, error.text) == (16, text + " free of others")
    assert host.create("mail", nics=nics[1:2], group="red") is None
    assert host.create("news", nics=nics[2:]).fields.errno == 16


def test_a_volume_is_made_by_its_agent():
    host = Host(WORDS)
    host.run()
    host.fake.send("device", 0, driver="disk0", state="claimed", text="")
    host.run()
    agent, home = host.as_domain(BLK), "/local/domain/7/"
    agent.write(home + "service/state", "ready")
    host.run()
    fields = {"driver": "disk0", "action": "import", "name": "root", "source": "", "size_kib": 8, "offset": 1}
    fields.update({"length": 2, "format": "raw", "sha256": bytes(32)})
    assert host.ask("volume_change", **fields) is None
    assert agent.read(home + "requests/1") == b"import root raw 1 2 8 " + b"00" * 32
    agent.write(home + "service/volumes/root", "size_kib=8 used_kib=0 origin=- users=- state=ok")
    agent.write(home + "service/replies/1", "ok length=2 sha256=" + "0f" * 32)
    assert host.run().fields.sha256 == b"\x0f" * 32
    assert host.ask("volume_list", start=0).fields.volumes[0].size_kib == 8


class Shelf:
    room = 100000

    def __init__(self):
        self.records = []

    def load(self):
        return self.records

    def store(self, records):
        self.records = records


def test_guests_of_the_last_life_are_managed_by_the_next_one():
    host = Host()
    host.shelf = Shelf()
    host.begin()
    assert not host.toolstack.idle
    assert host.create("web").fields.domid == 5
    assert host.create("mail").fields.domid == 6
    assert host.ask("guest_destroy", name="mail").kind == "done"
    host.fake.send("stopped", 0, domid=5, reason="reboot")
    host.run()
    before = host.ask("guest_show", name="web").fields
    assert len(host.shelf.records) == 2
    host.shelf.records.append(b"\0" * 30)
    host.begin()
    host.run()
    after = host.ask("guest_show", name="web").fields
    assert after == before and after.previous_domid == 5 and after.state == "running"
    assert host.ask("guest_show", name="mail").fields.note == "destroyed by the operator"
    assert host.toolstack.idle and len(host.shelf.records) == 2
    assert host.ask("guest_destroy", name="web").kind == "done"
    assert host.ask("guest_list", start=0).fields.guests == []
