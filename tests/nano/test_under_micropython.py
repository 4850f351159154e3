"""Every other file of this folder once more, under MicroPython's unix port."""

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "src"
FILES = sorted(path.stem for path in HERE.glob("test_*.py") if path != Path(__file__))
HEAP = "8m"  # about what a shard has


@pytest.mark.parametrize("file", FILES)
def test_file_passes_under_micropython(file: str, micropython_binary: Path) -> None:
    run = subprocess.run(
        [micropython_binary, "-X", f"heapsize={HEAP}", HERE / "run.py", file],
        env={**os.environ, "MICROPYPATH": f"{SOURCES}:{HERE}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if run.returncode != 0:
        pytest.fail(f"exit code {run.returncode}\n{run.stdout}{run.stderr}", pytrace=False)
