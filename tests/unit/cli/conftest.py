"""Commands against a host that is none: `fake_host.FakeHost` behind a real socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_host import FakeHost, Run
from typer.testing import CliRunner, Result

from xoar.cli.main import app


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hosts of a test live in its own folder, whose path is longer than a socket's address may be."""
    folder = tmp_path / ("state" * 25)
    monkeypatch.setenv("XOAR_STATE", str(folder))
    monkeypatch.chdir(tmp_path)
    for name in ("XOAR_HOST", "XOAR_CONFIG"):
        monkeypatch.setenv(name, "")  # so that what a command sets is taken back, too
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def host() -> Iterator[FakeHost]:
    """A running host with the default name."""
    with FakeHost() as running:
        yield running


@pytest.fixture
def run() -> Run:
    """Runs a command line as in a pipe; its Result."""

    def command(*words: str, input: str | None = None) -> Result:
        before = dict(os.environ)
        result = CliRunner().invoke(app, words, input=input, prog_name="xoar")
        os.environ.clear()
        os.environ.update(before)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return command
