"""The page docs/rights.md: the table shard x right, from the manifests and from what the sweeps can't find.

    PYTHONPATH=src python tests/host/rights.py > docs/rights.md

The tests of taken-over domains assert that what they find is this, no more and no less.
"""

from __future__ import annotations

from taken_over import NOT_FOUND

from xoar.privilege import rules, shardset
from xoar.privilege.manifest import Manifest
from xoar.privilege.rules import Rule, channel_type, domain_type, self_type

_HEAD = """# Rights, and what an attacker found of them

Made by `PYTHONPATH=src python tests/host/rights.py > docs/rights.md`; a test compares. The rights are those
that the manifests state or that follow from them ([policy.md](policy.md)). In `tests/host`,
`test_every_operation.py` and `test_drivers_taken_over.py` put an attacker in each domain's place, who tries
every operation on everybody while Xen logs what it grants and refuses. They assert that

- nothing is granted that does not stand here;
- nothing that stands here is refused;
- all of it was granted in some run, but for what has a number: the reason stands below.

`own` is the domain itself, `channel` its own ends of event channels; an end may lead to whom the row `peers`
names. A right is FLASK's: class, then permissions. One that is *optional* is off until an operator permits it
(`xoar right permit`); the attacker, whom nobody permits it, must be refused.
"""


def page() -> str:
    shards = shardset.load_all()
    allowed = rules.derive(shards)
    reasons: list[str] = []
    parts = [_HEAD]
    for manifest in shards.in_boot_order():
        parts.append(f"## {manifest.name}\n")
        if manifest is shards.root:
            parts.append(
                "Not put to the test: it is domain 0 of a host on which nobody else's code runs yet.\n"
            )
        parts.append("| on | rights |\n|---|---|")
        standing = rules.at_boot(allowed)
        for on, named in _by_target(manifest, list(allowed)).items():
            by_class: dict[str, list[str]] = {}
            for rule in named:
                word = _marked(rule, reasons, tried=manifest is not shards.root)
                word += "" if rule in standing else " (optional)"
                by_class.setdefault(rule.security_class, []).append(word)
            cells = [f"{name}: {', '.join(words)}" for name, words in by_class.items()]
            parts.append(f"| {on} | {'; '.join(cells)} |")
        parts.append("")
    parts.append("## Why a right was not found\n")
    parts += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(parts)


def _by_target(manifest: Manifest, allowed: list[Rule]) -> dict[str, list[Rule]]:
    own, channel = domain_type(manifest.name), channel_type(manifest.name)
    names = {self_type(manifest): "own", channel: "channel"}
    found: dict[str, list[Rule]] = {}
    for rule in allowed:
        if rule.source == own:
            found.setdefault(names.get(rule.target, _plain(rule.target)), []).append(rule)
        elif rule.source == channel:
            found.setdefault("peers", []).append(rule)
    return found


def _plain(target: str) -> str:
    return target.removesuffix("_t").replace("_t_channel", "'s channels")


def _marked(rule: Rule, reasons: list[str], tried: bool) -> str:
    word = _plain(rule.target) if rule.permission == "bind" else rule.permission
    reason = NOT_FOUND.get(rule)
    if reason is None or not tried:
        return word
    if reason not in reasons:
        reasons.append(reason)
    return f"{word} ({reasons.index(reason) + 1})"


if __name__ == "__main__":
    print(page())
