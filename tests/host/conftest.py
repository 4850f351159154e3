"""One real host for all tests of a session; each test keeps its part of Xen's console and names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import HostUnderTest, nano_guest, running

from xoar.host.cache import CHECKOUT

LOGS = CHECKOUT / "test-logs"

CONFIG = """
[host]
memory = "6GiB"

[images.debian]
builtin = "debian"

[images.xentools]
builtin = "debian-xentools"

[images.tiny]
builtin = "tiny"

[images.hostile]
kernel = "{hostile}"
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", type=int, default=60, metavar="SECONDS", help="how long test_soak.py puts load on guests"
    )
    parser.addoption(
        "--rollbacks",
        type=int,
        default=300,
        metavar="NUMBER",
        help="how many in a row test_lives.py asks for",
    )


@pytest.fixture(scope="session")
def logs() -> Path:
    LOGS.mkdir(exist_ok=True)
    return LOGS


@pytest.fixture(scope="session")
def hostile_image() -> Path:
    """The ELF of a nano guest that attacks on command (attacks/guest.py)."""
    return nano_guest("hostile", "guest")


@pytest.fixture(scope="session")
def state(logs: Path) -> Iterator[None]:
    """Hosts under test live in a folder of their own."""
    before = os.environ.get("XOAR_STATE")
    os.environ["XOAR_STATE"] = str(logs / "state")
    yield
    if before is None:
        del os.environ["XOAR_STATE"]
    else:
        os.environ["XOAR_STATE"] = before


@pytest.fixture(scope="session")
def shared_host(state: None, hostile_image: Path, logs: Path) -> Iterator[HostUnderTest]:
    with running("test", CONFIG.format(hostile=hostile_image), logs) as host:
        yield host


@pytest.fixture
def host(shared_host: HostUnderTest, request: pytest.FixtureRequest) -> Iterator[HostUnderTest]:
    """The session's host, without guests before and after the test."""
    start = shared_host.log_position()
    try:
        yield shared_host
        shared_host.destroy_all()
    finally:
        log = LOGS / f"{request.node.name}.log"
        log.write_text(shared_host.log_since(start))
        request.node.user_properties.append(("Xen's console", str(log)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        log = LOGS / f"{item.name}.log"
        report.sections.append(("Xen's console", f"see {log} once the test has ended"))
