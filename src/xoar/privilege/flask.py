"""Writes the FLASK policy of a whole host as text for checkpolicy. See docs/policy.md.

The policy is complete: Xen's classes and initial SIDs, our types, and nothing of upstream's example policy.
Above each rule stand the manifest lines that it comes from, so that a denial can be followed back.
`python -m xoar.privilege.flask FOLDER` prints it for a built Xen's FLASK folder.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from xoar.privilege import promises, rules, shardset, vectors
from xoar.privilege.errors import ManifestError, PolicyError
from xoar.privilege.manifest import Manifest
from xoar.privilege.rules import Origin, Rules, channel_type, domain_type, name_set, port_type, self_type
from xoar.privilege.shardset import ShardSet
from xoar.privilege.vectors import AccessVectors

# Types of Xen's own initial SIDs; dom0's is the first shard's. No domain is meant to have the labels that a
# toolstack of Xen's falls back to (domU, domDM): they mean unlabeled, on which nobody has any right.
_XEN_SIDS = {
    "xenboot": "xenboot_t",
    "xen": "xen_t",
    "domxen": "domxen_t",
    "domio": "domio_t",
    "unlabeled": "unlabeled_t",
    "security": "security_t",
    "domU": "unlabeled_t",
    "domDM": "unlabeled_t",
}
_RESOURCE_SIDS = {"irq": "irq_t", "iomem": "iomem_t", "ioport": "ioport_t", "device": "device_t"}
SYSTEM_TYPES = tuple(dict.fromkeys([*_XEN_SIDS.values(), *_RESOURCE_SIDS.values()]))
"""The types that belong to no manifest."""

# What Linux, in guests and driver domains, tries and does without; a log full of it would hide real denials
_LINUX_PROBES = (
    ("xen", "xen", "writeconsole", "early boot output"),
    ("xen", "xen2", "pmu_use", "performance counters"),
    ("xen", "version", "xen_extraversion", "the boot messages of a PV kernel"),
    ("xen", "version", "xen_commandline", "reading all of /sys/hypervisor"),
    ("xen", "version", "xen_build_id", "reading all of /sys/hypervisor"),
    ("self", "grant", "query", "a grant table's size; without it Linux takes it for what Builder gives it"),
)


def generate(shards: ShardSet, access_vectors: AccessVectors) -> str:
    """The policy's text for checkpolicy.

    Raises ManifestError as `judged` does, PolicyError when Xen has an initial SID that this generator doesn't
    know.
    """
    allowed, never = judged(shards, access_vectors)
    return written(shards, access_vectors, allow_lines(allowed), never)


def written(
    shards: ShardSet,
    access_vectors: AccessVectors,
    lines: Iterable[str],
    never: Iterable[promises.Never],
) -> str:
    """The policy's text with these lines of rules and promises, whatever the manifests say.

    For a host use `generate`; other rules than the manifests' are for measurements. Raises PolicyError.
    """
    everything = shards.in_boot_order()
    sections = (
        ["# Generated from the manifests of Xoar's shards; see docs/policy.md", access_vectors.preamble],
        _types(everything),
        _booleans(everything),
        lines,
        _silent_lines((*shards.drivers, *shards.guests), access_vectors),
        _never_lines(never),
        _contexts(everything, shards.root, access_vectors),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def judged(shards: ShardSet, access_vectors: AccessVectors) -> tuple[Rules, list[promises.Never]]:
    """The rules, after they were checked, and the promises that they keep.

    Raises ManifestError when a manifest asks for what Xen doesn't know or breaks a promise.
    """
    allowed = rules.derive(shards)
    _check_known(shards, access_vectors)
    never = promises.promises(shards, access_vectors)
    promises.check(allowed, never)
    return allowed, never


def _check_known(shards: ShardSet, access_vectors: AccessVectors) -> None:
    for manifest in shards.manifests.values():
        for right in manifest.rights:
            permissions = access_vectors.permissions.get(right.security_class)
            if permissions is None:
                known = ", ".join(access_vectors.permissions)
                text = f'class "{right.security_class}": this Xen has: {known}'
                raise ManifestError(manifest.path, right.class_line, text)
            if right.permission not in permissions:
                known = ", ".join(sorted(permissions))
                text = f'"{right.permission}": class {right.security_class} has: {known}'
                raise ManifestError(manifest.path, right.line, text)


def _types(manifests: tuple[Manifest, ...]) -> Iterator[str]:
    yield "attribute domain_type;"
    for name in SYSTEM_TYPES:
        yield f"type {name};"
    for manifest in manifests:
        own, own_self, channel = domain_type(manifest.name), self_type(manifest), channel_type(manifest.name)
        yield f"type {own}, domain_type;"
        if own_self != own:
            yield f"type {own_self}, domain_type;"
            yield f"type_transition {own} {own}:domain {own_self};"
        yield f"type {channel};"
        if manifest.serial:
            yield f"type {port_type(manifest.name)};"
    for manifest in manifests:
        yield f"type_transition {domain_type(manifest.name)} domain_type:event {channel_type(manifest.name)};"


def _booleans(manifests: tuple[Manifest, ...]) -> Iterator[str]:
    """The switches of optional rights, all off."""
    for manifest in manifests:
        for right in rules.optional(manifest):
            yield f"bool {rules.boolean(manifest, right)} false;"


def allow_lines(allowed: Rules) -> Iterator[str]:
    """The lines of `written` that allow these rules, each below where it comes from."""
    comment: tuple[Origin, ...] = ()
    for group in rules.grouped(allowed):
        if group.origins != comment:
            comment = group.origins
            yield from (f"# {origin}" for origin in comment)
        yield f"if ({group.condition}) {{ {group} }}" if group.condition else str(group)


def _silent_lines(linux: tuple[Manifest, ...], access_vectors: AccessVectors) -> Iterator[str]:
    for manifest in linux:
        source = domain_type(manifest.name)
        targets = {"xen": "xen_t", "self": self_type(manifest)}
        stated = {(right.on, right.security_class, right.permission) for right in manifest.rights}
        for target, security_class, permission, why in _LINUX_PROBES:
            known = permission in access_vectors.permissions.get(security_class, ())
            if known and (target, security_class, permission) not in stated:
                yield f"# denied without a log line: {why}"
                yield f"dontaudit {source} {targets[target]}:{security_class} {permission};"


def _never_lines(never: Iterable[promises.Never]) -> Iterator[str]:
    comment = ""
    for one in never:
        if one.but_optional:
            continue
        if one.promise != comment:
            comment = one.promise
            yield f"# promise: {comment}"
        sources, targets = name_set(sorted(one.sources)), name_set(sorted(one.targets))
        yield f"neverallow {sources} {targets}:{one.security_class} {name_set(sorted(one.permissions))};"


def _contexts(
    manifests: tuple[Manifest, ...], root: Manifest, access_vectors: AccessVectors
) -> Iterator[str]:
    system_types = [*dict.fromkeys(_XEN_SIDS.values()), "domain_type"]
    yield "role system_r;"
    yield f"role system_r types {name_set(system_types)};"
    yield "user system_u roles { system_r };"
    for sid in access_vectors.initial_sids:
        if sid == "dom0":
            yield f"sid {sid} {root.label}"
        elif sid in _XEN_SIDS:
            yield f"sid {sid} system_u:system_r:{_XEN_SIDS[sid]}"
        elif sid in _RESOURCE_SIDS:
            yield f"sid {sid} system_u:object_r:{_RESOURCE_SIDS[sid]}"
        else:
            raise PolicyError(f"this Xen has an initial SID {sid} that Xoar's policy gives no label")
    for manifest in manifests:
        if serial := manifest.serial:
            label = f"system_u:object_r:{port_type(manifest.name)}"
            yield f"ioportcon {serial.first:#x}-{serial.last:#x} {label}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m xoar.privilege.flask FOLDER_WITH_ACCESS_VECTORS")
    try:
        print(generate(shardset.load_all(), vectors.load(Path(sys.argv[1]))), end="")
    except (ManifestError, PolicyError) as error:
        sys.exit(str(error))
