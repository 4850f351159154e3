"""What a guest's cloud-init is told: the files of its NoCloud source, on a disk with the label CIDATA.

https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html. cloud-init reads YAML, of which JSON
is a part. A guest whose instance-id changes is a new one to cloud-init: it does all over again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import msgspec

from xoar.host.devices import CloudInit, Nic
from xoar.host.errors import HostError
from xoar.host.values import format_mac, is_key

_LABEL = "CIDATA"
# the first line of user data says what it is; these are the types that cloud-init knows them by
_TYPES = {"#cloud-config": "cloud-config", "#!": "x-shellscript", "#include": "x-include-url"}


@dataclass(frozen=True)
class Seed:
    """The files of the disk, by name."""

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that differ for different files."""
        digest = hashlib.sha256()
        for name, data in self.files.items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        return digest.hexdigest()[:12]

    def iso(self) -> bytes:
        """The disk: an ISO 9660 file system with the names as they are (Rock Ridge and Joliet)."""
        import pycdlib

        disk = pycdlib.PyCdlib()
        disk.new(interchange_level=3, vol_ident=_LABEL, joliet=3, rock_ridge="1.09")
        for name, data in self.files.items():
            short = name.replace("-", "").upper()[:8]
            disk.add_fp(io.BytesIO(data), len(data), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
        out = io.BytesIO()
        disk.write_fp(out)
        disk.close()
        return out.getvalue()


def seed(host: str, guest: str, told: CloudInit, nics: Sequence[Nic], operator_key: str) -> Seed:
    """The seed of a guest whose interfaces all have a MAC address. Raises HostError for files of `told`."""
    hostname = told.hostname or guest.replace("_", "-").replace(".", "-")[:63].strip("-")
    user_data = _user_data(told, hostname, _keys(told, operator_key))
    network = _json(
        {"version": 2, "ethernets": {f"eth{i}": _interface(i, nic) for i, nic in enumerate(nics)}}
    )
    about = hashlib.sha256(f"{host}/{guest}\n".encode() + user_data + network).hexdigest()
    meta_data = _json({"instance-id": f"xoar-{about[:16]}", "local-hostname": hostname})
    return Seed({"meta-data": meta_data, "user-data": user_data, "network-config": network})


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"


def _keys(told: CloudInit, operator_key: str) -> list[str]:
    keys = [operator_key]
    for entry in told.ssh_keys:
        text = entry if isinstance(entry, str) else _read(entry)
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        for line in lines:
            if not is_key(line):
                raise HostError(f"{entry} has something else than public SSH keys: {line[:40]}")
        keys += [line for line in lines if line not in keys]
    return keys


def _user_data(told: CloudInit, hostname: str, keys: list[str]) -> bytes:
    user = {
        "name": told.user,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "shell": "/bin/bash",
        "lock_passwd": True,
        "ssh_authorized_keys": keys,
    }
    ours = b"#cloud-config\n" + _json({"hostname": hostname, "users": [user], "ssh_pwauth": False})
    if told.user_data is None:
        return ours
    theirs = _read(told.user_data)
    kind = next((kind for start, kind in _TYPES.items() if theirs.startswith(start)), None)
    if kind is None:
        raise HostError(
            f"the first line of {told.user_data} does not say what it is",
            hint=f"cloud-init knows: {', '.join(_TYPES)}",
        )
    # cloud-init merges the parts; keys of a later one count
    parts = MIMEMultipart("mixed", boundary="===xoar-user-data===")
    for text, kind_of_text in ((ours.decode(), "cloud-config"), (theirs, kind)):
        parts.attach(MIMEText(text, kind_of_text, "utf-8"))
    return parts.as_bytes()


def _interface(index: int, nic: Nic) -> dict[str, Any]:
    assert nic.mac is not None
    named = {"match": {"macaddress": format_mac(nic.mac)}, "set-name": f"eth{index}"}
    if not nic.gateway:
        return {**named, "dhcp4": True}
    return {
        **named,
        "addresses": [f"{nic.address}/{nic.prefix}"],
        "routes": [{"to": "0.0.0.0/0", "via": nic.gateway}],
        "nameservers": {"addresses": [nic.dns or nic.gateway]},
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"can't read {path}: {error}") from error
