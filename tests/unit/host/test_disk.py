"""The Debian disk image: what is in its files, where its packages come from, when cloud-init runs."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import apt
from xoar.host.build import disk
from xoar.host.mirrors import Mirrors

GENERATOR = disk.FILES / "etc/systemd/system-generators/cloud-init-generator"
SEED = "seed of one guest"

Boot = Callable[[str | None], bool]


def test_the_menu_and_fstab_name_the_file_system_that_is_made() -> None:
    menu = (disk.FILES / "boot/grub/grub.cfg").read_text()
    assert menu.count("\tlinux ") == menu.count(f"root=UUID={disk.UUID} ")
    assert (disk.FILES / "etc/fstab").read_text().startswith(f"UUID={disk.UUID} / ext4 ")


def test_interfaces_keep_the_names_that_cloud_init_gave_them_when_it_does_not_run() -> None:
    menu = (disk.FILES / "boot/grub/grub.cfg").read_text()
    assert menu.count("\tlinux ") == menu.count("console=hvc0 net.ifnames=0")


def test_packages_come_from_the_machines_mirrors() -> None:
    text = disk.sources_list(Mirrors("http://a.example/debian", "http://s.example/security"))
    sources = [line.split("] ")[1] for line in text.splitlines()]
    assert sources == [
        "http://a.example/debian bookworm main",
        "http://a.example/debian bookworm-updates main",
        "http://s.example/security bookworm-security main",
    ]


def test_a_machine_without_a_security_archive_uses_none() -> None:
    text = disk.sources_list(Mirrors("http://a.example/debian", None))
    assert len(text.splitlines()) == 2 and "security" not in text


def test_the_guests_files_are_roots_whoever_checked_them_out(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(disk.FILES, checkout)
    for path in checkout.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # a umask of 077
    archives = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for folder, archive in zip((checkout, disk.FILES), archives, strict=True):
        disk.pack(folder, archive, 12345)
    with tarfile.open(archives[0]) as tar:
        for member in tar:
            program = member.isdir() or member.name.endswith("-generator")
            assert (member.uid, member.gid, member.mtime) == (0, 0, 12345)
            assert member.mode == (0o755 if program else 0o644), member.name


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_the_image_is_as_old_as_the_newest_package_list(times: list[int]) -> None:
    dates = [format_datetime(datetime.fromtimestamp(time, UTC)) for time in times]
    assert apt.newest(f"Suite: stable\nDate: {date}\nComponents: main\n" for date in dates) == max(times)


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """Runs the guest's generator in a folder of the test's own, on a seed or none: does cloud-init start?"""
    cloud, blkid, stock = tmp_path / "cloud", tmp_path / "blkid", tmp_path / "stock"
    (cloud / "scripts/per-boot").mkdir(parents=True)
    stock.write_text("#!/bin/sh\necho started $1\n")
    stock.chmod(0o755)
    blkid.touch(0o755)
    text = GENERATOR.read_text()
    for place, own in {
        "/lib/systemd/system-generators/cloud-init-generator": stock,
        "/usr/sbin/blkid": blkid,
        "/var/lib/cloud": cloud,
    }.items():
        assert place in text
        text = text.replace(place, str(own))
    script = tmp_path / "generator"
    script.write_text(text)

    def run(seed: str | None) -> bool:
        (tmp_path / "seed").write_text(seed or "")
        blkid.write_text("#!/bin/sh\n" + (f"echo {tmp_path}/seed\n" if seed is not None else "exit 2\n"))
        done = subprocess.run(
            ["sh", str(script), "normal"], capture_output=True, text=True, check=True, env=os.environ
        )
        assert done.stdout in ("", "started normal\n")
        return bool(done.stdout)

    return run


def test_cloud_init_runs_until_it_has_been_through_once(boot: Boot) -> None:
    assert boot(SEED) and boot(SEED) and boot(None)


def test_cloud_init_runs_again_only_where_the_seed_is_another(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "cloud/xoar-seed").write_text(SEED)
    assert not boot(SEED)
    assert not boot(None)
    assert boot("seed of another guest")


def test_cloud_init_runs_at_each_boot_where_the_users_data_ask_for_it(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "cloud/xoar-seed").write_text(SEED)
    (tmp_path / "cloud/instance").mkdir()
    (tmp_path / "cloud/instance/cloud-config.txt").write_text("#cloud-config\nbootcmd:\n- date\n")
    assert boot(SEED)
    (tmp_path / "cloud/instance/cloud-config.txt").write_text("#cloud-config\n")
    assert not boot(SEED)
    (tmp_path / "cloud/scripts/per-boot/mine").write_text("#!/bin/sh\n")
    assert boot(SEED)
