"""Rollbacks on a real Xen: a shard is what it was at its snapshot, whatever it did meanwhile."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from harness import launched

from xoar.host.assembly import Replacement
from xoar.privilege import shardset
from xoar.privilege.manifest import SHARDS_FOLDER

LIVES = Path(__file__).parent / "lives"
REPLACED = {
    "probe": Replacement("probe", LIVES),
    "restorer": Replacement("checking_restorer", LIVES),
    "toolstack": Replacement("kicker", LIVES),
}


@pytest.fixture
def with_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts have the shard of lives/probe.toml, too."""
    folder = tmp_path / "shards"
    for manifest in SHARDS_FOLDER.glob("*/manifest.toml"):
        text = manifest.read_text()
        if manifest.parent.name in ("bootstrapper", "builder"):
            text = text.replace('"toolstack"]\nclass', '"toolstack", "probe"]\nclass')
        (folder / manifest.parent.name).mkdir(parents=True)
        (folder / manifest.parent.name / "manifest.toml").write_text(text)
    (folder / "probe").mkdir()
    shutil.copy(LIVES / "probe.toml", folder / "probe/manifest.toml")
    original = shardset.load_all
    monkeypatch.setattr(shardset, "load_all", lambda: original(folder))


def test_a_shard_is_what_it_was_whatever_it_does(state: None, logs: Path, with_probe: None) -> None:
    with launched("lives", '[images.tiny]\nbuiltin = "tiny"\n', logs, REPLACED) as host:
        host.wait_log("kicker: storm over|Traceback.*|no snapshot of", 0, timeout=400)
        log = host.log_since(0)
    assert "kicker: no answer" not in log
    lives = re.findall(r"probe life (\d+): (\w+)", log)
    assert {word for _, word in lives} == {"whole"}
    compared = re.findall(r"compared (\d+) frames: different (.*)", log)
    assert {found for _, found in compared} == {"[]"}
    assert [frames for frames, _ in compared].count(str(8 * 256)) == 60
    assert "kicker: done, to be asked after 1, 1000 ms" in log
    assert set(re.findall(r"refused: (.*)", log)) == {"-16 -16 -16 -16 -13"}
