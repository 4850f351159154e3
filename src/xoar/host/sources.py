"""Pinned Debian source packages: `source.toml` names versions in order and the sha256 of every file.

A mirror may list a version whose files it no longer has, so versions are tried in order and the one
that was taken is said. What has been fetched and checked stays in the cache under `sources/`.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from xoar.host import cache, commands
from xoar.host.apt import Apt
from xoar.host.errors import HostError, disk_errors
from xoar.host.progress import Reporter


class Version(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One acceptable version: Debian's version string and {file name: sha256 in hex}."""

    version: str
    files: dict[str, str]


class Pins(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A `source.toml`: a Debian source package and its acceptable versions, the preferred one first."""

    package: str
    versions: list[Version]


@dataclass(frozen=True)
class Source:
    """A source package in the cache: a folder with its checked files."""

    package: str
    version: str
    folder: Path
    digest: str  # of all its files' hashes: what a build made from it depends on

    def unpack(self, into: Path, log: Path) -> None:
        """Unpack it, with Debian's patches applied, to the new folder `into`."""
        (description,) = self.folder.glob("*.dsc")
        # --no-check: the files' sha256 are pinned, which says more than the uploader's signature
        commands.run(["dpkg-source", "--no-check", "-x", str(description), str(into)], log=log)


def load(path: Path) -> Pins:
    """Read a source.toml. Raises HostError with the file's name."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Pins)
    except msgspec.DecodeError as error:
        raise HostError(f"{path}: {error}", hint="See docs/building.md for the format.") from error


def check(folder: Path, pinned: dict[str, str]) -> str:
    """What is wrong with the files of a folder ("" if all are there with the pinned sha256)."""
    for name, digest in pinned.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != digest:
            return f"{name} has sha256 {found}, pinned is {digest}"
    return ""


def obtain(pins: Pins, apt: Apt, show: Reporter) -> Source:
    """The first version that the cache or else the mirror has.

    Raises HostError with the reason for every version when there is none.
    """
    held = [version for version in pins.versions if _place(pins, version).is_dir()]
    reasons = []
    if not held:
        apt.refresh()
    for version in held[:1] or pins.versions:
        place = _place(pins, version)
        try:
            with disk_errors(cache.root()), cache.locked(f"source-{pins.package}"):
                if not place.is_dir():
                    _download(pins.package, version, apt, place)
        except HostError as error:
            complaints = [line for line in error.detail.splitlines() if line.startswith("E:")]
            reasons.append(f"{version.version}: {(complaints or [error.message])[0]}")
            continue
        if reasons:
            show.say(f"{pins.package}: took {version.version} instead of {pins.versions[0].version}")
        digest = cache.key(*(part for item in sorted(version.files.items()) for part in item))
        return Source(pins.package, version.version, place, digest)
    raise HostError(
        f"no acceptable version of the source of {pins.package} could be fetched",
        detail="\n".join(reasons),
        log=cache.root() / "logs" / "apt.log",
        hint="Check the network and the mirror in /etc/apt. A newer release: docs/building.md, --xen-source.",
    )


def _place(pins: Pins, version: Version) -> Path:
    return cache.root() / "sources" / f"{pins.package}_{version.version}"


def _download(package: str, version: Version, apt: Apt, place: Path) -> None:
    temporary = place.with_name(f".{place.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        apt.download_source(package, version.version, temporary)
        wrong = check(temporary, version.files)
        if wrong:
            raise HostError(f"the mirror's files differ from the pinned ones: {wrong}")
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
