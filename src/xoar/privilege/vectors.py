"""Xen's security classes, permissions and initial SIDs, read from the files of the Xen that was built.

Nothing of them is written down here: a policy must list them exactly as the hypervisor was compiled with them
(Xen's xen/xsm/flask/policy), plus those that only user-space object managers use (tools/flask/policy/policy).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from xoar.privilege.errors import PolicyError

_TOOLS = "policy/policy"


@dataclass(frozen=True)
class AccessVectors:
    """What FLASK in one Xen can tell apart."""

    preamble: str  # classes, SIDs and access vectors as the head of a policy.conf
    initial_sids: tuple[str, ...]
    permissions: dict[str, tuple[str, ...]]  # by security class


def load(flask: Path) -> AccessVectors:
    """Reads the FLASK folder of a built Xen (`xoar.host.build.xen.Xen.flask`). Raises PolicyError."""
    try:
        classes = _read(flask / "security_classes", flask / _TOOLS / "security_classes")
        sids = _read(flask / "initial_sids")
        vectors = _read(flask / "access_vectors", flask / _TOOLS / "access_vectors")
    except OSError as error:
        raise PolicyError(f"{flask} does not hold the FLASK files of a Xen: {error}") from error
    return parse(classes, sids, vectors)


def parse(classes: str, sids: str, vectors: str) -> AccessVectors:
    """Parses the files' texts. Raises PolicyError if they don't fit together."""
    declared = re.findall(r"^\s*class\s+(\w+)\s*$", _plain(classes), re.MULTILINE)
    bodies = re.findall(r"\bclass\s+(\w+)\s*\{([^{}]*)\}", _plain(vectors))
    permissions = {name: tuple(body.split()) for name, body in bodies}
    if not declared or set(declared) != set(permissions):
        raise PolicyError("Xen's security_classes and access_vectors name different classes")
    return AccessVectors(
        preamble="\n".join(text.rstrip() for text in (classes, sids, vectors)) + "\n",
        initial_sids=tuple(re.findall(r"^\s*sid\s+(\w+)\s*$", _plain(sids), re.MULTILINE)),
        permissions=permissions,
    )


def _read(*files: Path) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def _plain(text: str) -> str:
    """The text without comments."""
    return re.sub(r"#[^\n]*", "", text)
