"""Answers questions about rights: who has which, is one allowed and why, what differs between two sets.

A question names domains and resources as manifests do, or by Xen's types as they stand in a denial (a whole
context or its type alone). Names are translated as a manifest's `[[rights]]` would be, so `guest` as target
means another guest and `self` itself, and `event create` on `guest` is about the label of its channels. Types
are taken as they are.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from xoar.privilege import flask, promises, rules
from xoar.privilege.errors import UnknownName
from xoar.privilege.flask import SYSTEM_TYPES
from xoar.privilege.manifest import SPECIAL_TARGETS, Manifest, Right
from xoar.privilege.rules import (
    ON_CHANNELS,
    Group,
    Origin,
    Rule,
    Rules,
    channel_type,
    domain_type,
    port_type,
    self_type,
)
from xoar.privilege.shardset import ShardSet
from xoar.privilege.vectors import AccessVectors


@dataclass(frozen=True)
class Answer:
    """Whether a rule is there, and why or why not."""

    rule: Rule
    origins: tuple[Origin, ...]  # empty: it is not allowed
    broken: tuple[str, ...]  # the promises that forbid it
    remedy: str  # what would allow it; empty if it is allowed or a promise forbids it in any case

    @property
    def allowed(self) -> bool:
        return bool(self.origins) and not self.optional

    @property
    def optional(self) -> bool:
        """Whether a manifest states it, but as one that is off until it is permitted."""
        return bool(self.origins) and bool(self.origins[0].condition)


def held_by(manifest: Manifest, allowed: Rules) -> list[Group]:
    """What the manifest's domains may do, to themselves and to others."""
    own = _sources(manifest)
    return rules.grouped({rule: origins for rule, origins in allowed.items() if rule.source in own})


def held_over(manifest: Manifest, allowed: Rules) -> list[Group]:
    """What others may do to the manifest's domains."""
    own, targets = _sources(manifest), _types(manifest)
    return rules.grouped(
        {
            rule: origins
            for rule, origins in allowed.items()
            if rule.target in targets and rule.source not in own
        }
    )


def diff(old: Rules, new: Rules) -> tuple[list[Group], list[Group]]:
    """The rules that are only in `old`, and those only in `new`; it does not matter where they are stated.

    One that is optional in only one of them is in both.
    """
    conditions = [{rule: origins[0].condition for rule, origins in each.items()} for each in (old, new)]
    changed = {rule for rule, _ in conditions[0].items() ^ conditions[1].items()}
    removed = {rule: origins for rule, origins in old.items() if rule in changed}
    added = {rule: origins for rule, origins in new.items() if rule in changed}
    return rules.grouped(removed), rules.grouped(added)


def party(shards: ShardSet, type_name: str) -> str:
    """Whom a type belongs to: a manifest's name, or that of a special target."""
    manifest = _owner(shards, type_name)
    return manifest.name if manifest else type_name.removesuffix("_t")


def subjects(shards: ShardSet) -> list[str]:
    """The names that the second part of a question can have, besides types."""
    return [*shards.manifests, "self", *(name.removesuffix("_t") for name in SYSTEM_TYPES)]


def explain(shards: ShardSet, access_vectors: AccessVectors, asker: str, asked: str, right: str) -> Answer:
    """Whether `asker` has `right` (a permission or class:permission) on `asked`.

    Raises UnknownName, and ManifestError for manifests that no policy can be made of.
    """
    allowed, never = flask.judged(shards, access_vectors)
    rule = _question(shards, access_vectors, asker, asked, right)
    if origins := allowed.get(rule):
        remedy = f"xoar right permit {_asking(shards, rule)} permits it" if origins[0].condition else ""
        return Answer(rule, tuple(origins), (), remedy)
    broken = promises.broken(rule, never)
    remedy = _link(shards, rule) if set(broken) <= {promises.LINKED_ONLY} else ""
    if not remedy and not broken:
        remedy = _statement(shards, rule)
    return Answer(rule, (), broken, remedy)


def _question(shards: ShardSet, access_vectors: AccessVectors, asker: str, asked: str, right: str) -> Rule:
    security_class, permission = _right(right, access_vectors)
    asker, asked = _without_context(asker), _without_context(asked)

    named = channel_type if (security_class, permission) == ("event", "bind") else domain_type
    sources = {name: named(name) for name in shards.manifests}
    sources |= {name: name for manifest in shards.manifests.values() for name in _sources(manifest)}
    sources |= {name: name for name in SYSTEM_TYPES}
    if asker not in sources:
        raise UnknownName(f'nobody is called "{asker}"; A can be one of: {_listed(sources)}')
    source = sources[asker]

    on_channel = security_class == "event" and permission in ON_CHANNELS
    named = channel_type if on_channel else domain_type
    targets = {name: named(name) for name in shards.manifests}
    targets |= {name.removesuffix("_t"): name for name in SYSTEM_TYPES}
    targets |= {name: name for manifest in shards.manifests.values() for name in _types(manifest)}
    targets |= {name: name for name in SYSTEM_TYPES}
    if owner := _owner(shards, source):
        targets["self"] = channel_type(owner.name) if on_channel else self_type(owner)
    if asked not in targets:
        raise UnknownName(f'nothing is called "{asked}"; B can be one of: {_listed(targets)}')
    return Rule(source, targets[asked], security_class, permission)


def _asking(shards: ShardSet, rule: Rule) -> str:
    """The words for an optional right."""
    return f"{party(shards, rule.source)} {rule.security_class}.{rule.permission}"


def _right(right: str, access_vectors: AccessVectors) -> tuple[str, str]:
    """The class and the permission. Raises UnknownName, also if several classes have the permission."""
    by_class = access_vectors.permissions
    security_class, colon, permission = right.rpartition(":")
    if colon:
        if security_class not in by_class:
            raise UnknownName(f'there is no class "{security_class}"; this Xen has: {_listed(by_class)}')
        if permission not in by_class[security_class]:
            known = _listed(by_class[security_class])
            raise UnknownName(f'class {security_class} has no permission "{permission}"; it has: {known}')
        return security_class, permission
    classes = [name for name, permissions in by_class.items() if permission in permissions]
    if len(classes) > 1:
        choices = ", ".join(f"{name}:{permission}" for name in classes)
        raise UnknownName(f'several classes have the permission "{permission}"; say which: {choices}')
    if not classes:
        every = {name for permissions in by_class.values() for name in permissions}
        near = ", ".join(difflib.get_close_matches(permission, every))
        text = f"near to it are: {near}" if near else "write class:permission to see those of a class"
        raise UnknownName(f'no class has the permission "{permission}"; {text}')
    return classes[0], permission


def _without_context(word: str) -> str:
    """The type of a context user:role:type; other words as they are."""
    parts = word.split(":")
    return parts[2] if len(parts) >= 3 else word


def _link(shards: ShardSet, rule: Rule) -> str:
    """The links or front ends that would give the rule; empty if none can."""
    asker, asked = _owner(shards, rule.source), _owner(shards, rule.target)
    ends: list[tuple[Manifest, Manifest]] = []  # client and server
    if asker and asked and rule.target == domain_type(asked.name):
        if rule[2:] == ("event", "bind"):
            ends = [(asker, asked), (asked, asker)]
        elif rule[2:] in (("grant", "map_read"), ("grant", "map_write")):
            ends = [(asked, asker)]
    tables = [table for client, server in ends if (table := _declaration(client, server))]
    return f"a declaration would give it: {' or '.join(tables)}" if tables else ""


def _declaration(client: Manifest, server: Manifest) -> str:
    """The table that makes the one a client of the other; empty if there can be none."""
    kinds = (client.kind, server.kind)
    if kinds == ("guest", "driver") or (client.kind == "driver" and server.lives == "setup"):
        table = "frontends"
    elif server.kind == "shard" and server.lives == "forever" and client is not server:
        table = "uses"
    else:
        return ""
    return f"[{table}.{server.name}] in {client.name}/manifest.toml"


def _statement(shards: ShardSet, rule: Rule) -> str:
    """The right that a manifest would have to state, or that there is none."""
    manifest = _owner(shards, rule.source)
    if manifest is None:
        return f"no manifest is about {rule.source}: nothing can allow it"
    others = [name for name in (*shards.manifests, *SPECIAL_TARGETS) if name not in ("self", manifest.name)]
    for on in ("self", *others):
        right = Right(on, rule.security_class, rule.permission, "", 1, 1, 1)
        if rule.permission != "bind" and rules.stated(manifest, right, shards) == rule:
            wanted = f'on = "{on}", class = "{rule.security_class}", permissions = ["{rule.permission}"]'
            return f"{manifest.name}/manifest.toml would have to state it: {wanted}"
    return "no manifest can state it: nothing can allow it"


def _owner(shards: ShardSet, type_name: str) -> Manifest | None:
    """The manifest that a type is derived from."""
    return next((m for m in shards.manifests.values() if type_name in _types(m)), None)


def _sources(manifest: Manifest) -> tuple[str, ...]:
    """The types with which its domains and their ends of event channels ask for something."""
    return domain_type(manifest.name), channel_type(manifest.name)


def _types(manifest: Manifest) -> tuple[str, ...]:
    ports = (port_type(manifest.name),) if manifest.serial else ()
    return (*_sources(manifest), self_type(manifest), *ports)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
