"""PCIBack, NetBack, BlkBack and a guest taken over: each reaches what the manifests state, and nothing else.

The driver domains are as shipped but for the attacker's program in place of the agent, and a kernel that is
not locked down and has xen-privcmd: so root can make hypercalls as the kernel could.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import ATTACKS, SHARDS, HostUnderTest, running
from taken_over import EINVAL, ENOENT, EPERM, OFTEN_ASKED, audit, forged, judge, outcome
from test_every_operation import BUILT

from xoar.host import cache, up
from xoar.host.apt import Apt
from xoar.host.assembly import Replacement
from xoar.host.build import driver
from xoar.host.progress import Reporter

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "2GiB"

[drivers.net0]
kind = "netback"
memory = "128MiB"

[drivers.disk0]
kind = "blkback"
memory = "160MiB"
size = "64MiB"

[images.hostile]
kernel = "{hostile}"
"""
DRIVERS = {"netback": "_NETBACK", "blkback": "_BLKBACK"}
TYPES = {
    str(domid): f"{name}_t"
    for domid, name in (
        *enumerate((*SHARDS, "pciback", "netback", "blkback"), 1),
        (32, "guest"),
    )
}
# Linux does this all the time: a line in Xen's log for each would keep it from running
_USUAL = r"(net|blk)back_t (\w+_channel:event send|\w+_self:mmu (map_read|map_write|mmuext_op|pinpage));"
# Builder is asked for each page of a driver domain; test_every_operation.py finds that it has these
PER_PAGE = "builder_t .*:mmu (map_read|map_write|adjust|physmap);"
_NOT_LOCKED_DOWN = " lockdown=confidentiality"


def attackers_builder(folder: Path) -> Replacement:
    """Builder as shipped, but for the command line of driver domains."""
    for package in ("xoar", "xoar/builder"):
        (folder / package).mkdir(parents=True)
        shutil.copyfile(cache.CHECKOUT / "src" / package / "__init__.py", folder / package / "__init__.py")
    text = (cache.CHECKOUT / "src/xoar/builder/machine.py").read_text()
    assert _NOT_LOCKED_DOWN in text
    (folder / "xoar/builder/machine.py").write_text(text.replace(_NOT_LOCKED_DOWN, ""))
    return Replacement("xoar.shards.builder.main", folder)


def attackers_agent(folder: Path, kind: str) -> Path:
    """The sources of a driver domain whose agent is the attacker's program."""
    source = folder / "xoar"
    shutil.copytree(cache.CHECKOUT / "src/xoar", source, ignore=shutil.ignore_patterns("__pycache__"))
    place = source / "shards" / kind
    for name in ("operations", "linux_machine"):
        shutil.copyfile(ATTACKS / f"{name}.py", place / f"{name}.py")
    text = (ATTACKS / "taken_driver.py").read_text()
    text = re.sub(r"from (operations|linux_machine)", rf"from xoar.shards.{kind}.\1", text)
    (place / "main.py").write_text(text)
    return source


def attackers_images(name: str, source: Path, system: Apt, show: Reporter) -> driver.Images:
    return driver._images(getattr(driver, name), system, show, source)


@pytest.fixture(scope="module")
def taken(
    state: None, logs: Path, hostile_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HostUnderTest]:
    with pytest.MonkeyPatch.context() as patch:
        audit(patch, "pciback", *DRIVERS, "guest", but=_USUAL)
        for kind, name in DRIVERS.items():
            shipped = getattr(driver, name)
            patch.setattr(
                driver, name, dataclasses.replace(shipped, modules=(*shipped.modules, "xen-privcmd"))
            )
            source = attackers_agent(tmp_path_factory.mktemp(kind), kind)
            patch.setitem(up._DRIVERS, kind, partial(attackers_images, name, source))
        replaced = {
            "builder": attackers_builder(tmp_path_factory.mktemp("builder")),
            "pciback": Replacement("taken_pciback", ATTACKS),
        }
        with running("taken-drivers", CONFIG.format(hostile=hostile_image), logs, replaced) as host:
            assert host.create("g", "hostile", "16MiB") == 32
            yield host


def swept(host: HostUnderTest, domid: int, folder: Path) -> str:
    """What a driver domain's console shows once it has swept."""
    with host.client() as client:
        stream = client.log(domid, follow=True)
        seen = b""
        while not re.search(rb"sweep (done|failed)", seen):
            data = stream.read(300)
            assert data, seen[-2000:]
            seen += data
        text = (seen + stream.read(1.0)).decode(errors="replace").replace("\r", "")
    (folder / f"taken-drivers-{domid}.log").write_text(text)
    return text


def victims(attacker: str) -> dict[str, str]:
    return {domid: victim for domid, victim in TYPES.items() if victim != f"{attacker}_t"}


def test_pciback_taken_over(taken: HostUnderTest) -> None:
    taken.wait_log(r"sweep done.*|Traceback", 0, timeout=300)
    log = taken.log_since(0)
    assert re.findall(r"sweep done: (.*)", log) == [" ".join(victims("pciback"))]
    judge("pciback", outcome("pciback", log, log), victims("pciback"), devices=True)
    taken.wait_log(r"forging done", 0)
    answers = forged(taken.log_since(0))
    assert len(answers) == 11
    assert set(answers.values()) <= {EPERM, EINVAL, ENOENT}, answers


@pytest.mark.parametrize(("kind", "domid"), [("netback", len(SHARDS) + 2), ("blkback", len(SHARDS) + 3)])
def test_a_driver_domain_taken_over(taken: HostUnderTest, logs: Path, kind: str, domid: int) -> None:
    said = swept(taken, domid, logs)
    judge(kind, outcome(kind, said, taken.said_since(0)), victims(kind), devices=True)
    mapped, mine = (re.search(rf"^{word} (.*)$", said, re.MULTILINE) for word in ("mapped", "mine"))
    assert mapped and mine
    assert mapped[1].split() == mine[1].split(), "registers that are not its device's"


def test_a_guest_beside_driver_domains(taken: HostUnderTest) -> None:
    others = victims("guest")
    said = taken.ask("g", f"sweep {' '.join(others)}", rb"sweep done", 240).decode()
    judge("guest", outcome("guest", said, taken.said_since(0)), others)


@pytest.mark.parametrize("shard", ["xenstore", "console", "builder", "logic"])
def test_a_shard_taken_over_beside_driver_domains(
    state: None, logs: Path, hostile_image: Path, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    audit(monkeypatch, shard, but=f"{OFTEN_ASKED}|{PER_PAGE}")
    config = CONFIG.format(hostile=hostile_image)
    replaced = {shard: Replacement(f"taken_{shard}", ATTACKS)}
    with running(f"beside-{shard}", config, logs, replaced) as host:
        deadline = time.monotonic() + 120
        while not {"pciback", "net0", "disk0"} <= {row["name"] for row in host.json("ps")}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        host.create("g", "hostile", "16MiB")
        host.wait_log(r"sweep done|Traceback|crashed", 0, timeout=240)
        log = host.log_since(0)
    types = victims(shard) | (BUILT if shard == "builder" else {})
    assert re.findall(r"sweep done: (.*?)\r?$", log, re.MULTILINE) == [" ".join(types)]
    judge(shard, outcome(shard, log, log), types, devices=True, elsewhere=PER_PAGE)
