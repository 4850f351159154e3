"""Packs Bootstrapper's boot module: the image library, with the boot plan as one of its images.

The format is described and read in xoar.builder.library, the plan's in xoar.builder.plan.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xoar.builder.library import ENTRY, HEADER, MAGIC
from xoar.privilege import bootplan
from xoar.privilege.bootplan import BootPlan


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
    """The boot plan in the words that Bootstrapper reads; `library_kib` is the library's size."""
    lines = []
    for shard in plan.shards:
        manifest = shard.manifest
        memory_kib = bootplan.memory_kib(manifest, library_kib)
        fixed = f"{manifest.name} {shard.domid} {memory_kib} {manifest.vcpus} {manifest.label}"
        lines.append(f"shard {fixed} {manifest.name}")
        if manifest.serial:
            count = manifest.serial.last - manifest.serial.first + 1
            lines.append(f"ports {manifest.name} {manifest.serial.first} {count}")
    for shard in plan.shards:
        for link in shard.links:
            lines.append(f"link {link.client} {link.server} {link.name} {link.gref}")
            if link.role:
                lines.append(f"word {link.server} {link.role}={shard.domid}")
        for received in shard.manifest.receives:
            lines.append(f"{received} {shard.manifest.name}")
            if received == "library":
                lines.append(f"word {shard.manifest.name} guest_label={guest_label}")
                for other in plan.shards:
                    lines.append(f"word {shard.manifest.name} shard={other.domid}:{other.manifest.name}")
    return "\n".join(lines) + "\n"
