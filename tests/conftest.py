"""What all tests share: section headings, and things built once (./run-tests builds them beforehand)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from xoar.host.apt import Apt
from xoar.host.build import abi, micropython, xen
from xoar.host.progress import Reporter

# how long an example takes says more of the machine's other work than of the code
settings.register_profile("xoar", deadline=None)
settings.load_profile("xoar")

SECTIONS = {
    "unit": "unit: linters, types, and everything that needs no Xen",
    "nano": "nano: the portable modules under CPython and MicroPython",
    "host": "host: a real Xen in the emulator",
}


@pytest.fixture(scope="session")
def built_xen() -> xen.Xen:
    """The hypervisor that Xoar runs on, from the cache."""
    show = Reporter()
    return xen.build(Apt(show), show)


@pytest.fixture(scope="session")
def micropython_binary() -> Path:
    """MicroPython's unix port, from the cache."""
    show = Reporter()
    return micropython.unix_port(micropython.build(Apt(show), show), show)


def pytest_report_header() -> str | None:
    if not abi.MODULE.exists():
        return "xoar.abi.xen is missing, tests that need it will fail: ./run-tests generates it"
    return None


class _Headings:
    """Writes a heading whenever the tests of another folder begin."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._section = ""

    @pytest.hookimpl(tryfirst=True)  # before the terminal reporter writes the file's name
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        section = nodeid.split("/")[1] if nodeid.startswith("tests/") else ""
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if section != self._section and section in SECTIONS and reporter is not None:
            self._section = section
            reporter.ensure_newline()
            reporter.write_line(f"--- {SECTIONS[section]} ---", bold=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Headings(config), "xoar-headings")
