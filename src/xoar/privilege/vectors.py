"""Xen's security classes, permissions and initial SIDs, read from the source of the Xen being built.

Nothing of them is written down here: a policy must list them exactly as the hypervisor was compiled with them
(xen/xsm/flask/policy), plus those that only user-space object managers use (tools/flask/policy/policy).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from xoar.privilege.errors import PolicyError

_HYPERVISOR = Path("xen/xsm/flask/policy")
_TOOLS = Path("tools/flask/policy/policy")
_MAKEFILE = Path("tools/flask/policy/Makefile.common")


@dataclass(frozen=True)
class AccessVectors:
    """What FLASK in one Xen can tell apart."""

    preamble: str  # classes, SIDs and access vectors as the head of a policy.conf
    initial_sids: tuple[str, ...]
    permissions: dict[str, tuple[str, ...]]  # by security class
    policy_versions: tuple[int, ...]  # binary formats that the hypervisor reads


def load(xen_source: Path) -> AccessVectors:
    """Reads the files of a Xen source tree. Raises PolicyError."""
    try:
        classes = _read(xen_source, _HYPERVISOR / "security_classes", _TOOLS / "security_classes")
        sids = _read(xen_source, _HYPERVISOR / "initial_sids")
        vectors = _read(xen_source, _HYPERVISOR / "access_vectors", _TOOLS / "access_vectors")
        makefile = _read(xen_source, _MAKEFILE)
    except OSError as error:
        raise PolicyError(f"{xen_source} is not the source of a Xen with FLASK: {error}") from error
    return parse(classes, sids, vectors, makefile)


def parse(classes: str, sids: str, vectors: str, makefile: str) -> AccessVectors:
    """Parses the files' texts. Raises PolicyError if they don't fit together."""
    declared = re.findall(r"^\s*class\s+(\w+)\s*$", _plain(classes), re.MULTILINE)
    bodies = re.findall(r"\bclass\s+(\w+)\s*\{([^{}]*)\}", _plain(vectors))
    permissions = {name: tuple(body.split()) for name, body in bodies}
    if not declared or set(declared) != set(permissions):
        raise PolicyError("Xen's security_classes and access_vectors name different classes")
    versions = re.search(r"^POLICY_VER_LIST_HV\s*=\s*([0-9 ]+)$", makefile, re.MULTILINE)
    if versions is None:
        raise PolicyError(f"{_MAKEFILE} does not say which policy versions the hypervisor reads")
    return AccessVectors(
        preamble="\n".join(text.rstrip() for text in (classes, sids, vectors)) + "\n",
        initial_sids=tuple(re.findall(r"^\s*sid\s+(\w+)\s*$", _plain(sids), re.MULTILINE)),
        permissions=permissions,
        policy_versions=tuple(int(version) for version in versions[1].split()),
    )


def _read(xen_source: Path, *files: Path) -> str:
    return "\n".join((xen_source / file).read_text(encoding="utf-8") for file in files)


def _plain(text: str) -> str:
    """The text without comments."""
    return re.sub(r"#[^\n]*", "", text)
