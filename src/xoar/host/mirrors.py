"""Which Debian mirrors this machine is configured for, read from /etc/apt (sources.list(5)).

Only the addresses are taken: the suites that Xoar needs may differ from the machine's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xoar.host.errors import HostError

_SUITES = {"bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing", "unstable"}
_KEYRING = "debian-archive"


@dataclass(frozen=True)
class Mirrors:
    """Addresses as apt takes them; `security` is None where the machine has no security archive."""

    archive: str
    security: str | None


@dataclass(frozen=True)
class _Entry:
    uris: list[str]
    suites: list[str]
    components: list[str]
    signed_by: str


def _one_line(text: str) -> Iterator[_Entry]:
    """Entries of the one-line format: `deb [option=value ...] uri suite component ...`."""
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[([^]]*)\]\s*)?([^#]*)", line)
        words = match[2].split() if match else []
        if match and len(words) >= 3:
            options = dict(word.split("=", 1) for word in (match[1] or "").split() if "=" in word)
            yield _Entry(words[:1], words[1:2], words[2:], options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[_Entry]:
    """Entries of the deb822 format: stanzas of `Field: value`, continued on indented lines."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = fields.get(name, "") + " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() not in ("no", "false", "without", "off", "disable"):
            yield _Entry(
                fields.get("uris", "").split(),
                fields.get("suites", "").split(),
                fields.get("components", "").split(),
                fields.get("signed-by", ""),
            )


def _is_debian(entry: _Entry) -> bool:
    """Whether it is Debian's own archive: others use Debian's suite names too, but not its keyring."""
    return "main" in entry.components and (not entry.signed_by or _KEYRING in entry.signed_by)


def configured(etc: Path = Path("/etc/apt")) -> Mirrors:
    """The first Debian archive and security archive in apt's configuration.

    Raises HostError when there is none.
    """
    entries: list[_Entry] = []
    for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if file.is_file() and file.suffix in (".list", ".sources"):
            text = file.read_text(encoding="utf-8", errors="replace")
            entries += _one_line(text) if file.suffix == ".list" else _deb822(text)
    archive = security = None
    for entry in filter(_is_debian, entries):
        for suite in entry.suites:
            release, _, part = suite.replace("/", "-").partition("-")
            usable = release in _SUITES and entry.uris and not entry.uris[0].startswith("cdrom:")
            if usable and suite.endswith(("-security", "/updates")):
                security = security or entry.uris[0]
            elif usable and part in ("", "updates"):
                archive = archive or entry.uris[0]
    if archive is None:
        raise HostError(
            f"no Debian mirror in {etc}/sources.list or {etc}/sources.list.d",
            hint="Xoar takes Xen's and MicroPython's sources from the machine's own mirror: configure one.",
        )
    return Mirrors(archive.rstrip("/"), security.rstrip("/") if security else None)
