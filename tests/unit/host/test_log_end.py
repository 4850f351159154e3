"""What is shown of Xen's console when a host fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from xoar.host.state import Host


def test_the_last_lines_are_shards_and_xens_own_without_the_parts_of_vcpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XOAR_STATE", str(tmp_path))
    host = Host("lab")
    assert host.log_end() == ""
    host.xen_log.parent.mkdir(parents=True)
    parts = [f"(XEN) HVM d4v0 save: PART{number}" for number in range(19)]
    lines = ["(d2) no serial port today", *parts, "bootstrapper: (XEN) HVM d4v0 save: CPU", "can't go on"]
    host.xen_log.write_text("\r\n".join([*lines, *parts, "", "(XEN) Hardware Dom0 crashed"]))
    told = ["(d2) no serial port today", "bootstrapper: can't go on", "(XEN) Hardware Dom0 crashed"]
    assert host.log_end(3).splitlines() == told
