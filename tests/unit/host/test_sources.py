"""Pinned sources: order, fallback, checksums; with a mirror that a test controls."""

import hashlib
import io
from pathlib import Path

import pytest

from xoar.host import cache, sources
from xoar.host.apt import Apt
from xoar.host.errors import HostError
from xoar.host.progress import Reporter


class Mirror(Apt):
    """Has the sources in `files`: {version: {file name: contents}}; others are not found."""

    def __init__(self, show: Reporter, files: dict[str, dict[str, bytes]]) -> None:
        super().__init__(show)
        self.files = files
        self.asked: list[str] = []

    def refresh(self) -> None:
        pass

    def download_source(self, package: str, version: str, into: Path) -> None:
        self.asked.append(version)
        if version not in self.files:
            raise HostError(
                "apt-get failed", detail="Reading ...\nE: Failed to fetch it  404  Not Found\nE: Some failed"
            )
        for name, data in self.files[version].items():
            (into / name).write_bytes(data)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("XOAR_CACHE", str(tmp_path))
    return io.StringIO()


def pins(*versions: str) -> sources.Pins:
    digest = hashlib.sha256(b"good").hexdigest()
    return sources.Pins("pkg", [sources.Version(version, {"pkg.dsc": digest}) for version in versions])


GOOD = {"pkg.dsc": b"good"}


def test_the_first_version_is_preferred_and_kept(out: io.StringIO) -> None:
    show = Reporter(out)
    mirror = Mirror(show, {"2": GOOD, "1": GOOD})
    taken = sources.obtain(pins("2", "1"), mirror, show)
    assert taken.version == "2"
    assert (taken.folder / "pkg.dsc").read_bytes() == b"good"
    assert sources.obtain(pins("2", "1"), mirror, show) == taken
    assert mirror.asked == ["2"]
    assert out.getvalue() == ""


def test_a_version_that_is_not_found_is_passed_over_and_that_is_said(out: io.StringIO) -> None:
    show = Reporter(out)
    mirror = Mirror(show, {"1": GOOD})
    assert sources.obtain(pins("2", "1"), mirror, show).version == "1"
    assert "pkg: took 1 instead of 2" in out.getvalue()
    # once there, it is used without asking the mirror for the better one
    assert sources.obtain(pins("2", "1"), mirror, show).version == "1"
    assert mirror.asked == ["2", "1"]


def test_files_that_differ_from_their_pins_are_not_taken(out: io.StringIO) -> None:
    show = Reporter(out)
    mirror = Mirror(show, {"1": {"pkg.dsc": b"bad"}})
    with pytest.raises(HostError) as caught:
        sources.obtain(pins("1"), mirror, show)
    assert "sha256" in str(caught.value)
    assert list((cache.root() / "sources").iterdir()) == []


def test_when_there_is_none_every_reason_is_given(out: io.StringIO) -> None:
    show = Reporter(out)
    with pytest.raises(HostError) as caught:
        sources.obtain(pins("2", "1"), Mirror(show, {}), show)
    assert caught.value.detail == (
        "2: E: Failed to fetch it  404  Not Found\n1: E: Failed to fetch it  404  Not Found"
    )


def test_a_bad_pin_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "source.toml"
    file.write_text('package = "xen"\nversion = 1\n')
    with pytest.raises(HostError, match=r"source\.toml"):
        sources.load(file)


@pytest.mark.parametrize("folder", ["hypervisor", "nano"])
def test_the_repositorys_pins_are_complete(folder: str) -> None:
    for version in sources.load(cache.CHECKOUT / folder / "source.toml").versions:
        assert sum(name.endswith(".dsc") for name in version.files) == 1
        assert all(len(digest) == 64 for digest in version.files.values())
