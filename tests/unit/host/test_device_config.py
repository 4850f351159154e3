"""Devices in xoar.toml: what is read, what is said of mistakes; values are read as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import config, devices, values
from xoar.host.config import ConfigError
from xoar.host.devices import CloudInit, Disk, Driver, Forward, Network, Nic, Volume
from xoar.privilege import bootplan, shardset
from xoar.privilege.bootplan import UNASSIGNED
from xoar.toolstack import networks

FILE = Path("some/xoar.toml")
NET = '[drivers.net0]\nkind = "netback"\n'
BLK = '[drivers.disk0]\nkind = "blkback"\n'
LAN = NET + "[networks.lan]\n"
NAT = NET + '[networks.inner]\nmode = "nat"\nsubnet = "10.9.0.0/24"\n'
IMAGE = '[images.a]\nbuiltin = "debian"\n'
DISK = '[images.d]\ndisk = "d.qcow2"\n'


def guest(more: str, image: str = "a") -> str:
    return f'[guests.web]\nimage = "{image}"\n{more}\n'


def test_everything_about_devices_can_be_said() -> None:
    found = config.parse(
        """
        [drivers.net0]
        kind = "netback"
        model = "virtio-net"
        device = "0000:03:00.0"
        memory = "128MiB"
        [drivers.disk0]
        kind = "blkback"
        model = "ahci"
        size = "8GiB"
        [networks.lan]
        vlan = 7
        [networks.inner]
        driver = "net0"
        mode = "nat"
        subnet = "10.9.0.0/24"
        forwards = [{ port = 2222, to = "10.9.0.10:22" }]
        [images.d]
        disk = "d.qcow2"
        sha256 = "%s"
        [volumes.data]
        size = "1GiB"
        [volumes.root]
        driver = "disk0"
        image = "d"
        size = "20GiB"
        [guests.web]
        image = "d"
        disks = ["root", { volume = "data", device = "xvdc", mode = "r" }, { volume = "x", driver = "disk0" }]
        [[guests.web.nics]]
        network = "lan"
        mac = "00:16:3e:01:02:03"
        address = "10.0.2.20/16"
        gateway = "10.0.2.2"
        dns = "10.0.2.3"
        rate = "10MiB"
        [[guests.web.nics]]
        network = "inner"
        address = "10.9.0.10"
        [guests.web.cloud-init]
        user = "admin"
        ssh_keys = ["ssh-ed25519 AAAA me", "key.pub"]
        hostname = "www"
        user_data = "more.yaml"
        """
        % ("0" * 64),
        FILE,
    )
    assert list(found.drivers.values()) == [
        Driver("net0", "netback", "virtio-net", "0000:03:00.0", 0, 128 << 10, 2),
        Driver("disk0", "blkback", "ahci", None, 8 << 20, None, 7),
    ]
    assert found.networks == {
        "lan": Network("lan", "net0", "bridge", 7),
        "inner": Network("inner", "net0", "nat", 0, "10.9.0.0/24", (Forward(2222, "10.9.0.10", 22),)),
    }
    assert found.volumes == {
        "data": Volume("data", "disk0", 1 << 20, "", 21),
        "root": Volume("root", "disk0", 20 << 20, "d", 23),
    }
    web = found.guests["web"]
    assert web.disks == (
        Disk("root", "xvda", "w", "disk0"),
        Disk("data", "xvdc", "r", "disk0"),
        Disk("x", "xvdb", "w", "disk0"),
    )
    assert web.nics == (
        Nic("lan", bytes.fromhex("00163e010203"), "10.0.2.20", 16, "10.0.2.2", "10.0.2.3", 10240),
        Nic("inner", None, "10.9.0.10", 24, "10.9.0.1"),
    )
    base = FILE.absolute().parent
    keys = ("ssh-ed25519 AAAA me", base / "key.pub")
    assert web.cloud_init == CloudInit("admin", keys, "www", base / "more.yaml")
    assert (found.images["d"].disk, found.images["d"].sha256) == (base / "d.qcow2", "0" * 64)
    assert web.memory_kib == 512 << 10


def test_defaults_of_devices() -> None:
    found = config.parse(BLK + NET + DISK + "[networks.lan]\n" + guest('nics = ["lan"]', "d"), FILE)
    assert found.drivers["disk0"] == Driver("disk0", "blkback", "nvme", None, 16 << 20, None, 1)
    assert found.drivers["net0"].model == "e1000e"
    assert found.networks["lan"] == Network("lan", "net0")
    assert found.guests["web"].nics == (Nic("lan"),)
    assert found.guests["web"].cloud_init is None
    found = config.parse(BLK + DISK + guest('disks = ["web"]', "d"), FILE)
    assert found.guests["web"].disks == (Disk("web", "xvda", "w", "disk0"),)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[drivers.net0]\n", 1, "needs a kind"),
        ('[drivers.net0]\nkind = "netbak"\n', 2, 'Did you mean "netback"?'),
        ('[drivers.9]\nkind = "netback"\n', 1, "is no name for a driver domain"),
        ('[drivers.a-exchange]\nkind = "blkback"\n', 1, "is no name for a driver domain"),
        (NET + 'model = "nvme"\n', 3, "e1000e, virtio-net"),
        (NET + 'device = "03:00.0"\n', 3, "is no PCI function"),
        (NET + 'memory = "32MiB"\n', 3, "64MiB to 4GiB"),
        (NET + 'size = "1GiB"\n', 3, '"size" is not a key'),
        (BLK + 'size = "1KiB"\n', 3, "1MiB to 1024TiB"),
        ("[networks.lan]\n", 1, "there is no [drivers.NAME] of kind netback"),
        (LAN + 'driver = "net1"\n', 4, 'Did you mean "net0"?'),
        (BLK + LAN + 'driver = "disk0"\n', 6, "disk0 is a blkback"),
        (LAN + '[drivers.net1]\nkind = "netback"\n', 3, "there are several of kind netback"),
        (LAN + 'mode = "brigde"\n', 4, 'Did you mean "bridge"?'),
        (LAN + "vlan = 4095\n", 4, "0 to 4094"),
        (LAN + 'subnet = "10.9.0.0/24"\n', 3, "a bridge has no subnet"),
        (NET + '[networks.inner]\nmode = "nat"\n', 3, "no private IPv4 subnet"),
        (NAT + 'forwards = [{ port = 1, to = "10.8.0.1:22" }]\n', 3, "no guest's address"),
        (NAT + 'forwards = [{ port = 1, to = "10.9.0.9" }]\n', 6, "no address and port"),
        (NAT + "forwards = [3]\n", 6, "neither a name nor a table"),
        (BLK + "[volumes.v]\n", 3, "needs a size or an image"),
        (BLK + '[volumes.v]\nsize = "10 GB"\n', 4, "is no size"),
        (BLK + IMAGE + '[volumes.v]\nimage = "a"\n', 6, "there is no [images.a]"),
        (BLK + '[volumes.V]\nsize = "1GiB"\n', 3, "a volume's name"),
        ('[volumes.v]\nsize = "1GiB"\n', 1, "no [drivers.NAME] of kind blkback"),
        (BLK + IMAGE + guest('disks = ["v"]'), 7, "there is no [volumes.v]"),
        (BLK + IMAGE + guest('disks = [{ volume = "v", driver = "disk1" }]'), 7, 'Did you mean "disk0"?'),
        (BLK + IMAGE + guest('disks = [{ device = "xvda" }]'), 7, "missing here"),
        (
            BLK
            + IMAGE
            + '[volumes.v]\nsize = "1GiB"\n'
            + guest('disks = [{ volume = "v", device = "xvdz" }]'),
            9,
            "xvda to xvdp",
        ),
        (
            BLK
            + IMAGE
            + guest(
                'disks = [{ volume = "v", driver = "disk0", device = "xvda" },\n'
                '{ volume = "w", driver = "disk0", device = "xvda" }]'
            ),
            7,
            "the same device",
        ),
        (LAN + IMAGE + guest('nics = ["lam"]'), 8, 'Did you mean "lan"?'),
        (LAN + IMAGE + guest('nics = [{ network = "lan", mac = "01:00:00:00:00:00" }]'), 8, "MAC address"),
        (LAN + IMAGE + guest('nics = [{ network = "lan", gateway = "10.0.2.2" }]'), 8, "needs an address"),
        (
            NAT + IMAGE + guest('nics = [{ network = "inner", address = "10.8.0.9" }]'),
            10,
            "not in the network",
        ),
        (
            LAN + IMAGE + guest('nics = ["lan", "lan", "lan", "lan", "lan", "lan", "lan", "lan", "lan"]'),
            8,
            "8 are",
        ),
        (DISK + guest("", "d"), 4, 'needs a [drivers.NAME] with kind = "blkback"'),
        (DISK + 'initramfs = "i"\n', 3, "has its own initramfs"),
        (DISK + 'kernel = "k"\n', 1, "needs either"),
        (DISK + 'sha256 = "12"\n', 3, "is no SHA-256"),
        (IMAGE + 'sha256 = "' + "0" * 64 + '"\n', 3, "goes with disk"),
        (IMAGE + guest("") + '[guests.web.cloud-init]\nuser = "Me"\n', 7, "no name of a user"),
        (IMAGE + guest("") + '[guests.web.cloud-init]\nhostname = "a.b"\n', 7, "hostname"),
        (IMAGE + guest("") + "[guests.web.cloud-init]\nssh_keys = [1]\n", 7, "is no text"),
        (IMAGE + guest("cloud-init = { usr = 1 }"), 5, 'Did you mean "user"?'),
    ],
)
def test_a_mistake_about_devices_is_told_with_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, FILE)
    assert reason in str(caught.value)
    assert caught.value.line == line


def test_files_for_cloud_init_and_disks_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "xoar.toml"
    file.write_text(BLK + DISK + guest('cloud-init = { ssh_keys = ["key.pub"] }', "d"))
    with pytest.raises(ConfigError, match=r"toml:3: disk of image d: there is no file"):
        config.check_files(config.load(file))
    (tmp_path / "d.qcow2").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"toml:5: ssh_keys of guest web: there is no file .*/key.pub"):
        config.check_files(config.load(file))


# values

texts = st.text(st.sampled_from("0123456789abcdefx:./,-xvdG "), max_size=24)


@given(st.binary(min_size=6, max_size=6))
def test_mac_addresses_of_stations_are_read_as_they_are_written(mac: bytes) -> None:
    text = values.format_mac(mac)
    if mac[0] & 1 or not any(mac):
        with pytest.raises(ValueError):
            values.parse_mac(text)
    else:
        assert values.parse_mac(text) == mac


@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 7))
def test_generated_mac_addresses_are_always_the_same_and_xens(host: str, name: str, index: int) -> None:
    mac = values.generated_mac(host, name, index)
    assert mac == values.generated_mac(host, name, index)
    assert mac != values.generated_mac(host, name, index + 1)
    assert values.parse_mac(values.format_mac(mac))[:3] == b"\0\x16\x3e"
    assert mac[3] < 0x80


@given(st.ip_addresses(v=4), st.integers(8, 30), st.integers(1, 65535), st.integers(1, 65535))
def test_addresses_are_read_as_they_are_written(address: object, prefix: int, port: int, outer: int) -> None:
    text = str(address)
    first = int(text.split(".")[0])
    if first in (0, 127) or first >= 224:
        with pytest.raises(ValueError):
            values.parse_address(text)
    else:
        assert values.parse_address(text) == text
        assert values.parse_interface(f"{text}/{prefix}") == (text, prefix)
        assert values.parse_target(f"{text}:{port}") == (text, port)
        assert devices.parse_forward(f"{outer}:{text}:{port}") == Forward(outer, text, port)


@given(texts, st.sampled_from([
    values.parse_mac, values.parse_address, values.parse_interface, values.parse_target,
    devices.parse_forward, values.parse_device, values.parse_bdf, values.parse_rate,
    values.parse_volume_size, config.parse_sha256,
]))  # fmt: skip
def test_any_text_is_a_value_or_refused_with_the_text(text: str, parse: object) -> None:
    try:
        parse(text)  # type: ignore[operator]
    except ValueError as error:
        assert str(error)


@given(
    st.sampled_from(
        ["10.9.0.0/24", "172.16.0.0/16", "192.168.1.0/29", "10.9.0.1/24", "8.8.8.0/24", "10.0.0.0/8"]
    ),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255)), max_size=3),
)
def test_nat_networks_are_judged_as_the_toolstack_does(subnet: str, forwards: list[tuple[int, int]]) -> None:
    entries = tuple(Forward(port, f"10.9.0.{last}", 22) for port, last in forwards)
    network = Network("inner", "net0", "nat", 0, subnet, entries)
    assert bool(devices.network_fault(network)) == bool(networks.shape(devices.network_record(network)))


@given(st.lists(st.sampled_from(["", "xvda", "xvdb", "xvdp"]), max_size=8))
def test_disks_without_a_device_get_free_ones_in_order(wanted: list[str]) -> None:
    disks = devices.lettered(Disk("v", device) for device in wanted)
    assert [disk.device for disk, said in zip(disks, wanted, strict=True) if said] == [d for d in wanted if d]
    given_out = [disk.device for disk, said in zip(disks, wanted, strict=True) if not said]
    assert given_out == sorted(set(given_out))
    assert not set(given_out) & set(wanted)


def test_a_driver_domain_may_be_declared_without_a_device() -> None:
    found = config.parse(NET + 'device = "none"\n' + BLK, FILE).drivers
    assert (found["net0"].device, found["disk0"].device) == (UNASSIGNED, None)
    net0, disk0 = bootplan.plan(shardset.load_all(), found.values()).drivers
    assert (net0.bdf, disk0.bdf) == (0, 0x200)
