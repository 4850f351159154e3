"""The launcher's own errors; set-up itself is shown by every test run, which begins with it."""

import os
import subprocess
from pathlib import Path

from xoar.host.cache import CHECKOUT

LAUNCHER = CHECKOUT / "xoar"


def run(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XOAR_CACHE": str(cache)}
    return subprocess.run(
        [str(LAUNCHER), *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_it_is_valid_bash() -> None:
    subprocess.run(["bash", "-n", str(LAUNCHER)], check=True)


def test_a_lock_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("--interpreter", "none.lock", cache=tmp_path)
    assert done.returncode == 1
    assert "none.lock" in done.stderr


def test_a_cache_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("--interpreter", cache=tmp_path / "file" / "cache")
    assert done.returncode == 1
    assert "can't make the cache folder" in done.stderr
    assert "XOAR_CACHE" in done.stderr
