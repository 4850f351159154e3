"""Builds all that a host boots, from the cache where it is there: Xen, policy, Bootstrapper, its module."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from xoar.builder import library
from xoar.host import bundle, cache, compress
from xoar.host.apt import Apt
from xoar.host.build import abi, micropython, nano, policy, xen
from xoar.host.progress import Reporter
from xoar.privilege import bootplan, flask, shardset, vectors
from xoar.privilege.bootplan import BootPlan
from xoar.privilege.shardset import ShardSet

_PLAN_ROOM_KIB = 64  # for the plan itself, tables and entries


@dataclass(frozen=True)
class Assembly:
    """What the boot loader loads, and what it was made of."""

    xen: xen.Xen
    bootstrapper: Path
    bundle: Path
    policy: Path
    bootstrapper_kib: int  # memory that Bootstrapper needs to hold the module
    shards: ShardSet
    images: tuple[nano.ShardImage, ...]  # of every shard that the host has, Bootstrapper first


@dataclass(frozen=True)
class Replacement:
    """A test's own code in a shard's place: `main` is a module in `folder`."""

    main: str
    folder: Path


def hypervisor(apt: Apt, show: Reporter, source: Path | None = None) -> xen.Xen:
    """Xen; its numbers and layouts are in xoar.abi then, for the images of shards and driver domains.

    Raises HostError.
    """
    built = xen.build(apt, show, source)
    abi.generate(built, show)
    return built


def assemble(
    apt: Apt,
    show: Reporter,
    images: list[bundle.Entry],
    hypervisor: xen.Xen,
    replaced: Mapping[str, Replacement] | None = None,
    drivers: Iterable[bootplan.Driver] = (),
    tenants: Iterable[bootplan.Tenant] = (),
) -> Assembly:
    """Brings everything up to date; `images` are the guests' kernels and ramdisks. Raises HostError."""
    shards = shardset.load_all()
    core = nano.core(micropython.build(apt, show), hypervisor, show)
    plan = bootplan.plan(shards, drivers, tenants)
    built = {}
    planned = (shard.manifest for shard in (*plan.shards, *plan.on_request))
    for manifest in dict.fromkeys((shards.root, *planned)):
        assert manifest.main is not None
        other = (replaced or {}).get(manifest.name, Replacement(manifest.main, nano.SOURCES))
        built[manifest.name] = nano.shard(manifest.name, other.main, core, show, other.folder)
    root = built.pop(shards.root.name)
    for name, image in built.items():
        images = [*images, bundle.Entry(name, library.SHARD, image.elf.read_bytes())]
    packed = _library(plan, shards, images, show)
    library_kib = -(-packed.stat().st_size // 1024)
    assert shards.root.memory_kib is not None
    return Assembly(
        hypervisor,
        root.elf,
        packed,
        _policy(flask.generate(shards, vectors.load(hypervisor.flask)), show),
        shards.root.memory_kib + library_kib,
        shards,
        (root, *built.values()),
    )


def _library(plan: BootPlan, shards: ShardSet, images: list[bundle.Entry], show: Reporter) -> Path:
    """The image library with the boot plan, which says how much memory its holder needs for it."""
    (guest,) = shards.guests
    blocks = {entry.digest: _compressed(entry, show) for entry in images}
    size_kib = sum(sum(map(len, packed)) for packed in blocks.values()) // 1024
    script = bundle.plan_text(plan, guest.label, size_kib + _PLAN_ROOM_KIB).encode()
    entries = [bundle.Entry("boot", library.PLAN, script), *images]

    def recipe(work: cache.Workspace) -> None:
        packed = bundle.pack(
            entries, lambda entry: blocks.get(entry.digest) or compress.compress_blocks(entry.content)
        )
        # the plan has tenants' keys
        with open(os.open(work.result / "library", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(packed)

    described = [f"{entry.name} {entry.kind} {entry.digest.hex()}" for entry in entries]
    name = cache.key("library 1", *described)
    return cache.build("library", name, recipe, show, title="packing the image library") / "library"


def _compressed(entry: bundle.Entry, show: Reporter) -> list[bytes]:
    """The image's LZ4 blocks, from the cache: large ones take seconds to compress."""

    def recipe(work: cache.Workspace) -> None:
        (work.result / "blocks").write_bytes(msgspec.msgpack.encode(compress.compress_blocks(entry.content)))

    name = cache.key("blocks 1", entry.digest)
    folder = cache.build("blocks", name, recipe, show, title=f"compressing {entry.kind} {entry.name}")
    return msgspec.msgpack.decode((folder / "blocks").read_bytes(), type=list[bytes])


def _policy(text: str, show: Reporter) -> Path:
    def recipe(work: cache.Workspace) -> None:
        (work.result / "policy.conf").write_text(text)
        (work.result / "policy").write_bytes(policy.compile(text))

    name = cache.key("policy 1", text)
    return cache.build("policy", name, recipe, show, title="compiling the FLASK policy") / "policy"
