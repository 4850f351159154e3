"""Root in a driver domain gets at nothing of the machine but its own device."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import ATTACKS, running

from xoar.host import cache, up
from xoar.host.build import driver

pytestmark = pytest.mark.devices

CONFIG = """
[host]
memory = "1GiB"

[drivers.net0]
kind = "netback"
"""


def test_a_driver_domain_gets_at_nothing_but_its_device(
    state: None, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "xoar"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(cache.CHECKOUT / "src/xoar", source, ignore=ignored)
    shutil.copyfile(ATTACKS / "curious_netback.py", source / "shards/netback/main.py")
    images = lambda system, show: driver._images(driver._NETBACK, system, show, source)  # noqa: E731
    monkeypatch.setitem(up._DRIVERS, "netback", images)
    with running("curious", CONFIG, logs) as host:
        assert host.wait_log(r"net0 .* failed: (.*)", 0, 180)[1] == "device seen, 9 attempts, done: none"
