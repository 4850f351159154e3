"""Packs Bootstrapper's boot module: the image library, with the boot plan as one of its images.

The format is described and read in xoar.builder.library, the plan's in xoar.builder.plan.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xoar.builder.library import ENTRY, HEADER, MAGIC
from xoar.privilege import bootplan, rules
from xoar.privilege.bootplan import BootPlan, PlannedDriver, PlannedShard


@dataclass(frozen=True)
class Entry:
    """One image to pack: `kind` is one of xoar.builder.library's SHARD, KERNEL, RAMDISK, PLAN."""

    name: str
    kind: str
    content: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content: what requests call the image by."""
        return hashlib.sha256(self.content).digest()


def pack(entries: Iterable[Entry], compress: Callable[[Entry], list[bytes]]) -> bytes:
    """The library's bytes. `compress` gives an image's LZ4 blocks, each no longer than its content."""
    chosen = list(entries)
    head = struct.pack(HEADER, MAGIC, len(chosen), 0)
    offset = len(head) + len(chosen) * struct.calcsize(ENTRY)
    body: list[bytes] = []
    places: dict[bytes, tuple[int, int]] = {}  # of content that two names share, such as a kernel
    for entry in chosen:
        if entry.digest not in places:
            blocks = compress(entry)
            stored = b"".join([struct.pack("<I", len(block)) for block in blocks] + blocks)
            places[entry.digest] = (len(stored), offset)
            offset += len(stored)
            body.append(stored)
        name, kind = entry.name.encode(), entry.kind.encode()
        head += struct.pack(ENTRY, entry.digest, name, kind, len(entry.content), *places[entry.digest])
    return head + b"".join(body)


def plan_text(plan: BootPlan, guest_label: str, library_kib: int) -> str:
    """The boot plan in the words that Bootstrapper and Builder read; `library_kib` is the library's size."""
    lines = []
    for word, shards in (("shard", plan.shards), ("late", plan.on_request)):
        for shard in shards:
            manifest = shard.manifest
            memory_kib = bootplan.memory_kib(manifest, library_kib)
            fixed = f"{shard.name} {shard.domid} {memory_kib} {manifest.vcpus} {manifest.label}"
            lines.append(f"{word} {fixed} {manifest.name}")
            if manifest.serial:
                count = manifest.serial.last - manifest.serial.first + 1
                lines.append(f"ports {manifest.name} {manifest.serial.first} {count}")
    for shard in (*plan.shards, *plan.on_request):
        for link in shard.links:
            lines.append(f"link {link.client} {link.server} {link.name} {link.gref}")
            if link.role:
                lines.append(f"word {link.server} {link.role}={shard.domid}")
        for received in shard.manifest.receives:
            if received == "hardware" and not plan.drivers:
                continue  # nobody to pass it on to
            if received == "restarts":
                continue  # who is restarted stands in the other lines
            lines.append(f"{received} {shard.manifest.name}")
            if received == "library":
                lines.append(f"word {shard.manifest.name} guest_label={guest_label}")
                lines.append(f"word {shard.manifest.name} first_guest={bootplan.FIRST_GUEST}")
    for manifest, right in plan.optional:
        named = f"{manifest.name} {right.security_class} {right.permission}"
        lines.append(f"optional {named} {rules.boolean(manifest, right)}")
    lines += _restart_lines(plan)
    for shard in plan.late:
        lines.append(f"ecam {shard.name}")
        lines.append(f"word {shard.manifest.parent} {shard.name}={shard.domid}")
    for shard in plan.tenants:
        lines += _tenant_lines(shard)
    for manifest in {shard.manifest.name: shard.manifest for shard in plan.tenants}.values():
        lines.append(f"word {manifest.parent} {manifest.name}_seconds={manifest.restart.seconds}")
    for driver in plan.drivers:
        lines += _driver_lines(driver)
    return "\n".join(lines) + "\n"


_PORTS, _PORTS_OF_MANY = 63, 511
"""The highest event channel of a shard that is rolled back: it closes all that it has opened each time. Some
have one of each guest."""


def _restart_lines(plan: BootPlan) -> Iterable[str]:
    room_kib = 0
    for shard in plan.restarted:
        restart = shard.manifest.restart
        room_kib += bootplan.memory_kib(shard.manifest, 0)
        serves_guests = any(link.server == shard.name for link in plan.guest_links)
        ports = _PORTS_OF_MANY if serves_guests else _PORTS
        yield f"restart {shard.name} {plan.restorer} {restart.seconds} {restart.box_kib} {ports}"
        yield f"word toolstack restarted={shard.name}:{str(restart).replace(' ', '_')}"
        if restart.policy == "idle":
            # on a channel of its own: one on which it asks for its snapshot may be signalled once too often
            yield f"kick {shard.name} {shard.name} 0 0"
        for who in restart.by:
            # none but those who ask after a number of requests know what a request is
            counts = f"{restart.requests} {restart.patience_ms}" if who == restart.by[0] else "0 0"
            yield f"kick {who} {shard.name} {counts}"
    if room_kib:
        yield f"room {plan.restorer} {room_kib}"


def _tenant_lines(shard: PlannedShard) -> Iterable[str]:
    tenant = shard.tenant
    assert tenant is not None
    yield f"word {shard.manifest.parent} {shard.manifest.name}={tenant.name}:{shard.domid}"
    restart = shard.manifest.restart
    if restart.policy == "anew":
        yield f"word {shard.name} anew={restart.seconds}:{restart.pause}"
    yield f"word {shard.name} key={tenant.key.hex()}"
    yield f"quota {shard.name} {tenant.memory_kib} {tenant.vcpus} {tenant.guests} {tenant.devices}"


def _driver_lines(driver: PlannedDriver) -> Iterable[str]:
    manifest = driver.manifest
    fixed = f"{driver.domid} {driver.memory_kib} {manifest.vcpus} {manifest.label} {manifest.name}"
    yield f"driver {driver.name} {manifest.name} {fixed} {driver.bdf}"
    yield f"word {manifest.parent} driver={driver.name}:{manifest.name}:{driver.domid}:{driver.bdf}"
    for use in manifest.uses:
        if use.role:
            yield f"word {use.server} {use.role}={driver.domid}"
