"""Commands about devices: driver domains, networks, volumes, disks, interfaces, images of disks, SSH."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from fake_host import GRUB, FakeHost, Run

from xoar.cli.failures import ERROR, NOT_FOUND, NOT_RUNNING, TIMEOUT, USAGE
from xoar.host import disks, reach, ssh
from xoar.host import up as starting

CONFIG = """\
[drivers.net0]
kind = "netback"
[drivers.disk0]
kind = "blkback"
[networks.lan]
[networks.inner]
mode = "nat"
subnet = "10.9.0.0/24"
forwards = [{ port = 2222, to = "10.9.0.10:22" }]
[images.bookworm]
disk = "bookworm.img"
[volumes.data]
size = "1GiB"
[guests.web]
image = "bookworm"
nics = ["lan", { network = "inner", address = "10.9.0.10" }]
[guests.mail]
image = "bookworm"
autostart = false
disks = ["data", { volume = "archive", driver = "disk0", mode = "r" }]
[guests.mail.cloud-init]
user = "admin"
"""
IMAGE = b"a bootable disk".ljust(8192, b"\0")
LAUNCH = {
    "machine": {"xen": "x", "kernel": "k"},
    "qemu": {"argv": ["q"], "version": "7.2"},
    "xen_version": "4.17",
}


@pytest.fixture
def devices(host: FakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHost:
    """A running host with a driver domain of each kind."""
    host.add_driver("net0", "netback")
    host.add_driver("disk0", "blkback")
    (host.host.folder / "launch.json").write_text(json.dumps(LAUNCH))
    monkeypatch.setenv("XOAR_CACHE", str(tmp_path / "cache"))
    return host


@pytest.fixture
def configured(devices: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The same, and a configuration for it; nothing is built."""
    monkeypatch.setattr(starting, "up", lambda wanted, show: None)
    Path("xoar.toml").write_text(CONFIG)
    Path("bookworm.img").write_bytes(IMAGE)
    return devices


def changes(host: FakeHost) -> list[tuple[str, str]]:
    """The changes of volumes that the host was asked for."""
    found = [message.fields for message in host.requests if message.kind == "volume_change"]
    return [(fields.action, fields.name) for fields in found]


# up


def test_up_makes_networks_volumes_and_a_guest_that_boots_from_its_own_disk(
    configured: FakeHost, run: Run
) -> None:
    result = run("up")
    assert result.exit_code == 0, result.stderr
    made = configured.devices
    assert list(made.networks) == ["lan", "inner"]
    guest = configured.guests["web"]
    assert guest["kernel"] == GRUB
    root, seed = guest["disks"]
    assert (root.device, root.driver, root.volume, root.mode) == ("xvda", "disk0", "web", "w")
    assert (seed.device, seed.mode) == ("xvdb", "r")
    assert made.contents["disk0", "web"] == IMAGE
    assert made.volumes["disk0", "web"]["origin"] == f"image.bookworm.{hashlib.sha256(IMAGE).hexdigest()[:8]}"
    assert b"CIDATA" in made.contents["disk0", seed.volume]
    assert [(nic.network, nic.address, nic.mac[:3]) for nic in guest["nics"]] == [
        ("lan", "", b"\0\x16\x3e"), ("inner", "10.9.0.10", b"\0\x16\x3e"),
    ]  # fmt: skip
    assert "mail" not in configured.guests


def test_a_second_up_finds_all_that_the_first_one_made(configured: FakeHost, run: Run) -> None:
    run("up")
    before = changes(configured)
    result = run("up")
    assert result.exit_code == 0
    assert changes(configured) == before
    assert "differs" not in result.stderr


def test_the_disk_of_a_guest_is_used_again_and_other_cloud_init_data_replaces_the_old(
    configured: FakeHost, run: Run
) -> None:
    run("up")
    old = configured.guests.pop("web")["disks"][1].volume
    known = ssh.known_hosts(configured.host, "web")
    known.parent.mkdir(parents=True)
    known.write_text("a key")
    Path("xoar.toml").write_text(CONFIG + '[guests.web.cloud-init]\nhostname = "other"\n')
    assert run("up").exit_code == 0
    root, seed = configured.guests["web"]["disks"]
    assert seed.volume != old
    assert ("delete", old) in changes(configured)
    assert changes(configured).count(("clone", root.volume)) == 1
    assert not known.exists()


def test_an_image_with_other_contents_replaces_its_old_volume(configured: FakeHost, run: Run) -> None:
    run("up")
    old = configured.devices.volumes["disk0", "web"]["origin"]
    Path("bookworm.img").write_bytes(IMAGE[::-1])
    more = '[volumes.spare]\nimage = "bookworm"\nsize = "4GiB"\n'
    Path("xoar.toml").write_text(CONFIG + more)
    assert run("up").exit_code == 0
    assert configured.devices.contents["disk0", "spare"] == IMAGE[::-1]
    assert configured.devices.volumes["disk0", "spare"]["size_kib"] == 4 << 20
    assert ("delete", old) in changes(configured)


def test_an_image_that_is_not_what_it_should_be_makes_no_guest(configured: FakeHost, run: Run) -> None:
    wrong = "0" * 64
    Path("xoar.toml").write_text(CONFIG.replace('.img"\n', f'.img"\nsha256 = "{wrong}"\n'))
    result = run("up")
    assert result.exit_code == ERROR
    assert f"has the SHA-256 {hashlib.sha256(IMAGE).hexdigest()}, not {wrong}" in result.stderr
    assert configured.guests == {}
    assert all(action != "import" for action, _ in changes(configured))


def test_up_tells_how_networks_and_devices_differ(configured: FakeHost, run: Run) -> None:
    run("up")
    Path("xoar.toml").write_text(CONFIG.replace("2222", "2223").replace('nics = ["lan", ', "nics = ["))
    del configured.devices.drivers["net0"]
    text = run("up").stderr
    assert "the running host has no netback net0" in text
    assert "network inner differs from xoar.toml" in text
    assert "nics: inner=" in text
    assert "disks" not in text


def test_a_failed_driver_domain_holds_up_only_what_needs_it(configured: FakeHost, run: Run) -> None:
    configured.devices.add_driver("disk0", "blkback", "failed", "no such device")
    Path("xoar.toml").write_text(
        CONFIG + '[images.small]\nkernel = "k"\n[guests.small]\nimage = "small"\nnics = ["lan"]\n'
    )
    Path("k").write_bytes(b"")
    configured.images.append(("small", "kernel", b"s" * 32))
    configured.devices.refused["disk0"] = "driver domain disk0 has failed: no such device"
    result = run("up")
    assert result.exit_code == ERROR
    assert "volume data could not be created: driver domain disk0 has failed: no such device" in result.stderr
    assert list(configured.guests) == ["small"]


def test_disks_outlive_the_host_unless_they_are_erased(devices: FakeHost, run: Run) -> None:
    exchange = disks.of(devices.host, "disk0").exchange
    assert run("down").exit_code == 0
    assert exchange.exists()
    assert run("down", "--erase").exit_code == 0
    assert not devices.host.folder.exists()


# guests


def test_a_guest_gets_disks_and_interfaces_by_options(configured: FakeHost, run: Run) -> None:
    configured.devices.add_volume("disk0", "other", 4096)
    words = ["--disk", "other,mode=r", "--nic", "lan,mac=00:16:3e:00:00:01,rate=10MiB", "--nic", "inner"]
    result = run("guest", "create", "new", "--image", "bookworm", *words)
    assert result.exit_code == 0, result.stderr
    guest = configured.guests["new"]
    first = guest["disks"][0]
    assert (first.device, first.volume, first.mode) == ("xvda", "other", "r")
    assert guest["memory_kib"] == 512 << 10
    assert (guest["nics"][0].mac, guest["nics"][0].rate_kib) == (bytes.fromhex("00163e000001"), 10240)
    assert list(configured.devices.networks) == ["lan", "inner"]


def test_the_first_disk_is_made_from_the_image_if_there_is_none_of_that_name(
    configured: FakeHost, run: Run
) -> None:
    configured.devices.add_volume("disk0", "archive", 4096)
    words = ["--image", "bookworm", "--disk", "mine", "--disk", "archive"]
    for _ in range(2):
        assert run("guest", "create", "new", *words).exit_code == 0
        assert configured.devices.contents["disk0", "mine"] == IMAGE
        del configured.guests["new"]
    assert changes(configured).count(("clone", "mine")) == 1


def test_a_guest_of_xoar_toml_gets_what_stands_there_and_what_options_add(
    configured: FakeHost, run: Run
) -> None:
    configured.devices.add_volume("disk0", "archive", 4096)
    Path("key.pub").write_text("ssh-ed25519 AAAA someone\n")
    result = run("guest", "create", "mail", "--ssh-key", "key.pub")
    assert result.exit_code == 0, result.stderr
    found = [(disk.device, disk.volume, disk.mode) for disk in configured.guests["mail"]["disks"]]
    assert found[:2] == [("xvda", "data", "w"), ("xvdb", "archive", "r")]
    seed = configured.devices.contents["disk0", found[2][1]]
    assert b"ssh-ed25519 AAAA someone" in seed
    assert ssh.public_key().encode() in seed
    assert b'"name": "admin"' in seed


@pytest.mark.parametrize(
    "wrong",
    [
        ("--disk", "data,mode=x"), ("--disk", "data,device=sda"), ("--disk", "data,colour=red"),
        ("--disk", "data,mode"), ("--nic", "lan,mac=1"), ("--nic", "lan,address=1.2.3"), ("--nic", "Lan"),
    ],
)  # fmt: skip
def test_wrong_devices_are_told_before_the_host_is_asked(
    devices: FakeHost, run: Run, wrong: tuple[str, str]
) -> None:
    result = run("guest", "create", "web", *wrong)
    assert result.exit_code == USAGE
    assert wrong[0] in result.stderr
    assert devices.requests == []


def test_a_guest_is_shown_with_its_devices(configured: FakeHost, run: Run) -> None:
    run("up")
    text = " ".join(run("guest", "show", "web").stdout.split())
    assert "disk xvda volume web on disk0, connected" in text
    assert "nic 0 network lan on net0, 00:16:3e:" in text
    shown = json.loads(run("guest", "show", "web", "--json").stdout)
    assert shown["disks"][0]["volume"] == "web"
    assert shown["nics"][0]["seen_address"] == "10.0.2.15"
    (listed,) = json.loads(run("guest", "list", "--json").stdout)
    assert listed["nics"][0]["network"] == "lan"
    assert "10.0.2.15" in run("guest", "list").stdout


def test_ps_shows_driver_domains_with_their_device(devices: FakeHost, run: Run) -> None:
    (line,) = [line for line in run("ps").stdout.splitlines() if "net0" in line]
    assert "netback" in line
    assert "0000:03:00.0 ready" in line
    entries = {entry["name"]: entry["driver"] for entry in json.loads(run("ps", "--json").stdout)}
    assert entries["builder"] is None
    assert (entries["disk0"]["kind"], entries["disk0"]["device"]) == ("blkback", "0000:03:00.0")


# hot-plug


def test_disks_are_plugged_and_unplugged(devices: FakeHost, run: Run) -> None:
    devices.add_guest("web")
    devices.devices.add_volume("disk0", "data", 4096)
    assert run("disk", "attach", "web", "data").exit_code == 0
    assert run("disk", "attach", "web", "data", "--read-only").exit_code == 0
    plugged = devices.guests["web"]["disks"]
    assert [(disk.device, disk.driver, disk.mode) for disk in plugged] == [
        ("xvda", "disk0", "w"), ("xvdb", "disk0", "r"),
    ]  # fmt: skip
    assert run("disk", "detach", "web", "xvda").exit_code == 0
    assert run("disk", "detach", "web", "xvda").exit_code == NOT_FOUND
    assert [disk.device for disk in devices.guests["web"]["disks"]] == ["xvdb"]
    assert run("disk", "detach", "web", "sda").exit_code == USAGE


def test_interfaces_are_plugged_and_unplugged(devices: FakeHost, run: Run) -> None:
    devices.add_guest("web")
    run("network", "create", "lan")
    for _ in range(2):
        assert run("nic", "attach", "web", "lan", "--rate", "1MiB").exit_code == 0
    macs = [nic.mac for nic in devices.guests["web"]["nics"]]
    assert len(set(macs)) == 2
    assert run("nic", "detach", "web", "0").exit_code == 0
    assert [nic.mac for nic in devices.guests["web"]["nics"]] == macs[1:]


def test_unknown_names_are_answered_with_the_nearest(devices: FakeHost, run: Run) -> None:
    devices.add_guest("web")
    devices.devices.add_volume("disk0", "database", 4096)
    run("network", "create", "lan")
    for words, nearest in (
        (("disk", "attach", "web", "databse"), "database"),
        (("disk", "attach", "wbe", "database"), "web"),
        (("volume", "delete", "databse"), "database"),
        (("volume", "create", "x", "--size", "1GiB", "--driver", "disk1"), "disk0"),
        (("network", "delete", "lam"), "lan"),
        (("driver", "restart", "net1"), "net0"),
    ):
        result = run(*words)
        assert result.exit_code == NOT_FOUND, words
        assert f'Did you mean "{nearest}"?' in result.stderr


# networks and driver domains


def test_devices_are_listed_assigned_and_withdrawn(devices: FakeHost, run: Run) -> None:
    for name in list(devices.devices.drivers):
        run("driver", "withdraw", name)
    (first, *_) = devices.devices.drivers.values()
    run("driver", "withdraw", first.name)
    rows = json.loads(run("driver", "list", "--json").stdout)
    assert [(row["device"], row["state"]) for row in rows if row["name"] == first.name] == [
        (None, "unassigned")
    ]
    assert run("driver", "assign", first.name, "03:00.0").exit_code == 0
    rows = json.loads(run("driver", "devices", "--json").stdout)
    assert rows[2] == {
        "device": "0000:03:00.0", "class": "020000", "id": "8086:10d3", "driver": first.name
    }  # fmt: skip
    assert len(rows) == 3
    assert "0000:03:00.0  network  8086:10d3" in run("driver", "devices").stdout
    assert "has a device" in run("driver", "assign", first.name, "02:00.0").stderr
    assert run("driver", "assign", first.name, "card").exit_code == USAGE
    assert run("driver", "withdraw", "net9").exit_code == NOT_FOUND


def test_networks_are_created_listed_and_deleted(devices: FakeHost, run: Run) -> None:
    words = ["--mode", "nat", "--subnet", "10.9.0.0/24", "--forward", "2222:10.9.0.10:22"]
    assert run("network", "create", "inner", *words).exit_code == 0
    (listed,) = json.loads(run("network", "list", "--json").stdout)
    assert (listed["driver"], listed["mode"], listed["state"]) == ("net0", "nat", "up")
    assert listed["forwards"] == [{"port": 2222, "to": "10.9.0.10:22"}]
    assert "2222:10.9.0.10:22" in run("network", "list").stdout
    assert run("network", "delete", "inner").exit_code == 0
    assert devices.devices.networks == {}


@pytest.mark.parametrize(
    "words",
    [
        ("--mode", "brdige"), ("--mode", "nat"), ("--mode", "nat", "--subnet", "8.8.8.0/24"),
        ("--subnet", "10.9.0.0/24"), ("--vlan", "4095"), ("--forward", "22"),
        ("--mode", "nat", "--subnet", "10.9.0.0/24", "--forward", "2222:10.8.0.10:22"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_told_before_the_host_is_asked(
    devices: FakeHost, run: Run, words: tuple[str, ...]
) -> None:
    assert run("network", "create", "n", *words).exit_code == USAGE
    assert devices.requests == []


def test_which_driver_domain_must_be_said_if_there_are_several(devices: FakeHost, run: Run) -> None:
    devices.add_driver("disk1", "blkback")
    result = run("volume", "create", "data", "--size", "1GiB")
    assert result.exit_code == ERROR
    assert "several of kind blkback: disk0, disk1" in result.stderr
    assert run("volume", "create", "data", "--size", "1GiB", "--driver", "disk1").exit_code == 0
    assert list(devices.devices.volumes) == [("disk1", "data")]


def test_driver_domains_are_listed_and_restarted(devices: FakeHost, run: Run) -> None:
    assert run("driver", "restart", "net0").exit_code == 0
    listed = json.loads(run("driver", "list", "--json").stdout)
    assert [(entry["name"], entry["kind"], entry["restarts"]) for entry in listed] == [
        ("net0", "netback", 1), ("disk0", "blkback", 0),
    ]  # fmt: skip
    assert "0000:03:00.0" in run("driver", "list").stdout


# volumes


def test_volumes_are_created_cloned_grown_listed_and_deleted(devices: FakeHost, run: Run) -> None:
    for words in (
        ("create", "data", "--size", "1GiB"),
        ("clone", "data", "copy"),
        ("grow", "copy", "--size", "2GiB"),
    ):
        assert run("volume", *words).exit_code == 0
    devices.add_guest("web")
    devices.devices.volumes["disk0", "copy"]["users"] = "5"
    listed = json.loads(run("volume", "list", "--json").stdout)
    assert [(entry["name"], entry["size_kib"], entry["users"]) for entry in listed["volumes"]] == [
        ("copy", 2 << 20, ["web"]), ("data", 1 << 20, []),
    ]  # fmt: skip
    assert listed["pools"] == [{"driver": "disk0", "size_kib": 16 << 20, "used_kib": 1 << 20}]
    assert "disk0: 1GiB of 16GiB used" in run("volume", "list").stderr
    result = run("volume", "grow", "copy", "--size", "1GiB")
    assert result.exit_code == ERROR and "can't shrink" in result.stderr
    assert run("volume", "delete", "copy").exit_code == ERROR
    assert run("volume", "delete", "data").exit_code == 0


def test_what_is_imported_is_what_is_exported(devices: FakeHost, run: Run) -> None:
    data = os.urandom(5000) + bytes(3 << 20) + b"end"
    Path("in.raw").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert run("volume", "import", "data", "in.raw", "--sha256", sha256).exit_code == 0
    assert run("volume", "export", "data", "out.raw").exit_code == 0
    written = Path("out.raw").read_bytes()
    assert written[: len(data)] == data
    assert not any(written[len(data) :])
    exchange = disks.of(devices.host, "disk0").exchange.stat()
    assert exchange.st_size == disks.EXCHANGE_SIZE
    assert exchange.st_blocks * 512 < 1 << 20
    result = run("volume", "export", "data", "out.raw")
    assert result.exit_code == ERROR and "is there already" in result.stderr


def test_a_file_with_another_checksum_is_not_imported(devices: FakeHost, run: Run) -> None:
    Path("in.raw").write_bytes(IMAGE)
    result = run("volume", "import", "data", "in.raw", "--sha256", "1" * 64)
    assert result.exit_code == ERROR
    assert "has the SHA-256" in result.stderr
    assert changes(devices) == []
    assert run("volume", "import", "data", "in.raw", "--sha256", "1").exit_code == USAGE


# images


def test_an_image_that_was_added_is_known_by_name(devices: FakeHost, run: Run) -> None:
    Path("file.img").write_bytes(IMAGE)
    sha256 = hashlib.sha256(IMAGE).hexdigest()
    assert run("image", "add", "file.img", "--name", "mine", "--sha256", sha256).exit_code == 0
    Path("file.img").unlink()
    listed = json.loads(run("image", "list", "--json").stdout)
    assert listed[0] == {"name": "mine", "kind": "disk", "sha256": sha256, "size": 8192, "stored_size": 8192}
    assert run("guest", "create", "web", "--image", "mine").exit_code == 0
    assert devices.devices.contents["disk0", "web"] == IMAGE
    Path("xoar.toml").write_text(
        '[drivers.disk0]\nkind = "blkback"\n[guests.other]\nimage = "mine"\nautostart = false\n'
    )
    assert run("guest", "create", "other").exit_code == 0
    assert run("image", "remove", "mine").exit_code == 0
    assert run("image", "remove", "mine").exit_code == NOT_FOUND


def test_images_on_this_machine_are_listed_without_a_host(run: Run) -> None:
    Path("file.img").write_bytes(IMAGE)
    run("image", "add", "file.img", "--name", "mine")
    result = run("image", "list")
    assert result.exit_code == NOT_RUNNING
    assert "mine" in result.stdout


def test_a_debian_image_is_built_and_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("built.img").write_bytes(IMAGE)
    monkeypatch.setattr("xoar.host.images.build_debian", lambda show: Path("built.img"))
    assert run("image", "build", "debian").exit_code == 0
    assert '"debian-disk"' in run("image", "list", "--json").stdout
    assert run("image", "build", "windows").exit_code == USAGE


# SSH


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that `xoar ssh` would have become."""
    words: list[str] = []
    monkeypatch.setattr(os, "execv", lambda program, argv: words.extend(argv))
    return words


@pytest.fixture
def server(devices: FakeHost) -> socket.socket:
    """Something that answers as an SSH server does, where the keeper's forwarded port leads."""
    listener = socket.create_server(("127.0.0.1", 0))
    devices.forward_port = listener.getsockname()[1]

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"SSH-2.0-test\r\n")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_ssh_goes_through_a_forwarded_port_to_the_address_that_was_seen(
    configured: FakeHost, run: Run, called: list[str], server: socket.socket
) -> None:
    run("up")
    result = run("ssh", "web", "--", "uname", "-a")
    assert result.exit_code == 0, result.stderr
    assert configured.forwards == ["forward net0 10.0.2.15 22"]
    assert called[0].endswith("ssh")
    assert called[-3:] == ["xoar@127.0.0.1", "uname", "-a"]
    assert called[called.index("-p") + 1] == str(configured.forward_port)
    assert "HostKeyAlias=web" in called
    assert called[called.index("-i") + 1] == str(ssh.identity())
    assert ssh.identity().stat().st_mode & 0o77 == 0


def test_ssh_to_a_guest_behind_nat_goes_through_its_networks_forwarded_port(
    configured: FakeHost, run: Run, called: list[str], server: socket.socket
) -> None:
    Path("xoar.toml").write_text(
        CONFIG.replace('nics = ["lan", ', "nics = [").replace("10.9.0.10:22", "10.0.2.15:22")
        .replace("10.9.0.10", "10.0.2.15").replace("10.9.0.0", "10.0.2.0")
    )  # fmt: skip
    run("up")
    assert run("ssh", "web", "--user", "root").exit_code == 0
    assert configured.forwards == ["forward net0 - 2222"]
    assert called[-1] == "root@127.0.0.1"


def test_ssh_says_what_is_missing(
    configured: FakeHost, run: Run, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured.add_guest("bare")
    assert "has no network interface" in run("ssh", "bare").stderr
    Path("xoar.toml").write_text(CONFIG.replace('nics = ["lan", ', "nics = ["))
    run("up")
    result = run("ssh", "web")
    assert result.exit_code == ERROR
    assert 'forwards = [{ port = 2222, to = "10.0.2.15:22" }]' in result.stderr
    configured.guests["web"]["domid"] = 0
    assert "does not run" in run("ssh", "web").stderr
    assert run("ssh", "wbe").exit_code == NOT_FOUND
    assert called == []


def test_ssh_waits_for_the_guest_only_so_long(
    configured: FakeHost, run: Run, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_LOOK", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as free:
        configured.forward_port = free.getsockname()[1]
    run("up")
    result = run("ssh", "web", "--timeout", "0.2")
    assert result.exit_code == TIMEOUT
    assert "does not answer SSH" in result.stderr
    assert called == []


def test_a_shell_completes_names_of_devices(
    devices: FakeHost, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices.devices.add_volume("disk0", "data", 4096)
    run("network", "create", "lan")
    for typed, expected in (
        ("volume delete ", ["data"]),
        ("network delete ", ["lan"]),
        ("driver restart ", ["disk0", "net0"]),
        ("guest create new --image ", ["debian"]),
    ):
        words = f"xoar {typed}".split(" ")
        with monkeypatch.context() as patch:
            patch.setenv("COMP_WORDS", "\n".join(words))
            patch.setenv("COMP_CWORD", str(len(words) - 1))
            patch.setenv("_XOAR_COMPLETE", "complete_bash")
            assert run().stdout.split() == expected


def test_every_command_about_devices_has_help_with_an_example(run: Run) -> None:
    commands = {
        "volume": ("create", "list", "clone", "grow", "delete", "import", "export"),
        "network": ("create", "list", "delete"),
        "driver": ("list", "restart"),
        "disk": ("attach", "detach"),
        "nic": ("attach", "detach"),
        "image": ("add", "build", "remove"),
    }
    words = [(group, name) for group, names in commands.items() for name in names]
    for command in [*words, ("ssh",)]:
        assert f"xoar {' '.join(command)}" in run(*command, "--help").stdout.split("Example", 1)[1]
