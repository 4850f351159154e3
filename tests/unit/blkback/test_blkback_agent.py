"""The agent with a real XenStore on a socket, and volumes that are only a table."""

import contextlib
import errno
import threading
import time

import pytest

from xoar.blkback import dm
from xoar.blkback.agent import Agent
from xoar.blkback.errors import DiskError, RequestError
from xoar.blkback.volumes import Pool, Volume
from xoar.host.xenstored import XenStored
from xoar.xenstore.linux import connect


class FakeVolumes:
    """Volumes with device numbers, open counts, and a disk that can go."""

    def __init__(self):
        self.table = {"root": Volume(4096, "", False), "data": Volume(8192, "root", False)}
        self.opened = {}
        self.used = 8  # KiB
        self.gone = False
        self.hold = threading.Event()
        self.hold.set()

    def pool(self):
        if self.gone:
            raise DiskError("data disk sda is gone")
        return Pool(1000, self.used, 100)

    def status(self, name):
        if name not in self.table:
            return None
        number = 10 + list(self.table).index(name)
        return dm.Status(254, number, self.opened.get(name, 0), f"{self.used * 2} -")

    def get(self, name):
        if name not in self.table:
            raise RequestError(errno.ENOENT, f"there is no volume {name}")
        return self.table[name]

    def create(self, name, size):
        self.hold.wait(10)
        if name == "bug":
            raise ZeroDivisionError
        self.table = {**self.table, name: Volume(size, "", False)}

    def delete(self, name):
        self.table = {key: value for key, value in self.table.items() if key != name}


class Bench:
    """An agent, and a Toolstack's view of the same XenStore."""

    def __init__(self, socket):
        self.volumes = FakeVolumes()
        self._socket = socket
        self.store = connect(socket)
        self._connections = contextlib.ExitStack()
        self._connections.enter_context(self.store)
        self.restart()

    def restart(self, failure=""):
        self.connection = self._connections.enter_context(connect(self._socket))
        self.agent = Agent(self.connection, None if failure else self.volumes, failure, lambda: None)
        self.agent.start()

    def turn(self):
        for _ in range(3):
            while (event := self.connection.next_event(0.01)) is not None:
                self.agent.event(*event)
            self.agent.turn()

    def attach(self, guest, volume, mode="w", **nodes):
        base = f"backend/vbd/{guest}/51712"
        values = {"online": "1", "state": "1", "mode": mode, "params": volume, **nodes}

        def body(transaction):
            for name, value in values.items():
                self.store.write(f"{base}/{name}", value, transaction)

        self.store.transaction(body)
        self.turn()
        return self.node(guest, "hotplug-status")

    def node(self, guest, name):
        return self.store.text(f"backend/vbd/{guest}/51712/{name}")

    def ask(self, number, line):
        self.store.write(f"requests/{number}", line)
        end = time.monotonic() + 5
        while (reply := self.reply(number)) is None or reply.startswith("progress"):
            self.turn()
            assert time.monotonic() < end
        return reply

    def reply(self, number):
        return self.store.text(f"service/replies/{number}")

    def volume(self, name):
        return self.store.text(f"service/volumes/{name}")

    def close(self):
        self._connections.close()


@pytest.fixture
def bench(tmp_path):
    server = XenStored(str(tmp_path / "xenstore"))
    ends = threading.Event()

    def run():
        while not ends.is_set():
            server.turn()

    thread = threading.Thread(target=run)
    thread.start()
    bench = Bench(str(tmp_path / "xenstore"))
    yield bench
    ends.set()
    bench.close()
    thread.join()
    server.close()


def test_a_ready_agent_shows_pool_and_volumes(bench):
    assert bench.store.text("service/state") == "ready"
    assert bench.store.text("service/pool") == "size_kib=1000 used_kib=8"
    assert bench.volume("data") == "size_kib=8192 used_kib=8 origin=root users=- state=ok"


def test_a_guest_gets_its_volume_by_device_number(bench):
    assert bench.attach(32, "root") == "connected"
    assert bench.node(32, "physical-device") == "fe:a"


def test_what_a_driver_says_of_a_device_is_not_asked_for(bench, monkeypatch):
    bench.attach(32, "root")
    bench.turn()
    asked = []
    request = bench.connection.request

    def counted(kind, payload, transaction=0):
        asked.append(payload)
        return request(kind, payload, transaction)

    monkeypatch.setattr(bench.connection, "request", counted)
    for name in ("state", "sectors", "feature-discard"):
        bench.store.write(f"backend/vbd/32/51712/{name}", "4")
        bench.turn()
    assert asked == [b"backend/vbd/32/51712/state\0"]


def test_what_volumes_take_is_measured_now_and_then_and_after_each_request(bench):
    bench.volumes.used = 16
    bench.agent._refreshed = 0.0
    bench.turn()
    assert "used_kib=8 " in bench.volume("root")
    assert bench.ask(1, "create new 4096") == "ok"
    assert "used_kib=16 " in bench.volume("root")
    assert bench.store.text("service/pool") == "size_kib=1000 used_kib=16"
    bench.volumes.used = 32
    bench.agent._refreshed = 0.0
    bench.agent._measured -= 31
    bench.turn()
    assert "used_kib=32 " in bench.volume("root")


def test_a_second_writer_is_refused_with_a_reason(bench):
    bench.attach(32, "root")
    assert bench.attach(33, "root") == "error"
    assert "in use for writing by domain 32" in bench.node(33, "hotplug-error")
    assert bench.node(33, "physical-device") is None


def test_readers_share(bench):
    assert bench.attach(32, "root", "r") == bench.attach(33, "root", "r") == "connected"
    assert bench.attach(34, "root", "w") == "error"


def test_a_volume_that_is_not_there_is_refused(bench):
    assert bench.attach(32, "nothing") == "error"
    assert bench.node(32, "hotplug-error") == "there is no volume nothing"


def test_a_volume_is_free_when_the_guest_has_gone(bench):
    bench.attach(32, "root")
    bench.store.rm("backend/vbd/32")
    assert bench.attach(33, "root") == "connected"


def test_a_guest_that_closes_its_device_keeps_it_while_it_is_online(bench):
    bench.attach(32, "root")
    bench.store.write("backend/vbd/32/51712/state", "6")
    assert bench.attach(33, "root") == "error"
    bench.store.write("backend/vbd/32/51712/online", "0")
    assert bench.attach(34, "root") == "connected"


def test_the_next_user_waits_until_the_last_ones_requests_have_ended(bench):
    bench.volumes.opened["root"] = 1
    assert bench.attach(32, "root") is None
    bench.volumes.opened["root"] = 0
    bench.turn()
    assert bench.node(32, "hotplug-status") == "connected"


def test_a_volume_in_use_is_not_deleted(bench):
    bench.attach(32, "root")
    assert bench.ask(1, "delete root") == f"error {errno.EBUSY} volume root is in use by domain 32"
    assert bench.ask(2, "delete data") == "ok"
    assert bench.volume("data") is None


def test_requests_are_done_in_order_and_shown_before_their_reply(bench):
    bench.volumes.hold.clear()
    bench.store.write("requests/9", "create b 4096")
    bench.store.write("requests/10", "create b2 4096")
    bench.turn()
    assert (bench.reply(9), bench.reply(10)) == ("progress 0", None)
    assert bench.attach(32, "root") == "connected"
    bench.volumes.hold.set()
    assert bench.ask(10, "create b2 4096") == "ok"
    assert bench.reply(9) == "ok"
    assert bench.volume("b") == "size_kib=4096 used_kib=8 origin=- users=- state=ok"


def test_a_reply_goes_with_its_request(bench):
    bench.ask(1, "create b 4096")
    bench.store.rm("requests/1")
    bench.turn()
    assert bench.reply(1) is None
    assert bench.ask(1, "nonsense").startswith(f"error {errno.EINVAL} ")


def test_a_bug_in_a_request_is_an_error_and_not_the_end(bench):
    assert bench.ask(1, "create bug 4").startswith(f"error {errno.EIO} ")
    assert bench.ask(2, "create b 4") == "ok"


def test_a_restarted_agent_keeps_attached_volumes_and_answers_what_was_cut_off(bench):
    bench.attach(32, "root")
    bench.ask(1, "create b 4096")
    bench.store.write("requests/2", "create c 4096")
    bench.store.write("service/replies/2", "progress 40")
    bench.restart()
    bench.turn()
    assert bench.reply(1) == "ok"
    assert bench.reply(2) == f"error {errno.EINTR} interrupted: BlkBack was restarted"
    assert bench.volume("root").split()[3] == "users=32"
    assert bench.attach(33, "root") == "error"


def test_a_lost_disk_fails_the_agent_and_it_goes_on(bench):
    bench.volumes.gone = True
    bench.ask(1, "create b 4")
    assert bench.store.text("service/state") == "failed"
    assert bench.store.text("service/note") == "data disk sda is gone"
    assert bench.ask(2, "create c 4") == f"error {errno.EIO} data disk sda is gone"
    assert bench.attach(32, "root") == "error"
    assert bench.volume("root").endswith("state=bad")


def test_without_a_disk_everything_is_refused(bench):
    bench.restart("no data disk")
    assert bench.store.text("service/state") == "failed"
    assert bench.ask(1, "create c 4") == f"error {errno.EIO} no data disk"
    assert bench.attach(32, "root") == "error"
