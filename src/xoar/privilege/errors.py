"""Errors of the package: what is wrong with a manifest, where, and what to do."""

from pathlib import Path


class PrivilegeError(Exception):
    """Root of all errors that this package raises."""


class ManifestError(PrivilegeError):
    """A manifest, or the set of manifests, can't be accepted. `str()` begins with file:line."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        super().__init__(f"{path}:{line}: {text}")
        self.path = path
        self.line = line


class PolicyError(PrivilegeError):
    """The policy can't be generated or compiled for a reason that lies in no manifest."""


class UnknownName(PrivilegeError):
    """A question about the policy holds a word that means nothing there; `str()` says which do."""


class PlanError(PrivilegeError):
    """The driver domains that a host's configuration asks for can't be planned."""
