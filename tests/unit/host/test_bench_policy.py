"""The policy that `xoar bench policy` compares with."""

import re
from pathlib import Path

from xoar.host import config
from xoar.host.bench import policy as bench
from xoar.host.build import policy, xen
from xoar.host.cache import CHECKOUT
from xoar.privilege import flask, rules, shardset, vectors


def test_it_allows_every_right_of_every_class_among_the_same_types_and_labels(built_xen: xen.Xen) -> None:
    shards, access_vectors = shardset.load_all(), vectors.load(built_xen.flask)
    text = bench.all_rights(shards, access_vectors)
    policy.compile(text)
    lines = re.findall(r"^allow \{ ([^}]+) \} \{ ([^}]+) \}:(\w+) (.*);$", text, re.MULTILINE)
    allowed = {security_class: set(many.strip("{} ").split()) for _, _, security_class, many in lines}
    assert allowed == {name: set(many) for name, many in access_vectors.permissions.items()}
    sources, targets = ({name for line in lines for name in line[side].split()} for side in (0, 1))
    declared = set(re.findall(r"^type (\w+)", text, re.MULTILINE))
    assert sources == targets == declared
    for rule in rules.derive(shards):
        assert {rule.source, rule.target} <= declared

    def others(text: str) -> list[str]:
        """All lines but those of rules."""
        return [line for line in text.splitlines() if not re.match(r"#|allow |if |neverallow |$", line)]

    assert others(text) == others(flask.generate(shards, access_vectors))


def test_nothing_but_the_benchmark_can_make_it() -> None:
    users = {path for path in (CHECKOUT / "src").rglob("*.py") if "all_rights" in path.read_text()}
    assert users == {Path(bench.__file__)}
    assert not any(
        "policy" in field for kind in (config.Config, config.Host) for field in kind.__annotations__
    )
