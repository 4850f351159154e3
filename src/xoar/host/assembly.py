"""Builds all that a host boots, from the cache where it is there: Xen, policy, Bootstrapper, its module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xoar.builder import library
from xoar.host import bundle, cache, compress
from xoar.host.apt import Apt
from xoar.host.build import abi, micropython, nano, policy, xen
from xoar.host.progress import Reporter
from xoar.privilege import bootplan, flask, shardset, vectors
from xoar.privilege.shardset import ShardSet


@dataclass(frozen=True)
class Assembly:
    """What the boot loader loads, and what it was made of."""

    xen: xen.Xen
    bootstrapper: Path
    bundle: Path
    policy: Path
    shards: ShardSet
    images: tuple[nano.ShardImage, ...]  # of every shard, Bootstrapper first


def assemble(apt: Apt, show: Reporter, images: list[bundle.Entry], xen_source: Path | None = None) -> Assembly:
    """Brings everything up to date; `images` are the guests' kernels and ramdisks. Raises HostError."""
    shards = shardset.load_all()
    hypervisor = xen.build(apt, show, xen_source)
    abi.generate(hypervisor, show)
    core = nano.core(micropython.build(apt, show), hypervisor, show)
    built = {
        manifest.name: nano.shard(manifest.name, manifest.main, core, show)
        for manifest in shards.in_boot_order()
        if manifest.main is not None
    }
    plan = bootplan.plan(shards)
    (guest,) = shards.guests
    entries = [bundle.Entry("boot", library.PLAN, bundle.plan_text(plan, guest.label).encode())]
    for shard in plan.shards:
        name = shard.manifest.name
        entries.append(bundle.Entry(name, library.SHARD, built[name].elf.read_bytes()))
    root = built.pop(shards.root.name)
    return Assembly(
        hypervisor,
        root.elf,
        _bundle(entries + images, show),
        _policy(flask.generate(shards, vectors.load(hypervisor.flask)), show),
        shards,
        (root, *built.values()),
    )


def _bundle(entries: list[bundle.Entry], show: Reporter) -> Path:
    described = [f"{entry.name} {entry.kind} {entry.digest.hex()}" for entry in entries]

    def recipe(work: cache.Workspace) -> None:
        (work.result / "bundle").write_bytes(bundle.pack(entries, compress.compress_blocks))

    name = cache.key("bundle 1", *described)
    return cache.build("bundle", name, recipe, show, title="packing the image library") / "bundle"


def _policy(text: str, show: Reporter) -> Path:
    def recipe(work: cache.Workspace) -> None:
        (work.result / "policy.conf").write_text(text)
        (work.result / "policy").write_bytes(policy.compile(text))

    name = cache.key("policy 1", text)
    return cache.build("policy", name, recipe, show, title="compiling the FLASK policy") / "policy"
