"""Four guests put disks and networks under load at once, while devices come and go: nothing is lost.

Each guest runs fio, which verifies what it wrote, and iperf3 against a server on the operator's loopback.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from device_guests import newest_nic, shell
from harness import HostUnderTest, running

from xoar.host import apt, cache
from xoar.host.bench import workloads
from xoar.host.build import guest, linux
from xoar.host.progress import Reporter

pytestmark = pytest.mark.soak

GUESTS = ("one", "two", "three", "four")
_LOOPBACK = "10.0.2.2"  # the operator's loopback, as guests of the emulated network see it
_FIRST_PORT = 47810  # of iperf3's servers, one per guest
_PROGRAMS = ("fio", "iperf3")

CONFIG = """
[host]
memory = "4GiB"

[drivers.net0]
kind = "netback"

[drivers.disk0]
kind = "blkback"
size = "1GiB"

[networks.lan]
driver = "net0"

[images.loaded]
kernel = "{kernel}"
initramfs = "{initramfs}"
"""
GUEST = """
[volumes.data-{name}]
size = "64MiB"

[volumes.plugged-{name}]
size = "16MiB"

[guests.{name}]
image = "loaded"
memory = "384MiB"
command_line = "ip=dhcp"
disks = ["data-{name}"]
nics = ["lan"]
"""


def initramfs(system: apt.Apt, show: Reporter) -> Path:
    """The tiny guest's, with fio and iperf3 on board."""

    def recipe(work: cache.Workspace) -> None:
        debs = work.scratch / "debs"
        debs.mkdir()
        system.download_with_dependencies(list(_PROGRAMS), debs)
        apt.unpack(debs, work.result, work.log)

    name = cache.key("soak programs 1", apt.BINARY_SUITE, *_PROGRAMS)
    tree = cache.build("soak-programs", name, recipe, show, title="preparing fio and iperf3")
    programs = [tree / "usr/bin" / name for name in _PROGRAMS]
    extra = {f"bin/{path.name}": path for path in programs}
    for library in guest.libraries(programs, tree):
        folder = "lib64" if library.name.startswith("ld-") else "lib"
        extra[f"{folder}/{library.name}"] = library
    return guest.initramfs(system, show, extra=extra)


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    show = Reporter()
    system = apt.Apt(show)
    text = CONFIG.format(kernel=linux.build(system, show), initramfs=initramfs(system, show))
    text += "".join(GUEST.format(name=name) for name in GUESTS)
    with running("soak", text, logs) as host:
        host.cli("up", timeout=800)
        for name in GUESTS:
            host.wait_for(name, rb"login: ")
        yield host


@pytest.fixture
def servers() -> Iterator[None]:
    show = Reporter()
    words = workloads.iperf3(apt.Apt(show), show)
    with ExitStack() as stack:
        for number in range(len(GUESTS)):
            server = subprocess.Popen(
                [*words, "-s", "-B", "127.0.0.1", "-p", str(_FIRST_PORT + number)], stdout=subprocess.DEVNULL
            )
            stack.callback(server.wait)
            stack.callback(server.terminate)
        yield


def loads(name: str, seconds: int) -> dict[str, str]:
    """What the guest runs in the background."""
    port = _FIRST_PORT + GUESTS.index(name)
    return {
        "fio": "fio --name=soak --filename=/dev/xvda --size=64m --rw=randrw --bsrange=4k-64k --direct=1"
        f" --ioengine=libaio --iodepth=4 --time_based --runtime={seconds}"
        " --verify=crc32c --verify_fatal=1 --verify_backlog=64",
        "iperf3": f"iperf3 -c {_LOOPBACK} -p {port} -t {seconds}",
    }


def plug(host: HostUnderTest, name: str) -> None:
    """A disk and a network interface more; the disk keeps what is written; both go again."""
    host.cli("disk", "attach", name, f"plugged-{name}", "--device", "xvdb")
    host.cli("nic", "attach", name, "lan")
    script = (
        "dd if=/dev/urandom of=/tmp/noise bs=64k count=16 2>/dev/null;"
        " dd if=/tmp/noise of=/dev/xvdb bs=64k conv=fsync 2>/dev/null;"
        " busybox blockdev --flushbufs /dev/xvdb;"
        " dd if=/dev/xvdb bs=64k count=16 2>/dev/null | busybox cmp - /tmp/noise && echo same"
    )
    assert shell(host, name, script, 120) == "same"
    host.cli("nic", "detach", name, newest_nic(host, name))
    host.cli("disk", "detach", name, "xvdb")


def test_load_on_all_guests_while_devices_come_and_go(
    host: HostUnderTest, servers: None, request: pytest.FixtureRequest
) -> None:
    seconds = request.config.getoption("--soak")
    for name in GUESTS:
        for program, command in loads(name, seconds).items():
            shell(host, name, f"( ({command} >/tmp/{program} 2>&1; echo $? >/tmp/{program}.status) & )")
    end = time.monotonic() + seconds
    plugged = 0
    while time.monotonic() < end:
        plug(host, GUESTS[plugged % len(GUESTS)])
        plugged += 1
    assert plugged
    for name in GUESTS:
        for program in loads(name, seconds):
            wait = f"while [ ! -e /tmp/{program}.status ]; do sleep 1; done; cat /tmp/{program}.status"
            status = shell(host, name, wait, 300)
            assert status == "0", f"{name}:\n{shell(host, name, f'cat /tmp/{program}')}"
    assert {row["restarts"] for row in host.json("driver", "list")} == {0}
    print(f"{seconds} s; a disk and a network interface came and went {plugged} times")
