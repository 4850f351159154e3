"""What a host is used for, in as few steps as need all rights of the domains that take part.

A scenario raises Noticed (trial.py) as soon as something is not as it should be.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trial import Noticed, Shell, Trial

from xoar.builder.library import KERNEL
from xoar.host import devices, guests
from xoar.host.devices import Disk, Network, Nic
from xoar.host.errors import HostError
from xoar.host.provision import disk_record, nic_record
from xoar.messages.records import NO_IMAGE
from xoar.privilege import shardset

BOOT = ("bootstrapper", "xenstore", "console", "builder", "logic", "toolstack", "restorer", "guest")
"""The manifests of which every host has domains."""

_ROUTER = "10.0.2.2"  # the emulated network's; what is sent there reaches the operator's loopback
_TIMEOUT_MS = 60_000  # what the Toolstack is given; the trial's own limits are shorter
_SENT = 1 << 20  # bytes, each way
_TINY = '[host]\nmemory = "1GiB"\n[images.tiny]\nbuiltin = "tiny"\n'


@dataclass(frozen=True)
class Scenario:
    """`parties` are the manifests of which the host of `configuration` (an xoar.toml) has domains; `replaced`
    are those of them whose shards have a module of this folder in place of their own; `usual` is what shards
    say with all rights, too, of something that failed (as `Trial.complaints` has it)."""

    name: str
    what: str
    parties: tuple[str, ...]
    configuration: str
    run: Callable[[Trial], None]
    replaced: Mapping[str, str] = field(default_factory=dict)
    usual: frozenset[str] = frozenset()


# steps that several have

_STATES = ("waiting", "building", "starting", "ready")
"""Of a driver domain that comes up."""


def _guest(trial: Trial, name: str, image: str, memory_mib: int, **more: Any) -> int:
    """Creates a guest; its domid."""
    images = trial.step("the image library", lambda: guests.library(trial.client))
    if image == guests.GRUB:
        images = {
            entry.name: (entry.digest, NO_IMAGE) for entry in trial.client.images() if entry.kind == KERNEL
        }
    kernel, ramdisk = images[image]
    fields = {"group": "", "on_reboot": "restart", "on_crash": "keep", "disks": [], "nics": [], **more}
    command_line = f"console=hvc0 hostname={name} {fields.pop('command_line', '')}".strip()
    answer = trial.ask(
        f"{name}: created", "guest_create", name=name, uuid=name.encode().ljust(16, b"\0"), kernel=kernel,
        ramdisk=ramdisk, command_line=command_line, memory_kib=memory_mib << 10, vcpus=1, **fields,
    )  # fmt: skip
    return int(answer.domid)


def _shut_down(trial: Trial, name: str) -> None:
    trial.ask(f"{name}: shut down", "guest_shutdown", name=name, timeout_ms=_TIMEOUT_MS)


def _destroy(trial: Trial, name: str) -> None:
    trial.ask(f"{name}: destroyed", "guest_destroy", name=name)


def _free_kib(trial: Trial, step: str) -> int:
    return int(trial.ask(step, "host_info").free_kib)


def _domains(trial: Trial, step: str) -> dict[str, Any]:
    """What `xoar ps` shows, by name."""
    return {entry.name: entry for entry in trial.step(step, lambda: trial.client.objects())}


def _drivers(trial: Trial, prefix: str, *names: str) -> None:
    """Waits until these driver domains are ready."""

    def states() -> dict[str, Any]:
        return {entry.name: entry for entry in trial.client.drivers()}

    for name in names:
        for position, state in enumerate(_STATES[1:], 1):

            def reached(name: str = name, position: int = position) -> bool | None:
                entry = states()[name]
                if entry.state == "failed":
                    raise Noticed(f"{name} failed: {entry.note}")
                return True if _STATES.index(entry.state) >= position else None

            trial.step(f"{prefix}{name} is {state}", reached)
    for name, entry in states().items():
        trial.require("driver domains", entry.state != "failed", f"{name} failed: {entry.note}")
    trial.step(f"{prefix}PCIBack has ended", lambda: None if "pciback" in _names(trial) else True)
    trial.step(f"{prefix}PCIBack's line in Xen's log", lambda: "pciback: ready" in trial.log() or None)


def _names(trial: Trial) -> set[str]:
    return {entry.name for entry in trial.client.objects()}


# scenarios


def _plain(trial: Trial) -> None:
    trial.serves()
    lasting = {
        manifest.name: manifest.label
        for level in shardset.load_all().levels
        for manifest in level
        if manifest.lives == "forever"
    }
    # Bootstrapper's end comes a moment after Console's first answer
    trial.step("domain 0 is gone", lambda: None if "bootstrapper" in _names(trial) else True)
    found = {name: entry.label for name, entry in _domains(trial, "ps").items()}
    trial.require("ps", found == lasting, f"{found}")
    info = trial.ask("host information", "host_info")
    trial.require("host information", info.total_kib > 512 << 10, f"{info.total_kib} KiB")
    trial.require("Xen's release", info.xen_version.startswith("4."), info.xen_version)
    trial.require("Xen's release", info.xen_version[-1].isdigit(), info.xen_version)
    xen = trial.step("Xen's log", lambda: trial.client.open("xen").read(0.2) or None)
    trial.require("Xen's log", b"(XEN)" in xen, repr(xen[:80]))
    debug = {"shard": "console", "security_class": "xen", "permission": "debug"}
    trial.ask("a right permitted", "permit_change", **debug, on=1)
    trial.step("a debug key", lambda: _pressed(trial))
    # the shards have the domids from 1 on
    known = trial.step("Xen's own list of domains", lambda: _listed(trial, len(lasting)))
    trial.require("domain 0 is gone", 0 not in known, "Xen still has it, whatever Builder says")
    trial.ask("the right withdrawn", "permit_change", **debug, on=0)

    _guest(trial, "one", "tiny", 32)
    shell = Shell(trial, "one")
    said = shell.run("commands", "uname -s; hostname")
    trial.require("one: commands", said == "Linux\none", said)
    entry = _domains(trial, "ps with a guest")["one"]
    trial.require("ps", entry.label.endswith(":guest_t") and entry.memory_kib > 31 << 10, str(entry))
    _shut_down(trial, "one")
    _guest(trial, "two", "tiny", 32)
    Shell(trial, "two")
    before = _free_kib(trial, "free memory with a guest")
    _destroy(trial, "two")
    freed = _free_kib(trial, "free memory") - before
    trial.require("free memory", freed >= 31 << 10, f"only {freed} KiB came back")
    trial.step("every shard's line in Xen's log", lambda: _spoke(trial, lasting) or None)
    trial.content()


def _pressed(trial: Trial) -> bool:
    trial.client.press("q")
    return True


def _listed(trial: Trial, last: int) -> list[int] | None:
    """The domids that the debug key has printed; None as long as the last one's is not among them."""
    found = [int(domid) for domid in re.findall(r"General information for domain (\d+):", trial.log())]
    return found if last in found else None


def _spoke(trial: Trial, shards: dict[str, str]) -> bool:
    """Whether each shard, and Bootstrapper, has a line in Xen's log."""
    text = trial.log()
    return "bootstrapper: " in text and all(f"{name}: ready" in text for name in shards)


_HYPERVISOR = {
    "version/extra": r"^\.[0-9].*$",
    "compilation/compiler": r"^gcc",
    "properties/capabilities": r"^xen-3\.0-x86_64.*$",
    "properties/changeset": r"^.*$",
    "properties/pagesize": r"^1000$",
    "uuid": r"^6c696e75-.*$",
}
"""Files in a guest's /sys/hypervisor and what they hold."""


def _linux(trial: Trial) -> None:
    trial.serves()
    _guest(trial, "linux", "debian", 128)
    shell = Shell(trial, "linux")
    for file, pattern in _HYPERVISOR.items():
        said = shell.run(
            f"/sys/hypervisor/{file}",
            f"cat /sys/hypervisor/{file} | tee /tmp/said | grep -v -i denied | grep -q -E '{pattern}'"
            " && echo fine || cat /tmp/said",
        )
        trial.require(f"/sys/hypervisor/{file}", said == "fine", said)
    before = _domains(trial, "ps")["linux"].memory_kib
    shell.run("balloon", "cd /sys/devices/system/xen_memory/xen_memory0; echo 98304 >target_kb")
    trial.step(
        "the balloon has memory",
        lambda: _domains(trial, "ps").get("linux").memory_kib < before - 8192 or None,
    )
    shell.run("balloon", "echo 131072 >target_kb")
    trial.step(
        "the balloon gives it back",
        lambda: _domains(trial, "ps")["linux"].memory_kib >= before - 4096 or None,
    )
    _shut_down(trial, "linux")
    trial.content()


_TENANT = _TINY + '[tenants.acme]\nmemory = "96MiB"\n'


def _tenant(trial: Trial) -> None:
    trial.serves()
    _tenant_serves(trial, 0)
    trial.speak_for("acme")
    _guest(trial, "one", "tiny", 32)
    shell = Shell(trial, "one")
    said = shell.run("commands", "uname -s; hostname")
    trial.require("one: commands", said == "Linux\none", said)
    _shut_down(trial, "one")
    _guest(trial, "two", "tiny", 32)
    trial.client.ask("guest_reboot", name="two", timeout_ms=_TIMEOUT_MS)  # ends it, see ending_tenant.py
    trial.speak_for("")
    _tenant_serves(trial, 1)
    trial.speak_for("acme")
    trial.hang_up()
    trial.step("guests", lambda: [trial.client.guests()])
    trial.speak_for("")
    trial.step("the lines of all Toolstacks in Xen's log", lambda: _toolstacks_spoke(trial) or None)
    trial.content()


def _tenant_serves(trial: Trial, restarts: int) -> None:
    """Waits until the tenant's Toolstack has been started anew so often, and serves."""

    def ready() -> bool | None:
        (entry,) = trial.client.tenants()
        if entry.state == "failed":
            raise Noticed(f"tenant {entry.name} failed: {entry.note}")
        return True if (entry.state, entry.restarts) == ("ready", restarts) else None

    trial.step(f"the tenant's Toolstack is there, restart {restarts}", ready)


def _toolstacks_spoke(trial: Trial) -> bool:
    """Whether the host's Toolstack and both of the tenant's have said that they serve."""
    return trial.log().count("toolstack: ready") == 3


_NETWORK = (
    _TINY.replace("1GiB", "2GiB") + '[drivers.net0]\nkind = "netback"\n[networks.lan]\ndriver = "net0"\n'
)


def _nic(number: int) -> Any:
    return nic_record(Nic("lan", mac=bytes.fromhex("00163e0000") + bytes([number])))


def _talks(trial: Trial, name: str, shell: Shell, number: int) -> None:
    """Sends and receives through the guest's interface."""
    said = shell.run(f"echo {number}", f"busybox ping -c 2 -W 5 {_ROUTER} >/dev/null && echo fine")
    trial.require(f"{name}: echo {number}", said == "fine", "no answer to a ping")
    with socket.create_server(("127.0.0.1", 0)) as server:
        received: list[int] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                count = 0
                while count < _SENT and (data := connection.recv(65536)):
                    count += len(data)
                received.append(count)
                connection.sendall(bytes(_SENT))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        said = shell.run(
            f"a megabyte each way {number}",
            f"dd if=/dev/zero bs=64k count={_SENT >> 16} 2>/dev/null | busybox nc {_ROUTER} {port} | wc -c",
        )
        thread.join(5)
    trial.require(f"{name}: sends {number}", received == [_SENT], f"{received}")
    trial.require(f"{name}: receives {number}", said == str(_SENT), said)


def _network(trial: Trial) -> None:
    trial.serves()
    _drivers(trial, "", "net0")
    trial.ask("a network", "network_create", network=devices.network_record(Network("lan", "net0")))
    trial.step(
        "the network is up",
        lambda: True if [entry.state for entry in trial.client.networks()] == ["up"] else None,
    )
    _guest(trial, "one", "tiny", 40, command_line="ip=dhcp", nics=[_nic(1)])
    shell = Shell(trial, "one")
    _talks(trial, "one", shell, 1)
    trial.ask("a second interface", "nic_attach", guest="one", nic=_nic(2), timeout_ms=_TIMEOUT_MS)
    trial.ask("it goes again", "nic_detach", guest="one", handle=1, timeout_ms=_TIMEOUT_MS)
    _shut_down(trial, "one")
    _restart(trial, "net0", "netback")
    _guest(trial, "two", "tiny", 40, command_line="ip=dhcp", nics=[_nic(number) for number in range(3, 7)])
    shell = Shell(trial, "two")
    _talks(trial, "two", shell, 2)
    # Linux that may not ask how many pages of grants there are takes it for four: the last one has none left
    said = shell.run("interfaces", "ls -d /sys/class/net/eth* | wc -l")
    trial.require("two: interfaces", said == "4", said)
    _destroy(trial, "two")
    trial.content()


def _memory(trial: Trial, name: str, manifest: str) -> int:
    """KiB that a driver domain has. It starts with more than its manifest states, for its initramfs, which it
    is to give back."""
    has = int(_domains(trial, "ps")[name].memory_kib)
    stated = shardset.load_all().manifests[manifest].memory_kib
    trial.require(
        "ps", stated is not None and has < stated + (4 << 10), f"{name} has {has} KiB, not {stated}"
    )
    return has


def _restart(trial: Trial, name: str, manifest: str) -> None:
    """Has a driver domain built anew; all memory of the old one comes back."""
    before = _memory(trial, name, manifest)
    free = _free_kib(trial, "free memory")
    trial.ask(f"{name} is built anew", "driver_restart", name=name, timeout_ms=_TIMEOUT_MS)
    _drivers(trial, "again ", name)
    after = _memory(trial, name, manifest)
    leaked = free - _free_kib(trial, "free memory") - (after - before)
    trial.require("free memory", leaked < 4 << 10, f"{leaked} KiB did not come back")


_DISK = _TINY.replace("1GiB", "2GiB") + '[drivers.disk0]\nkind = "blkback"\nsize = "1GiB"\n'


def _volume(trial: Trial, name: str) -> Any:
    """Makes a volume of 16 MiB; a disk made of it."""
    unused = {"source": "", "offset": 0, "length": 0, "format": "raw", "sha256": NO_IMAGE}
    trial.ask(
        f"volume {name}",
        "volume_change",
        driver="disk0",
        action="create",
        name=name,
        size_kib=16 << 10,
        **unused,
    )
    device = "xvda" if name != "plugged" else "xvdb"
    return disk_record(Disk(name, device, "w", "disk0"))


def _keeps(trial: Trial, name: str, shell: Shell, device: str) -> None:
    """Writes to a disk and reads it again."""
    said = shell.run(
        f"/dev/{device}",
        # its front end may still be at it: without the device dd would make a file of that name
        f"until [ -b /dev/{device} ]; do sleep 1; done;"
        " dd if=/dev/urandom of=/tmp/noise bs=64k count=32 2>/dev/null;"
        f" dd if=/tmp/noise of=/dev/{device} bs=64k conv=fsync 2>&1 | grep -i error;"
        f" busybox blockdev --flushbufs /dev/{device};"
        f" dd if=/dev/{device} bs=64k count=32 2>/dev/null | busybox cmp - /tmp/noise && echo fine",
    )
    trial.require(f"{name}: /dev/{device}", said == "fine", said)


def _disk(trial: Trial) -> None:
    trial.serves()
    _drivers(trial, "", "disk0")
    root, plugged = _volume(trial, "one"), _volume(trial, "plugged")
    _guest(trial, "one", "tiny", 40, disks=[root])
    shell = Shell(trial, "one")
    _keeps(trial, "one", shell, "xvda")
    trial.ask("a second disk", "disk_attach", guest="one", disk=plugged, timeout_ms=_TIMEOUT_MS)
    _keeps(trial, "one", shell, "xvdb")
    trial.ask("it goes again", "disk_detach", guest="one", device="xvdb", timeout_ms=_TIMEOUT_MS)
    _shut_down(trial, "one")
    _restart(trial, "disk0", "blkback")
    _guest(trial, "two", "tiny", 40, disks=[root])
    _keeps(trial, "two", Shell(trial, "two"), "xvda")
    _shut_down(trial, "two")
    domid = _guest(trial, "grub", guests.GRUB, 64, disks=[root])
    log = trial.step("grub: the console's log", lambda: trial.client.log(domid, follow=True))
    seen = b""

    def prompt() -> bool | None:
        nonlocal seen
        seen += log.read(0.05)
        return True if b"grub>" in seen else None

    trial.step("GRUB starts", prompt)
    _destroy(trial, "grub")
    trial.content()


def _ends(trial: Trial) -> None:
    trial.serves()

    def crashed() -> set[str]:
        rows, _ = trial.client.rollbacks()
        return {row.target for row in rows if row.found == "crash"}

    def ended() -> bool | None:
        try:
            trial.client.objects()
            return True if crashed() >= ENDING - {"logic"} else None
        except HostError:
            trial.hang_up()  # Console or the Toolstack is just at it
            return None

    trial.step("all but Logic have ended, and were put back", ended)
    _guest(trial, "one", "tiny", 32)
    Shell(trial, "one")
    trial.step("so has Logic", lambda: True if "logic" in crashed() else None)
    trial.ask("a rollback that is asked for", "shard_reboot", name="builder", timeout_ms=_TIMEOUT_MS)
    _destroy(trial, "one")
    trial.content()


ENDING = frozenset(("logic", "builder", "console", "toolstack"))
"""Shards that are rolled back; each has a module that ends it."""

ALL = (
    Scenario("plain", "a tiny guest comes and goes", BOOT, _TINY, _plain),
    Scenario("linux", "Debian's kernel in a guest", BOOT, _TINY.replace("tiny", "debian"), _linux),
    Scenario(
        "tenant",
        "a tenant's Toolstack, and another one after that has ended",
        (*BOOT, "tenant"),
        _TENANT,
        _tenant,
        {"tenant": "ending_tenant"},
    ),
    Scenario(
        "network",
        "a NetBack and guests on it",
        (*BOOT, "pciback", "netback"),
        _NETWORK,
        _network,
        {"builder": "scattered_builder"},
    ),
    Scenario(
        "disk",
        "a BlkBack and guests on it",
        (*BOOT, "pciback", "blkback"),
        _DISK,
        _disk,
        {"builder": "scattered_builder"},
    ),
    Scenario(
        "ends",
        "each shard that is rolled back ends, and is put back",
        BOOT,
        _TINY,
        _ends,
        {name: f"ending_{name}" for name in sorted(ENDING)},
        frozenset(
            (
                "Traceback (most recent call last):",
                "xenstore: no answer from Logic for # s; it has not read the request",
            )
        ),
    ),
)
"""The cheapest first."""

FILES = (
    *(Path(__file__).parent / name for name in ("scenarios.py", "trial.py", "ending_tenant.py", "ending.py")),
    *(Path(__file__).parent / f"ending_{name}.py" for name in sorted(ENDING)),
)
"""Of these an outcome depends."""
