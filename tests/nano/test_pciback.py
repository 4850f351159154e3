"""PCIBack serves a driver domain through all its lives, with a XenStore and devices of this process."""

import struct

from simulated_pci import NIC, Xen, machine, nic
from test_xenstore import Machine as StoreMachine
from test_xenstore import Transport, events, guest, shared_page

from xoar.shards.pciback.driver import CONNECTED, FAILED, OFFERED, PREPARING, READY, Driver

PCIBACK, DOMID = 5, 6
FRONTEND = "/local/domain/6/device/pci/0"
BACKEND = "/local/domain/5/backend/pci/6/0"


class Host:
    """What a Driver needs, and the Toolstack's and driver domain's side of it."""

    def __init__(self, card=None):
        self.card = card or nic()
        self.window = machine(self.card).window
        self.interrupts = Xen()
        self.domid = PCIBACK
        self.time = 1000
        self.told = []
        self.transport = None
        self.store_machine = StoreMachine()
        self.toolstack = self.store_machine.add(4)
        self.store = guest(self.store_machine, self.toolstack, PCIBACK)
        self.front = None
        self.driver = Driver(self, "nic", DOMID, NIC)
        self.store.watch(FRONTEND, "nic")
        self.turn()

    def now_ms(self):
        return self.time

    def xen(self, domid, bdf):
        assert (domid, bdf) == (DOMID, NIC)
        return self.interrupts

    def connect(self, domid, gref, port):
        if gref != 8:
            raise OSError(13, "no such grant")
        self.transport = Transport(shared_page(), port)
        return self.transport

    def claim(self, driver, bdf, windows):
        self.told.append(("claim", driver, bdf, len(windows)))

    def fault(self, driver, text):
        self.told.append(("fault", driver, text))

    def report(self, text):
        self.told.append(("report", text))

    def turn(self, ms=0):
        """What main does when something has happened, after `ms`."""
        self.time += ms
        for _, token in events(self.store):
            assert token == "nic"
            self.driver.changed()
        self.driver.serve()
        self.driver.advance()

    def run(self):
        """Lets the time pass that a preparation takes."""
        while self.driver.phase == PREPARING:
            self.turn(max(self.driver.due_ms - self.time, 0))

    def tell(self):
        told, self.told = self.told, []
        return told

    def build_domain(self):
        """The Toolstack's records of a new driver domain, as docs/devices.md has them."""
        self.front = guest(self.store_machine, self.toolstack, DOMID)
        self.toolstack.mkdir(FRONTEND)
        self.toolstack.set_perms(FRONTEND, ["n6", "r5"])
        self.toolstack.write(FRONTEND + "/backend", BACKEND)
        self.toolstack.write(FRONTEND + "/state", "1")
        self.turn()

    def destroy_domain(self):
        self.store_machine.store.server.release(DOMID)
        self.toolstack.rm("/local/domain/6")
        self.turn()

    def start_frontend(self, gref="8", magic="7"):
        for key, value in (("pci-op-ref", gref), ("event-channel", "3"), ("magic", magic), ("state", "3")):
            self.front.write(FRONTEND + "/" + key, value)
        self.turn()

    def ask(self, command, offset=0, size=0, value=0):
        words = self.transport.page.words
        for position, word in ((1, command), (3, 0), (4, 0), (5, 0), (6, offset), (7, size), (8, value)):
            words[position] = word
        words[0] = 1
        self.turn()
        assert words[0] == 0
        return words[2], words[8]


def connected():
    host = Host()
    host.run()
    host.build_domain()
    host.start_frontend()
    assert host.driver.phase == CONNECTED
    return host


def test_a_device_is_claimed_once_it_is_prepared():
    host = Host()
    assert host.driver.phase == PREPARING
    assert host.tell() == []
    host.run()
    assert host.driver.phase == READY
    assert host.tell() == [("claim", "nic", NIC, 2)]
    assert host.driver.due_ms is None


def test_a_device_that_is_not_there_is_a_fault():
    card = nic()
    card.put(0, 2, 0xFFFF)
    host = Host(card)
    host.run()
    assert host.driver.phase == FAILED
    assert host.tell() == [("fault", "nic", "there is no device at 0000:01:00.0")]


def test_the_backend_is_offered_when_the_frontend_is_there():
    host = Host()
    host.run()
    assert not host.store.exists(BACKEND)
    host.build_domain()
    assert host.driver.phase == OFFERED
    written = {key: host.front.read(BACKEND + "/" + key) for key in host.front.directory(BACKEND)}
    assert written == {
        "frontend": FRONTEND.encode(),
        "frontend-id": b"6",
        "online": b"1",
        "num_devs": b"1",
        "dev-0": b"0000:01:00.0",
        "vdev-0": b"0000:00:00.0",
        "state-0": b"3",
        "root_num": b"1",
        "root-0": b"0000:00",
        "state": b"3",
    }


def test_a_frontend_that_comes_early_is_served_when_the_device_is_prepared():
    host = Host()
    host.build_domain()
    host.start_frontend()
    assert host.driver.phase == PREPARING
    host.run()
    assert host.driver.phase == CONNECTED
    assert host.front.read(BACKEND + "/state") == b"4"


def test_operations_are_answered():
    host = connected()
    assert host.ask(0, 0, 4) == (0, 0x10D38086)
    assert host.transport.signals == 1
    host.transport.page.words[10] = 2 << 16
    assert host.ask(4, value=1) == (0, 0)
    assert list(host.interrupts.mapped.values()) == [(2, 0xFEA00000)]
    assert host.transport.page.words[10] == 2 << 16 | 33
    assert host.ask(3) == (0, 0)
    assert host.interrupts.mapped == {}
    assert host.ask(6)[0] == struct.unpack("<I", struct.pack("<i", -4))[0]


def test_the_device_of_a_domain_that_is_gone_is_reset_and_claimed_anew():
    host = connected()
    host.transport.page.words[10] = 0
    host.ask(4, value=1)
    host.tell()
    host.destroy_domain()
    assert host.driver.phase == PREPARING
    assert host.transport.closed
    assert host.interrupts.mapped == {}
    host.run()
    assert host.card.resets == 2
    assert host.tell() == [("claim", "nic", NIC, 2)]
    assert not host.store.exists(BACKEND)
    host.build_domain()
    host.start_frontend()
    assert host.driver.phase == CONNECTED
    assert host.ask(0, 0, 4) == (0, 0x10D38086)


def test_interrupts_that_cannot_be_taken_back_are_a_fault():
    host = connected()
    host.ask(4, value=1)
    host.tell()
    host.interrupts.kept = 13
    host.front.write(FRONTEND + "/state", "1")
    host.turn()
    assert host.tell() == [("fault", "nic", "its interrupts can't be taken back: kept")]
    assert host.driver.phase == FAILED
    # with their domain they go, too
    host.interrupts.kept = 3
    host.destroy_domain()
    host.run()
    assert host.tell() == [("claim", "nic", NIC, 2)]


def test_a_domain_that_vanishes_before_it_was_seen_has_its_device_claimed_anew():
    host = Host()
    host.run()
    host.tell()
    host.build_domain()
    assert host.driver.phase == OFFERED
    host.destroy_domain()
    host.run()
    assert host.tell() == [("claim", "nic", NIC, 2)]


def test_a_frontend_that_starts_again_gets_a_reset_device():
    host = connected()
    host.front.write(FRONTEND + "/state", "1")
    host.turn()
    assert host.driver.phase == PREPARING
    host.run()
    assert host.card.resets == 2
    assert host.driver.phase == OFFERED
    host.start_frontend()
    assert host.driver.phase == CONNECTED


def test_a_domain_cannot_have_its_device_reset_more_often_than_once_a_second():
    host = connected()
    started = host.time
    for _ in range(10):
        host.front.write(FRONTEND + "/state", "1")
        host.turn()
        host.run()
        host.start_frontend()
    assert host.card.resets <= 2 + (host.time - started) // 1000


def test_a_frontend_that_closes_keeps_what_it_has():
    host = connected()
    for state in ("5", "6", "", "-1", "99999999999", "x"):
        host.front.write(FRONTEND + "/state", state)
        host.turn()
    assert host.driver.phase == CONNECTED
    assert host.front.read(BACKEND + "/state") == b"4"


def test_nonsense_of_a_frontend_is_reported_a_few_times_and_nothing_else():
    host = Host()
    host.run()
    host.build_domain()
    host.tell()
    for gref, magic in (
        ("9", "7"),
        ("", "7"),
        ("8" * 30, "7"),
        ("8", "6"),
        ("x", "7"),
        ("-8", "7"),
        ("9", "7"),
    ):
        host.start_frontend(gref, magic)
        assert host.driver.phase == OFFERED
    assert len([entry for entry in host.tell() if entry[0] == "report"]) == 5
    host.start_frontend()
    assert host.driver.phase == CONNECTED


def test_a_bug_in_the_preparation_is_a_fault():
    host = Host()
    host.card.write = None
    host.run()
    assert host.driver.phase == FAILED
    assert host.tell()[0][2].startswith("a bug")
