"""A small set of manifests that agree with each other, for tests to break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xoar.host.build.xen import Xen
from xoar.privilege import manifest, shardset, vectors

_SHARD = """\
name = "{name}"
summary = "a shard"
kind = "shard"
main = "xoar.shards.{name}.main"
memory = "8MiB"
parent = "bootstrapper"
lives = "forever"
restart = "none"
"""

SAMPLES = {
    "bootstrapper": """\
name = "bootstrapper"
summary = "the first"
kind = "shard"
main = "xoar.shards.bootstrapper.main"
memory = "8MiB"
lives = "boot"
restart = "none"

[[rights]]
on = ["xenstore", "console", "builder"]
class = "domain"
permissions = [
    "create",
    "unpause",
]
why = "starts them"

[[rights]]
on = "xen"
class = "xen"
permissions = ["writeconsole"]
why = "log lines"
""",
    "xenstore": _SHARD.format(name="xenstore"),
    "console": _SHARD.format(name="console")
    + """
[serial]
ports = "0x2f8-0x2ff"
""",
    "builder": _SHARD.format(name="builder")
    + """receives = ["exceptions", "library"]

[uses.xenstore]
link = "introduce"

[uses.console]
link = "introduce"

[[rights]]
on = "guest"
class = "mmu"
permissions = ["map_read", "map_write"]
why = "loads kernels"

[[rights]]
on = "guest"
class = "event"
permissions = ["create"]
why = "wires links"
""",
    "guest": """\
name = "guest"
summary = "a guest"
kind = "guest"
parent = "builder"

[uses.xenstore]

[uses.console]

[[rights]]
on = "self"
class = "mmu"
permissions = ["physmap"]
why = "its own memory"
""",
}

_DRIVER = """\
name = "{name}"
summary = "a driver domain"
kind = "driver"
memory = "64MiB"
parent = "builder"
lives = "forever"
restart = "none"

[uses.xenstore]

[frontends.pciback]
protocol = "pci"
"""

# What there is besides when the host has devices
DEVICES = {
    "pciback": _SHARD.format(name="pciback")
    .replace('lives = "forever"', 'lives = "setup"')
    .replace('parent = "bootstrapper"', 'parent = "builder"')
    + """
[uses.xenstore]

[uses.builder]

[[rights]]
on = "netback"
class = "resource"
permissions = ["add"]
why = "maps interrupts"
""",
    "netback": _DRIVER.format(name="netback"),
    "blkback": _DRIVER.format(name="blkback"),
    "guest": SAMPLES["guest"]
    + """
[frontends.netback]
protocol = "vif"

[frontends.blkback]
protocol = "vbd"
""",
    "builder": SAMPLES["builder"].replace('"library"]', '"library", "hardware"]'),
}

Check = Callable[[dict[str, str]], shardset.ShardSet]


@pytest.fixture
def samples() -> dict[str, str]:
    """Texts of manifests by name; a test may change its copy."""
    return dict(SAMPLES)


@pytest.fixture
def device_samples() -> dict[str, str]:
    """The same with PCIBack and two kinds of driver domains."""
    return SAMPLES | DEVICES


@pytest.fixture
def check() -> Check:
    """Parses texts by name and checks them against each other."""

    def parse(texts: dict[str, str]) -> shardset.ShardSet:
        found = [manifest.parse(text, Path("shards", name, "manifest.toml")) for name, text in texts.items()]
        return shardset.check(found)

    return parse


@pytest.fixture(scope="session")
def access_vectors(built_xen: Xen) -> vectors.AccessVectors:
    """What the FLASK of the Xen that Xoar builds can tell apart."""
    return vectors.load(built_xen.flask)
