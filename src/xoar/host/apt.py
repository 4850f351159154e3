"""Debian packages through a private apt state: the user's lists, cache and configuration stay as they are.

apt checks the archive's signature (Debian's archive keyring) and each file's checksum. Its dpkg
status is empty, so a package's dependencies come along down to the C library: what is unpacked from
them runs on any Debian, whatever is installed there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

from xoar.host import cache, commands, mirrors
from xoar.host.errors import HostError, disk_errors
from xoar.host.progress import Reporter

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BINARY_SUITE = "bookworm"  # pinned kernel, busybox, QEMU 7.2 and Xen's tools come from here
_RESERVE = 16 << 20  # bytes of free space below which fetching is given up
SOURCE_SUITES = ("bookworm", "trixie")
LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
"""The dynamic loader below the folder of unpacked packages; lib64 has a link to the machine's own one."""
_NO_NETWORK = "Check the network and the mirror in /etc/apt; then start again. What was fetched is kept."


class Apt:
    """One private apt state in the cache. `show` displays what is fetched."""

    def __init__(self, show: Reporter) -> None:
        self._show = show
        self._folder = cache.root() / "apt"
        self._log = cache.root() / "logs" / "apt.log"
        self._fresh = False

    def refresh(self) -> None:
        """Bring the package lists up to date, once per process. Raises HostError without network."""
        with self._ready():
            pass

    def download_source(self, package: str, version: str, into: Path) -> None:
        """Fetch the files of that source package (.dsc and tarballs). Raises HostError."""
        with self._ready():
            self._apt_get(
                f"fetching the source of {package} {version}",
                ["source", "--download-only", f"{package}={version}"],
                cwd=into,
            )

    def download(self, packages: list[str], into: Path) -> None:
        """Fetch just these binary packages (.deb), the newest of the pinned suite. Raises HostError."""
        with self._ready():
            self._apt_get(f"fetching {' '.join(packages)}", ["download", *packages], cwd=into)

    def download_with_dependencies(self, packages: list[str], into: Path) -> None:
        """Fetch these binary packages and all that they depend on, the C library included."""
        into.joinpath("partial").mkdir()
        with self._ready():
            self._apt_get(
                f"fetching {' '.join(packages)} and dependencies",
                [
                    "install",
                    "--download-only",
                    "--yes",
                    "--no-install-recommends",
                    "-o",
                    f"Dir::Cache::archives={into}",
                    *packages,
                ],
                cwd=into,
            )

    def candidate(self, package: str) -> str:
        """The version of a binary package that `download` would take."""
        return self._query(package, "Version")

    def depends(self, package: str) -> str:
        """The Depends field of a binary package."""
        return self._query(package, "Depends")

    def date(self) -> int:
        """When the newest package list of the binary suite was made, in seconds since 1970."""
        with self._ready():
            return newest(
                file.read_text() for file in self._folder.glob(f"lists/*_{BINARY_SUITE}*_InRelease")
            )

    def _query(self, package: str, field: str) -> str:
        with self._ready():
            done = subprocess.run(
                ["apt-cache", *self._options(), "show", "--no-all-versions", package],
                capture_output=True,
                text=True,
                env=commands.environment(),
                check=False,
            )
        match = re.search(rf"^{field}: (.*)$", done.stdout, re.MULTILINE)
        if match is None:
            raise HostError(f"the mirror has no package {package} with a field {field}", hint=_NO_NETWORK)
        return match[1]

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Hold the state's lock; the first time, bring the package lists up to date."""
        with disk_errors(self._folder):
            for folder in ("lists/partial", "cache/archives/partial"):
                (self._folder / folder).mkdir(parents=True, exist_ok=True)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with cache.locked("apt"):
                if not self._fresh:
                    self._log.write_text("")
                    (self._folder / "sources.list").write_text(sources_list(mirrors.configured()))
                    update = ["-o", "APT::Update::Error-Mode=any", "update"]
                    self._apt_get("reading Debian's package lists", update)
                    self._fresh = True
                yield

    def _options(self) -> list[str]:
        folder = self._folder
        settings = {
            "Dir::State": f"{folder}",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": f"{folder}/cache",
            "Dir::Etc::sourcelist": f"{folder}/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",  # the user's own folders: nobody to change to
            "Debug::NoLocking": "1",  # dpkg's lock is root's, and nothing is installed; we hold our own
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _apt_get(self, what: str, arguments: list[str], cwd: Path | None = None) -> None:
        """Run apt-get with its progress (APT::Status-Fd: "dlstatus:<n>:<percent>:<text>") shown."""
        with self._show.step(what, 100) as step:

            def on_line(line: str) -> bool:
                if shutil.disk_usage(self._folder).free < _RESERVE:  # apt itself waits for room for ever
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                match = re.match(r"dlstatus:\d+:([0-9.]+):", line)
                if match:
                    step.at(int(float(match[1])))
                return match is not None

            commands.run(
                ["apt-get", *self._options(), "-o", "APT::Status-Fd=1", *arguments],
                cwd=cwd,
                log=self._log,
                on_line=on_line,
                what=f"{what}: apt-get",
                hint=_NO_NETWORK,
            )


def sources_list(where: mirrors.Mirrors) -> str:
    """The text of the private state's sources.list."""
    options = f"[signed-by={KEYRING}]"
    suites = [("deb", BINARY_SUITE), *(("deb-src", suite) for suite in SOURCE_SUITES)]
    lines = [f"{kind} {options} {where.archive} {suite} main" for kind, suite in suites]
    if where.security:
        lines += [f"{kind} {options} {where.security} {suite}-security main" for kind, suite in suites]
    return "\n".join(lines) + "\n"


def newest(releases: Iterable[str]) -> int:
    """The latest date in these Release files, in seconds since 1970."""
    dates = [re.search(r"^Date: (.*)$", text, re.MULTILINE) for text in releases]
    return max(int(parsedate_to_datetime(date[1]).timestamp()) for date in dates if date)


def unpack(folder: Path, into: Path, log: Path) -> None:
    """Unpack all .deb files of a folder over one another below `into`."""
    for package in sorted(folder.glob("*.deb")):
        commands.run(["dpkg-deb", "-x", str(package), str(into)], log=log)


def version_of(package: Path) -> str:
    """The version in a .deb's file name (apt escapes the epoch's colon)."""
    return os.path.basename(package).split("_")[1].replace("%3a", ":")
