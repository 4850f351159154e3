"""Debian's XenStore tools, unpacked into the cache and run from there: nothing is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from xoar.host import apt, cache
from xoar.host.progress import Reporter

_UTILS = (
    "xen-utils-4.17"  # Debian 12's, the suite of xoar.host.apt; wanted for a few programs, not for its Python
)
_WITH_LIBRARIES = ["xenstore-utils", "libxenmisc4.17"]


class Tools:
    """Programs of xenstore-utils and xen-utils, run with the C library of their own suite."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def argv(self, program: str, *arguments: str) -> list[str]:
        """The command line that runs a program."""
        private = sorted(self._root.glob(f"usr/lib/xen-*/bin/{program}"))
        path = private[0] if private else self._root / "usr/bin" / program
        libraries = sorted({str(found.parent) for found in self._root.glob("**/lib*.so*")})
        loader = self._root / apt.LOADER
        return [str(loader), "--library-path", ":".join(libraries), "--argv0", program, str(path), *arguments]

    def environment(self, socket: Path) -> dict[str, str]:
        """The environment in which the programs speak to the server on `socket`."""
        return os.environ | {"XENSTORED_PATH": str(socket)}


def xenstore_tools() -> Tools:
    """The tools, from `tools/` in Xoar's cache; downloaded if they are not there. Raises HostError."""
    root = cache.root() / "tools" / _UTILS
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{_UTILS}-", dir=root.parent))
        try:
            packages = work / "packages"
            packages.mkdir()
            debian = apt.Apt(Reporter())
            debian.download_with_dependencies(_WITH_LIBRARIES, packages)
            debian.download([_UTILS], packages)
            apt.unpack(packages, work / "root", cache.root() / "logs" / "xenstore-tools.log")
            (work / "root").rename(root)
        finally:
            shutil.rmtree(work)
    return Tools(root)
