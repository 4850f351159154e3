"""The guest of `xoar bench devices` and its disk: a Debian that has started once, on a data disk that both
hosts get an identical copy of.

A Xoar host makes that disk (a thin pool of LVM, docs/devices.md) and starts the guest on it for the first
time, so that cloud-init is done with it. It lies in the cache; stock's domain 0 uses the pool as it is.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from xoar.host import apt, cache, disks, guests, keeper, provision, seed, sparse, ssh, up
from xoar.host.bench import agent, hosts, workloads
from xoar.host.bench.guest_link import Listener
from xoar.host.build import disk
from xoar.host.client import Client
from xoar.host.config import Config, Guest, Image
from xoar.host.devices import CloudInit, Disk, Driver, Network, Nic, Volume
from xoar.host.errors import disk_errors
from xoar.host.progress import Reporter
from xoar.host.state import Host

BLK, NET = "disk0", "net0"
GROUP = "xoar"  # LVM's volume group on a BlkBack's data disk
_EXTRA = ("fio", "iperf3")  # packages in the guest
_IMAGE = "debian"
_FIRST_BOOT = 900.0  # seconds that cloud-init's first run may take on a busy machine
_OFF = 60.0  # seconds that the guest may take to shut down

GUEST = Guest(
    "guest",
    _IMAGE,
    memory_kib=512 << 10,
    disks=(Disk("root"), Disk("scratch")),
    nics=(Nic("lan", mac=bytes.fromhex("00163e0be001")),),
    cloud_init=CloudInit(user_data=Path(agent.__file__)),
)


@dataclass(frozen=True)
class Prepared:
    """`data` is the disk, `config` the Xoar host's; `volumes` are the guest's disks in order."""

    data: Path
    config: Config
    volumes: tuple[str, ...]

    def copy_for(self, host: Host) -> None:
        """Gives a host that does not run disks of its own: the data disk as it is, an empty exchange disk."""
        _copy(self.data, _new_disks(host, self.config))


def configuration(image: Path) -> Config:
    """One network card, one NVMe controller, one guest."""
    return Config(
        images={_IMAGE: Image(_IMAGE, command_line="", disk=image)},
        drivers={
            NET: Driver(NET, "netback", "e1000e", size_kib=0),
            BLK: Driver(BLK, "blkback", "nvme", size_kib=4 << 20),
        },
        networks={"lan": Network("lan", NET)},
        volumes={"scratch": Volume("scratch", BLK, workloads.SIZE_KIB)},
        guests={GUEST.name: GUEST},
    )


def prepare(name: str, system: apt.Apt, show: Reporter) -> Prepared:
    """The disk for a Xoar host of that name, and one to compare with; made if it is not in the cache.

    Raises HostError.
    """
    image = disk.debian(system, show, extra=_EXTRA)
    config = configuration(image).for_host(name)
    told = seed.seed(
        name, GUEST.name, GUEST.cloud_init or CloudInit(), provision.addressed(name, GUEST), ssh.public_key()
    )
    key = cache.key("bench disk 1", image.parent.name, told.digest, repr(config.volumes))

    def recipe(work: cache.Workspace) -> None:
        launch, host = up.prepare(config, show), Host(name)
        with Listener() as listener:  # its port keeps another benchmark from doing the same
            data = _new_disks(host, config)
            with hosts.running(name, launch):
                _first_boot(host, config, listener)
        _copy(data, work.result / "data.raw")

    title = "starting the guest for the first time"
    made = cache.build("bench-disk", key, recipe, show, title=title) / "data.raw"
    volumes = ("root", "scratch", provision.seed_name(GUEST) + told.digest)
    return Prepared(made, config, volumes)


def _first_boot(host: Host, config: Config, listener: Listener) -> None:
    """Has the guest do all that it does once, and shuts it down."""
    keeper.wait_running(host, up.START_TIMEOUT)
    with Client.connect(host.name) as client:
        guests.create(client, config, GUEST)
        guest, _ = listener.wait(_FIRST_BOOT)
        guest.run("cloud-init", "status", "--wait")
        workloads.prepare(guest)
        client.request("guest_shutdown", _OFF + 30, name=GUEST.name, timeout_ms=round(_OFF * 1000))
        time.sleep(hosts.PAUSE)


def _new_disks(host: Host, config: Config) -> Path:
    """Gives a host that does not run new disks; the data disk's file."""
    files = disks.of(host, BLK)
    for old in files.data, files.exchange:
        old.unlink(missing_ok=True)
    disks.disks(host, config)
    return files.data


def devices_of(prepared: Prepared) -> list[str]:
    """The guest's disks as block devices of a Linux that has the disk's pool, in order."""
    return [device(volume) for volume in prepared.volumes]


def device(volume: str) -> str:
    """What BlkBack, too, calls a volume's block device (xoar.blkback.names)."""
    return f"/dev/mapper/{GROUP}-v.{volume.replace('_', '+').replace('-', '--')}"


def _copy(source: Path, target: Path) -> None:
    """A copy without the holes."""
    with disk_errors(target), open(source, "rb") as old, open(target, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        sparse.copy(old.fileno(), 0, size, new.fileno(), 0, lambda done: None)
