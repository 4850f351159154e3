"""Tenants of a host: the keys with which their operators show who they are, and names like acme@xoar.

A tenant's key is made when its host first starts, in a file that only its owner can read; whoever is to
manage the tenant's guests gets a copy of it. The key is in the boot plan, too, and in the memory of the
tenant's Toolstack; nowhere else.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from xoar.host import state
from xoar.host.errors import HostError, disk_errors
from xoar.host.tenancy import Tenant
from xoar.messages.seal import KEY_SIZE

KEY_VARIABLE = "XOAR_KEY"
_FOLDER = ".keys"


@dataclass(frozen=True)
class Keyed(Tenant):
    """A tenant as the boot plan needs it."""

    key: bytes = field(kw_only=True)


def split(name: str) -> tuple[str, str]:
    """(tenant, host) of "tenant@host"; the tenant is "" if only a host is named."""
    tenant, _, host = name.rpartition("@")
    return tenant, host


def key_file(tenant: str, host: str) -> Path:
    """Where the key is: `$XOAR_KEY`, else a file of its own in the folder of all hosts."""
    named = os.environ.get(KEY_VARIABLE)
    return Path(named) if named else state.root() / _FOLDER / f"{tenant}@{host}"


def key(tenant: str, host: str) -> bytes:
    """The key of a tenant. Raises HostError if there is none that can be read."""
    return _read(key_file(tenant, host), tenant)


def keyed(tenants: Iterable[Tenant], host: str) -> list[Keyed]:
    """The tenants with their keys; those without one get one. Raises HostError."""
    found = []
    for tenant in tenants:
        path = state.root() / _FOLDER / f"{tenant.name}@{host}"
        if not path.exists():
            with disk_errors(path):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(path, secrets.token_bytes(KEY_SIZE))
        made = _read(path, tenant.name)
        fields = {entry.name: getattr(tenant, entry.name) for entry in dataclasses.fields(Tenant)}
        found.append(Keyed(**fields, key=made))
    return found


def _read(path: Path, tenant: str) -> bytes:
    try:
        found = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no key"
        hint = f"Get it from who runs the host, and name its file in {KEY_VARIABLE}."
        raise HostError(f"can't read the key of tenant {tenant}, {path}: {reason}", hint=hint) from error
    if len(found) != KEY_SIZE:
        raise HostError(f"{path} holds no key: it has {len(found)} bytes, not {KEY_SIZE}")
    return found


def _write(path: Path, key: bytes) -> None:
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
    new.replace(path)
