"""The disk for cloud-init: its files as cloud-init reads them, its label, and when it is another one."""

from __future__ import annotations

import email
import io
import json
from pathlib import Path
from typing import Any

import pycdlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import seed
from xoar.host.devices import CloudInit, Nic
from xoar.host.errors import HostError

KEY = "ssh-ed25519 AAAA xoar"
MAC = bytes.fromhex("00163e010203")


def made(told: CloudInit | None = None, *nics: Nic, guest: str = "web") -> seed.Seed:
    return seed.seed("xoar", guest, told or CloudInit(), nics, KEY)


def user_data(found: seed.Seed) -> Any:
    first, _, rest = found.files["user-data"].decode().partition("\n")
    assert first == "#cloud-config"
    return json.loads(rest)


def test_the_disk_has_the_label_and_the_files_that_cloud_init_looks_for() -> None:
    found = made(None, Nic("lan", MAC))
    disk = pycdlib.PyCdlib()
    disk.open_fp(io.BytesIO(found.iso()))
    assert disk.pvd.volume_identifier.strip() == b"CIDATA"
    for way in ("rr_path", "joliet_path"):
        for name in ("meta-data", "user-data", "network-config"):
            out = io.BytesIO()
            disk.get_file_from_iso_fp(out, **{way: f"/{name}"})
            assert out.getvalue() == found.files[name]


def test_the_user_has_the_operators_key_and_those_that_are_named(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# mine\n\nssh-rsa BBBB a\n{KEY}\n")
    told = user_data(made(CloudInit("admin", ("ecdsa-sha2-nistp256 CCCC b", file), "www")))
    (user,) = told["users"]
    assert user["name"] == "admin"
    assert user["ssh_authorized_keys"] == [KEY, "ecdsa-sha2-nistp256 CCCC b", "ssh-rsa BBBB a"]
    assert told["hostname"] == "www"
    assert told["ssh_pwauth"] is False


def test_a_file_with_something_else_than_keys_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "id"
    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(HostError, match="something else than public SSH keys"):
        made(CloudInit(ssh_keys=(file,)))


def test_interfaces_are_known_by_mac_and_ask_by_dhcp_or_are_set() -> None:
    found = made(None, Nic("lan", MAC), Nic("inner", MAC[::-1], "10.9.0.10", 24, "10.9.0.1"))
    network = json.loads(found.files["network-config"])
    assert network["version"] == 2
    assert network["ethernets"]["eth0"] == {
        "match": {"macaddress": "00:16:3e:01:02:03"}, "set-name": "eth0", "dhcp4": True,
    }  # fmt: skip
    static = network["ethernets"]["eth1"]
    assert static["addresses"] == ["10.9.0.10/24"]
    assert static["routes"] == [{"to": "0.0.0.0/0", "via": "10.9.0.1"}]
    assert static["nameservers"] == {"addresses": ["10.9.0.1"]}


def test_more_user_data_comes_after_ours(tmp_path: Path) -> None:
    file = tmp_path / "more"
    file.write_text("#!/bin/sh\necho hello\n")
    parts: Any = email.message_from_bytes(made(CloudInit(user_data=file)).files["user-data"]).get_payload()
    assert [part.get_content_type() for part in parts] == ["text/cloud-config", "text/x-shellscript"]
    assert parts[1].get_payload(decode=True) == b"#!/bin/sh\necho hello\n"
    file.write_text("packages: [vim]\n")
    with pytest.raises(HostError, match="does not say what it is"):
        made(CloudInit(user_data=file))


def test_the_same_configuration_makes_the_same_disk_and_another_one_another() -> None:
    assert made().digest == made().digest
    others = [made(CloudInit(hostname="x")), made(guest="other"), made(None, Nic("lan", MAC))]
    assert len({found.digest for found in [made(), *others]}) == 4
    ids = {json.loads(found.files["meta-data"])["instance-id"] for found in [made(), *others]}
    assert len(ids) == 4


@given(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,63}", fullmatch=True))
def test_a_guests_name_makes_a_host_name(name: str) -> None:
    hostname = user_data(made(guest=name))["hostname"]
    assert 1 <= len(hostname) <= 63
    assert not set(hostname) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert hostname[0] != "-" and hostname[-1] != "-"
