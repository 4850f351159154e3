"""A guest as people have them: Debian from its own disk, on a network, under its own kernel.

One host with one network card and one disk controller; the last test ends and starts it again.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SHARDS, HostUnderTest, running

pytestmark = pytest.mark.devices

_MOST_MEMORY_KIB = 320 << 10
_LOOPBACK = "10.0.2.2"  # the operator's loopback, as guests of the emulated network see it

CONFIG = """
[host]
memory = "4GiB"

[drivers.net0]
kind = "netback"

[drivers.disk0]
kind = "blkback"

[networks.lan]
driver = "net0"

[images.debian-12]
builtin = "debian-disk"

[guests.web]
image = "debian-12"
nics = ["lan"]
"""


@pytest.fixture(scope="module")
def host(state: None, logs: Path) -> Iterator[HostUnderTest]:
    with running("devices", CONFIG, logs) as host:
        host.cli("up", timeout=1200)
        yield host


def in_guest(host: HostUnderTest, command: str) -> str:
    """What a command of the user prints in the guest; it has to succeed."""
    return host.cli("ssh", "web", "--timeout", "900", "--", command, timeout=1000).strip()


def test_a_guest_boots_its_own_kernel_from_its_own_disk(host: HostUnderTest) -> None:
    assert "-cloud-amd64" in in_guest(host, "uname -r")
    assert in_guest(host, "findmnt -no SOURCE /") == "/dev/xvda"
    assert in_guest(host, "ls /boot/vmlinuz-$(uname -r)").startswith("/boot/")
    assert "GRUB" in host.cli("logs", "web")
    # a slow machine takes more than systemd's 90 s to have a console to log in to
    limit = "systemctl show --property JobRunningTimeoutUSec --value dev-hvc0.device"
    assert in_guest(host, limit) == "15min"


def test_cloud_init_has_made_user_and_host_name(host: HostUnderTest) -> None:
    assert in_guest(host, "cloud-init status --wait >/dev/null; hostname; whoami").split() == ["web", "xoar"]
    assert in_guest(host, "sudo id -u") == "0"


def test_the_guest_has_its_address_by_dhcp(host: HostUnderTest) -> None:
    seen = re.search(r"10\.0\.2\.\d+", host.cli("guest", "show", "web"))
    assert seen is not None
    assert f" {seen[0]}/24 " in in_guest(host, "ip -4 addr show dev eth0 dynamic")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A file's address on the operator's loopback and its SHA-256."""
    content = os.urandom(3_000_000)
    (tmp_path / "package.deb").write_bytes(content)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{_LOOPBACK}:{server.server_port}/package.deb"
        yield address, hashlib.sha256(content).hexdigest()
        server.shutdown()


def test_apt_fetches_through_netback(host: HostUnderTest, served: tuple[str, str]) -> None:
    address, digest = served
    in_guest(host, f"/usr/lib/apt/apt-helper download-file {address} /tmp/package SHA256:{digest}")


def test_no_domain_has_rights_over_devices_once_they_serve(host: HostUnderTest) -> None:
    rows = {row["name"]: row for row in host.json("ps")}
    assert set(rows) == {*SHARDS, "net0", "disk0", "web"}
    assert "pciback" not in rows
    assert [rows[name]["driver"]["device"] for name in ("net0", "disk0")] == ["0000:01:00.0", "0000:02:00.0"]
    assert all(rows[name]["driver"]["state"] == "ready" for name in ("net0", "disk0"))
    assert sorted(host.domains_in_xen()) == sorted(row["id"] for row in rows.values())


def test_all_shards_take_no_more_memory_than_the_readme_says(host: HostUnderTest) -> None:
    shards = [row for row in host.json("ps") if row["name"] != "web"]
    assert sum(row["memory_kib"] for row in shards) <= _MOST_MEMORY_KIB


def test_no_right_was_denied_on_the_way(host: HostUnderTest) -> None:
    shards = rf"({'|'.join(SHARDS)}|pciback|netback|blkback)_t"
    assert not re.findall(rf"avc: *denied .*scontext=system_u:system_r:{shards}.*", host.said_since(0))


def test_a_new_kernel_and_a_larger_disk_are_there_after_a_reboot(host: HostUnderTest) -> None:
    # what an upgrade of Debian's kernel package does, and then the removal of the old one
    in_guest(
        host,
        "set -e; v=$(uname -r); sudo cp /boot/vmlinuz-$v /boot/vmlinuz-$v.new;"
        " sudo cp /boot/initrd.img-$v /boot/initrd.img-$v.new;"
        " sudo linux-update-symlinks install $v.new /boot/vmlinuz-$v.new; sudo rm /boot/*-$v",
    )
    host.cli("volume", "grow", "web", "--size", "3GiB")
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = in_guest(host, boot)
    host.cli("guest", "reboot", "web")
    deadline = time.monotonic() + 300
    while in_guest(host, boot) == before:
        assert time.monotonic() < deadline, "the guest does not reboot"
        time.sleep(1)
    assert in_guest(host, "ls /boot | grep -c vmlinuz-") == "1"
    assert int(in_guest(host, "df --output=size / | tail -1")) > 2500 << 10


def test_a_disk_outlives_the_host(host: HostUnderTest) -> None:
    in_guest(host, "echo kept > kept && sync")
    host.cli("down")
    host.cli("up", timeout=1200)
    assert in_guest(host, "cat kept") == "kept"
