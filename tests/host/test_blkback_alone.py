"""BlkBack's image without Xen: its agent, LVM and Linux in a machine with a disk controller of its own.

The agent's way to XenStore is a serial port, whose other end is our server; the test plays the Toolstack.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xoar.host import cpio, emulator, loader
from xoar.host.apt import Apt
from xoar.host.build import driver
from xoar.host.progress import Reporter
from xoar.host.xenstored import XenStored
from xoar.xenstore.linux import connect

MIB = 1 << 20
POOL = 128 * MIB
EXCHANGE = 256 * MIB
DATA = 1 * MIB  # where data on the exchange disk starts
BACK = 200 * MIB  # where exports go to
DEADLINE = 120

# Instead of busybox's init, an agent that finds XenStore on the second serial port
_INIT = """#!/bin/busybox sh
export START='sh /etc/rc 2>/dev/null; busybox stty -F /dev/ttyS1 raw -echo
while true; do
    python3 -ISB -c "from xoar.blkback.agent import serve; serve(\\"/dev/ttyS1\\")"
    busybox sleep 1
done'
/bin/busybox sed 's|/root /sbin/init|/root /bin/busybox sh -c "$START"|' /init >/changed
. /changed
"""


class Machine:
    """A machine with an AHCI controller and two disks; `start` and `kill` it as often as you like."""

    def __init__(self, folder: Path, images: driver.Images, log: Path) -> None:
        self.data, self.exchange, self._socket = folder / "data", folder / "exchange", folder / "xenstore"
        self._initramfs = folder / "initramfs"
        extra = cpio.archive([cpio.file("test-init", _INIT.encode(), 0o755)])
        self._initramfs.write_bytes(images.rootfs.read_bytes() + extra)
        self._kernel = images.kernel
        self._log = log
        self._number = 0
        for path, size in ((self.data, POOL + 32 * MIB), (self.exchange, EXCHANGE)):
            with open(path, "wb") as file:
                file.truncate(size)
        self.put(b"XOAR-EXCHANGE 1\n", 0)
        self._server = XenStored(str(self._socket))
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.store = connect(str(self._socket))

    def start(self) -> None:
        """Starts the machine and waits until the agent is ready."""
        for path in ("service", "requests", "backend"):
            self.store.rm(path)
        qemu = emulator.find(Apt(Reporter()), Reporter())
        disks = [
            word
            for port, path in enumerate((self.data, self.exchange))
            for word in ("-drive", f"file={path},format=raw,if=none,id=disk{port},discard=unmap",
                         "-device", f"ide-hd,drive=disk{port},bus=ahci.{port}")
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [
                *qemu.argv, "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-m", "160", "-smp", "1",
                "-nodefaults", "-display", "none", "-no-reboot", "-device", "ich9-ahci,id=ahci", *disks,
                "-kernel", self._kernel, "-initrd", self._initramfs,
                "-append", "console=ttyS0 quiet panic=-1 rdinit=/test-init",
                "-chardev", f"file,id=log,path={self._log},append=on", "-serial", "chardev:log",
                "-chardev", f"socket,id=store,path={self._socket}", "-serial", "chardev:store",
            ],
            stdin=subprocess.DEVNULL,
            env=os.environ | qemu.environment,
        )  # fmt: skip
        assert self.wait("service/state", "ready|failed") == "ready", self.store.text("service/note")

    def kill(self) -> None:
        """Ends the machine as a loss of power would."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._ends.set()
        self.store.close()
        self._thread.join()
        self._server.close()

    def wait(self, path: str, pattern: str) -> str:
        """The value of a node, once it begins with a pattern."""
        end = time.monotonic() + DEADLINE
        while True:
            value = self.store.text(path) or ""
            if re.match(pattern, value):
                return value
            assert self._process.poll() is None and time.monotonic() < end, f"{path} is {value!r}"
            time.sleep(0.05)

    def begin(self, line: str, base: str = "") -> str:
        """Makes a request, of a tenant if its nodes begin with `base`; where the reply will be."""
        self._number += 1
        self.store.write(f"{base}requests/{self._number}", line)
        return f"{base}service/replies/{self._number}"

    def ask(self, line: str, base: str = "") -> str:
        """The final reply to a request."""
        return self.wait(self.begin(line, base), "ok|error")

    def put(self, image: bytes, at: int = DATA) -> str:
        """Puts an image on the exchange disk; offset and length, then the SHA-256 as in a request."""
        with open(self.exchange, "r+b") as file:
            file.seek(at)
            file.write(image)
        return hashlib.sha256(image).hexdigest()

    def exported(self, volume: str) -> bytes:
        """What is in a volume."""
        reply = self.ask(f"export {volume} {BACK} {EXCHANGE - BACK}")
        found = re.fullmatch(r"ok length=(\d+) sha256=(\w+)", reply)
        assert found, reply
        with open(self.exchange, "rb") as file:
            file.seek(BACK)
            data = file.read(int(found[1]))
        assert hashlib.sha256(data).hexdigest() == found[2]
        return data

    def volume(self, name: str, base: str = "") -> dict[str, str]:
        """What the agent says of a volume; empty if there is none."""
        text = self.store.text(f"{base}service/volumes/{name}") or ""
        return dict(word.split("=") for word in text.split())

    def used_kib(self) -> int:
        """What is in use of the pool; the agent measures it after each request, also one in vain."""
        assert self.ask("delete nothing").startswith("error 2 ")
        return int((self.store.text("service/pool") or "").split("used_kib=")[1])

    def _serve(self) -> None:
        while not self._ends.is_set():
            self._server.turn()


@pytest.fixture(scope="module")
def images() -> driver.Images:
    return driver.blkback(Apt(Reporter()), Reporter())


@pytest.fixture(scope="module")
def qemu_img() -> list[str]:
    """The words that start qemu-img, that of the image's packages."""
    show = Reporter()
    return loader.command(driver._packages(driver._BLKBACK, Apt(show), show), "usr/bin/qemu-img")


@pytest.fixture(scope="module")
def machine(images: driver.Images, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    log = logs / "blkback-alone.log"
    log.unlink(missing_ok=True)
    machine = Machine(tmp_path_factory.mktemp("blkback"), images, log)
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


def image(size: int, seed: int) -> bytes:
    """Random bytes with a hole in the middle."""
    third = size // 3
    noise = random.Random(seed)
    return noise.randbytes(third) + bytes(third) + noise.randbytes(size - 2 * third)


def test_volumes_are_made_cloned_grown_and_deleted(machine: Machine) -> None:
    assert machine.ask("create plain_tmeta 10000") == "ok"
    assert machine.volume("plain_tmeta") == {
        "size_kib": "12288", "used_kib": "0", "origin": "-", "users": "-", "state": "ok"
    }  # fmt: skip
    assert machine.ask("clone plain_tmeta copy-1") == "ok"
    assert machine.volume("copy-1")["origin"] == "plain_tmeta"
    assert machine.ask("grow plain_tmeta 20000") == "ok"
    assert machine.volume("plain_tmeta")["size_kib"] == "20480"
    assert machine.ask("grow plain_tmeta 10000").startswith("error 22 ")
    assert machine.ask("create copy-1 10000").startswith("error 17 ")
    assert machine.ask("delete plain_tmeta") == "ok"
    assert machine.ask("delete plain_tmeta").startswith("error 2 ")
    assert machine.ask("delete copy-1") == "ok"


def test_a_guest_is_told_where_its_volume_is(machine: Machine) -> None:
    assert machine.ask("create root 4096") == "ok"
    vbd = "backend/vbd/32/51712"
    for name, value in (("online", "1"), ("state", "2"), ("mode", "w"), ("params", "root")):
        machine.store.write(f"{vbd}/{name}", value)
    assert machine.wait(f"{vbd}/hotplug-status", ".") == "connected"
    assert re.fullmatch("[0-9a-f]+:[0-9a-f]+", machine.store.text(f"{vbd}/physical-device") or "")
    assert machine.ask("delete root").startswith("error 16 ")
    machine.store.rm("backend/vbd/32")
    assert machine.ask("delete root") == "ok"


def test_a_tenants_volumes_are_its_own_and_outlast_everything(machine: Machine) -> None:
    toolstack, base, vbd = 32512, "tenants/32512/", "backend/vbd/40/51712"

    def delegate() -> None:
        for name, value in (("volumes_kib", "16384"), ("images/image_1", ""), ("name", "acme-1")):
            machine.store.write(base + name, value)
        machine.wait(f"{base}service/state", "ready")

    delegate()
    raw = image(4 * MIB, 6)
    assert machine.ask(f"import image_1 raw {DATA} {len(raw)} 4096 {machine.put(raw)}") == "ok"
    assert machine.ask("create acme-1_root 4096") == "ok"
    assert machine.ask("clone image_1 root", base) == machine.ask("create a_tmeta 5000", base) == "ok"
    assert machine.ask("create more 4097", base).startswith("error 122 ")
    assert machine.ask(f"export root {BACK} {EXCHANGE - BACK}", base).startswith("error 95 ")
    assert machine.volume("root", base)["size_kib"] == "4096"
    machine.store.mkdir(vbd)
    machine.store.set_perms(vbd, [f"n{toolstack}"])
    for name, value in (("online", "1"), ("state", "2"), ("mode", "w"), ("params", "root")):
        machine.store.write(f"{vbd}/{name}", value)
    assert machine.wait(f"{vbd}/hotplug-status", ".") == "connected"
    assert machine.ask("delete root", base).startswith("error 16 ")
    machine.store.rm("tenants")
    machine.kill()
    machine.start()
    assert machine.store.children("service/volumes") == ["acme-1_root", "image_1"]
    assert machine.store.text("service/tenants/acme-1") == "volumes=2 size_kib=12288 used_kib=2816"
    delegate()
    for name in ("root", "a_tmeta"):
        assert machine.ask(f"delete {name}", base) == "ok"
    assert machine.exported("image_1") == raw
    assert machine.ask("delete image_1") == machine.ask("delete acme-1_root") == "ok"


def test_a_raw_image_comes_back_as_it_was(machine: Machine) -> None:
    raw = image(10 * MIB + 777, 1)
    assert machine.ask(f"import raw raw {DATA} {len(raw)} 12288 {machine.put(raw)}") == "ok"
    assert machine.exported("raw") == raw.ljust(12 * MIB, b"\0")
    assert 6 * 1024 < int(machine.volume("raw")["used_kib"]) < 8 * 1024
    assert machine.ask("delete raw") == "ok"


def test_a_compressed_qcow2_image_comes_back_as_it_was(
    machine: Machine, qemu_img: list[str], tmp_path: Path
) -> None:
    raw = image(8 * MIB, 2)
    (tmp_path / "raw").write_bytes(raw)
    subprocess.run([*qemu_img, "convert", "-c", "-O", "qcow2", tmp_path / "raw", tmp_path / "q"], check=True)
    packed = (tmp_path / "q").read_bytes()
    assert machine.ask(f"import q qcow2 {DATA} {len(packed)} 8192 {machine.put(packed)}") == "ok"
    assert machine.exported("q") == raw
    assert machine.ask("delete q") == "ok"


def test_an_image_that_names_another_file_is_refused(
    machine: Machine, qemu_img: list[str], tmp_path: Path
) -> None:
    words = ["create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", str(tmp_path / "q"), "1M"]
    subprocess.run([*qemu_img, *words], check=True)
    packed = (tmp_path / "q").read_bytes()
    reply = machine.ask(f"import q qcow2 {DATA} {len(packed)} 8192 {machine.put(packed)}")
    assert reply.startswith("error 22 ") and "backing file" in reply


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_damaged_bytes_make_no_volume(machine: Machine, kind: str) -> None:
    packed = b"QFI\xfb\0\0\0\3".ljust(2 * MIB, b"\0")
    machine.put(packed)
    reply = machine.ask(f"import damaged {kind} {DATA} {len(packed)} 8192 {'0' * 64}")
    assert reply.startswith("error 74 ")
    assert machine.volume("damaged") == {}


def test_an_image_that_does_not_fit_leaves_the_pool_as_it_was(machine: Machine) -> None:
    before, blocks = machine.used_kib(), machine.data.stat().st_blocks
    large = random.Random(3).randbytes(MIB) * (POOL // MIB + 8)
    reply = machine.ask(f"import large raw {DATA} {len(large)} {len(large) >> 10} {machine.put(large)}")
    assert reply.startswith("error 28 ")
    assert machine.volume("large") == {}
    assert machine.used_kib() == before
    assert machine.ask("create after 4096") == machine.ask("delete after") == "ok"
    assert machine.data.stat().st_blocks < blocks + POOL // 2 // 512  # the disk heard that it may forget


def test_after_a_loss_of_power_finished_volumes_are_whole_and_others_gone(machine: Machine) -> None:
    raw = image(6 * MIB, 4)
    assert machine.ask(f"import kept raw {DATA} {len(raw)} 8192 {machine.put(raw)}") == "ok"
    assert machine.ask("clone kept cloned") == "ok"
    large = random.Random(5).randbytes(MIB) * 64
    reply = machine.begin(f"import cut raw {DATA} {len(large)} {len(large) >> 10} {machine.put(large)}")
    machine.wait(reply, "progress [2-9][0-9]")
    machine.kill()
    machine.start()
    assert machine.volume("cut") == {}
    assert machine.exported("kept") == machine.exported("cloned") == raw.ljust(8 * MIB, b"\0")
    assert machine.ask("delete kept") == machine.ask("delete cloned") == "ok"
