"""The agent at work: network namespaces as guests, as the world outside and as NetBack's domain.

veth pairs stand in for what xen-netback makes: the end here is called vifG.H.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import Frames, Machine, eventually

from xoar.netback.lease import SCRIPT
from xoar.xenstore import linux

NOT_AN_ADDRESS = "00:16:3e:00:00:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"
DNS = """
import socket, struct
query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"\\7outside\\4test\\0" + struct.pack(">2H", 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(query, ("10.9.0.1", 53))
print(socket.inet_ntoa(s.recv(512)[-4:]))
"""
SERVER = """
import socket
s = socket.create_server(("", {port}))
print("ready", flush=True)
while True:
    c, a = s.accept()
    c.sendall(a[0].encode())
    c.close()
"""
CONNECT = """
import socket
try:
    s = socket.create_connection(("{address}", {port}), timeout={timeout})
    print(s.recv(100).decode())
except OSError as error:
    print("refused")
"""


class World:
    """NetBack's domain with its NIC, the network outside, and XenStore."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "xs"
        self._xenstored = subprocess.Popen(
            [sys.executable, "-m", "xoar.host.xenstored", "--socket", str(self.socket)]
        )
        self.netback = Machine()
        self.outside = Machine(self.netback)
        self.guests: dict[int, Machine] = {}
        self.plug_nic()
        self._serve_outside()
        eventually("XenStore serves", self.socket.exists)
        self.store = linux.connect(str(self.socket))
        self.store.mkdir("service")  # its owner is the host's Toolstack
        self.agent = self.start_agent()

    def plug_nic(self) -> None:
        self.outside.wire("wire", self.netback, "nic", "00:16:3e:ff:00:01")
        self.outside.ip("link", "set", "wire", "up")
        self.outside.ip("address", "add", "192.0.2.1/24", "dev", "wire")

    def pull_nic(self) -> None:
        self.netback.ip("link", "delete", "nic")

    def _serve_outside(self) -> None:
        self.dnsmasq = self.outside.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=",
            "--pid-file=", "--no-hosts", "--no-resolv", "--interface=wire", "--bind-dynamic", "--no-ping",
            "--address=/outside.test/192.0.2.1", "--dhcp-range=192.0.2.100,192.0.2.150,1h",
            f"--dhcp-leasefile={self.folder / 'outside-leases'}",
        )  # fmt: skip

    def start_agent(self) -> subprocess.Popen[str]:
        words = [f"xenstore={self.socket}", f"folder={self.folder / 'run'}", "user=root", "nic=nic"]
        return self.netback.start(sys.executable, "-m", "xoar.shards.netback.main", *words)

    def guest(self, domid: int, network: str, address: str = "") -> Machine:
        """A guest whose vif is declared, and there, but need not be plugged yet."""
        machine = self.guests[domid] = Machine(self.netback)
        self.netback.wire(f"vif{domid}.0", machine, "eth0", mac(domid))
        self.declare_vif(domid, network, mac(domid), address)
        return machine

    def plugged_guest(self, domid: int, network: str, address: str = "") -> Machine:
        machine = self.guest(domid, network, address)
        eventually(f"vif{domid}.0 is connected", lambda: self.status(domid) == "connected")
        return machine

    def declare_vif(self, domid: int, network: str, address: str, ip: str = "") -> None:
        nodes = {"mac": address, "network": network, "address": ip, "state": "1", "hotplug-status": ""}
        for name, value in nodes.items():
            self.store.write(f"backend/vif/{domid}/0/{name}", value)

    def declare_network(self, name: str, mode: str, **nodes: str) -> None:
        for node, value in {**nodes, "mode": mode}.items():
            self.store.write(f"networks/{name}/{node}", value)
        eventually(f"network {name} is known", lambda: self.says(f"networks/{name}") != "")

    def status(self, domid: int) -> str:
        return self.store.text(f"backend/vif/{domid}/0/hotplug-status") or ""

    def says(self, path: str) -> str:
        return self.store.text(f"service/{path}") or ""

    def bridge_of(self, interface: str) -> str:
        words = self.netback.ip("-o", "link", "show", interface).split()
        return words[words.index("master") + 1] if "master" in words else ""

    def children(self) -> list[str]:
        """Which programs run with files of the agent's folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_text(errors="replace")
                if f"{self.folder}/run/" in line:
                    found += [name for name in ("dnsmasq", "udhcpc") if f"{name}\0" in line]
        return sorted(found)

    def clear(self) -> None:
        """No guest, no network."""
        for machine in self.guests.values():
            machine.end()
        self.guests = {}
        self.store.rm("backend/vif")
        self.store.rm("tenants")
        for name in self.store.children("networks"):
            self.store.rm(f"networks/{name}")
        eventually("all is gone", lambda: not self.store.children("service/networks"))

    def end(self) -> None:
        self.store.close()
        for machine in (*self.guests.values(), self.outside, self.netback):
            machine.end()
        self._xenstored.terminate()
        self._xenstored.wait()


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("netback"))
    try:
        eventually("the agent is ready", lambda: world.says("state") == "ready")
        yield world
    finally:
        world.end()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    yield shared_world
    shared_world.clear()


@pytest.fixture
def lan(world: World) -> World:
    """With an untagged bridge network, lan."""
    world.declare_network("lan", mode="bridge", vlan="0")
    assert world.says("networks/lan") == "up"
    return world


@pytest.fixture
def nat(world: World) -> World:
    """With a network behind NAT, inside, and its guest 5."""
    forwards = "tcp:2222:10.9.0.50:22"
    world.declare_network("inside", vlan="0", subnet="10.9.0.0/24", forwards=forwards, mode="nat")
    eventually("the uplink has an address", lambda: world.says("networks/inside") == "up")
    return world


def mac(domid: int) -> str:
    return f"00:16:3e:00:00:{domid:02x}"


def frame(source: str, kind: int, payload: bytes, to: str = BROADCAST) -> bytes:
    head = bytes.fromhex((to + source).replace(":", ""))
    return (head + struct.pack(">H", kind) + payload).ljust(60, b"\0")


def arp(source: str, sender: str, address: str, operation: int = 1) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x800, 6, 4, operation) + bytes.fromhex(sender.replace(":", ""))
    return frame(source, 0x806, body + socket.inet_aton(address) + bytes(6) + socket.inet_aton("192.0.2.77"))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(source: str, address: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    head += socket.inet_aton(address) + socket.inet_aton("255.255.255.255")
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return frame(source, 0x800, head + payload)


def udp(source: str, address: str, source_port: int, port: int) -> bytes:
    return ipv4(source, address, 17, struct.pack(">HHHH", source_port, port, 12, 0) + b"data")


def ipv6(source: str, next_header: int, payload: bytes) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), next_header, 255)
    here, there = "fe80::216:3eff:fe00:5", "ff02::1"
    addresses = socket.inet_pton(socket.AF_INET6, here) + socket.inet_pton(socket.AF_INET6, there)
    return frame(source, 0x86DD, head + addresses + payload)


def passes(sender: Frames, receiver: Frames, frames: list[bytes], marker: bytes) -> list[bytes]:
    """Those of the frames that arrive; the marker, sent last, has to."""
    for each in [*frames, marker]:
        sender.send(each)
    heard = receiver.heard_before(marker)
    return [each for each in frames if each in heard]


def test_a_bridge_network_connects_guests_and_the_outside(lan: World):
    one, two = lan.plugged_guest(5, "lan"), lan.plugged_guest(6, "lan")
    for machine, address in ((one, "192.0.2.5"), (two, "192.0.2.6")):
        machine.ip("address", "add", f"{address}/24", "dev", "eth0")
    for target in ("192.0.2.6", "192.0.2.1"):
        one.run("busybox", "ping", "-c", "1", "-W", "5", target)


def test_a_bridge_network_has_the_cards_mac_and_no_address(lan: World):
    bridge = lan.bridge_of("nic")
    shown = lan.netback.ip("-d", "address", "show", bridge)
    assert "00:16:3e:ff:00:01" in shown
    assert "inet" not in shown
    assert "stp_state 0" in shown
    assert "inet" not in lan.netback.ip("address", "show", "nic")


def test_frames_of_its_own_pass_and_others_do_not(lan: World):
    sender = lan.plugged_guest(5, "lan").frames("eth0")
    outside = lan.outside.frames("wire")
    good = [
        arp(mac(5), mac(5), "192.0.2.5"),
        udp(mac(5), "192.0.2.5", 1000, 2000),
        udp(mac(5), "0.0.0.0", 68, 67),
        ipv6(mac(5), 17, struct.pack(">HHHH", 1000, 2000, 8, 0)),
    ]
    bad = [
        arp(NOT_AN_ADDRESS, mac(5), "192.0.2.5"),
        arp(mac(5), NOT_AN_ADDRESS, "192.0.2.5"),
        udp(NOT_AN_ADDRESS, "192.0.2.5", 1000, 2001),
        udp(mac(5), "192.0.2.5", 67, 68),
        ipv4(mac(5), "192.0.2.5", 1, struct.pack(">BBHI", 5, 1, 0, 0)),
        ipv6(mac(5), 58, struct.pack(">BBHIII", 134, 0, 0, 0, 0, 0)),
        ipv6(mac(5), 17, struct.pack(">HHHH", 547, 546, 8, 0)),
        frame(mac(5), 0x8100, struct.pack(">HH", 7, 0x800) + bytes(46)),
        frame(mac(5), 0x88A8, struct.pack(">HH", 7, 0x800) + bytes(46)),
        frame(mac(5), 0x0026, bytes.fromhex("424203000000") + bytes(40), to="01:80:c2:00:00:00"),
        frame(mac(5), 0x88CC, bytes(46)),
    ]
    marker = udp(mac(5), "192.0.2.5", 1, 1)
    assert passes(sender, outside, good + bad, marker) == good


def test_a_guest_with_a_given_address_uses_no_other(lan: World):
    sender = lan.plugged_guest(5, "lan", "192.0.2.5").frames("eth0")
    good = [
        arp(mac(5), mac(5), "192.0.2.5"),
        arp(mac(5), mac(5), "0.0.0.0"),
        udp(mac(5), "0.0.0.0", 68, 67),
        udp(mac(5), "192.0.2.5", 1000, 2000),
    ]
    bad = [
        arp(mac(5), mac(5), "192.0.2.6"),
        udp(mac(5), "192.0.2.6", 1000, 2001),
        udp(mac(5), "0.0.0.0", 1000, 2002),
        ipv6(mac(5), 17, struct.pack(">HHHH", 1000, 2000, 8, 0)),
    ]
    marker = udp(mac(5), "192.0.2.5", 1, 1)
    assert passes(sender, lan.outside.frames("wire"), good + bad, marker) == good


def test_a_given_address_is_nobody_elses(lan: World):
    lan.plugged_guest(5, "lan", "192.0.2.5")
    sender = lan.plugged_guest(6, "lan").frames("eth0")
    bad = [arp(mac(6), mac(6), "192.0.2.5", 2), udp(mac(6), "192.0.2.5", 1000, 2000)]
    marker = udp(mac(6), "192.0.2.6", 1, 1)
    assert passes(sender, lan.outside.frames("wire"), bad, marker) == []


def test_tagged_frames_from_outside_do_not_reach_the_untagged_network(lan: World):
    guest = lan.plugged_guest(5, "lan").frames("eth0")
    outside = lan.outside.frames("wire")
    tagged = frame(NOT_AN_ADDRESS, 0x8100, struct.pack(">HH", 7, 0x800) + bytes(46))
    marker = udp(NOT_AN_ADDRESS, "192.0.2.9", 1, 1)
    assert passes(outside, guest, [tagged], marker) == []


def test_addresses_that_guests_use_are_reported_and_forgotten_with_them(lan: World):
    guest = lan.plugged_guest(5, "lan").frames("eth0")
    guest.send(arp(mac(5), mac(5), "192.0.2.5"))
    eventually("the address is seen", lambda: lan.says("addresses/5/0") == "192.0.2.5")
    lan.store.rm("backend/vif/5")
    eventually("it is forgotten", lambda: not lan.store.children("service/addresses"))


def test_a_vlan_network_works_or_says_that_the_kernel_cannot(lan: World):
    lan.declare_network("tagged", mode="bridge", vlan="7")
    if lan.says("networks/tagged") != "up":
        assert "not supported" in lan.says("networks/tagged")
        return
    sender, other = lan.plugged_guest(5, "tagged").frames("eth0"), lan.plugged_guest(6, "lan").frames("eth0")
    plain = udp(mac(5), "192.0.2.5", 1, 1)
    sender.send(plain)
    lan.outside.frames("wire").heard_before(plain[:12] + struct.pack(">HH", 0x8100, 7) + plain[12:])
    marker = udp(NOT_AN_ADDRESS, "192.0.2.9", 1, 1)
    assert passes(lan.outside.frames("wire"), other, [plain], marker) == []


def test_what_makes_no_sense_is_an_error_of_that_vif_alone(lan: World):
    lan.guest(5, "lan")
    lan.declare_vif(5, "lan", "ff:ff:ff:ff:ff:ff")
    lan.store.write("backend/vif/x/0/mac", "z")
    lan.store.write("backend/vif/7/99999/state", "1")
    lan.store.write("backend/vif/7/0/state", b"\xff\0\n")
    lan.guest(8, "nowhere")
    lan.plugged_guest(6, "lan")
    for domid, why in ((5, "mac is"), (7, "mac is"), (8, "no network nowhere")):
        eventually(f"vif{domid}.0 is an error", lambda domid=domid: lan.status(domid) == "error")  # type: ignore[misc]
        assert why in (lan.store.text(f"backend/vif/{domid}/0/hotplug-error") or "")
    assert lan.bridge_of("vif5.0") == ""
    lan.declare_vif(5, "lan", mac(5))
    eventually("what is put right works", lambda: lan.status(5) == "connected")
    assert lan.store.text("backend/vif/5/0/hotplug-error") is None


def test_a_tenants_vif_follows_what_is_delegated(lan: World):
    tenant = 32512
    base = f"tenants/{tenant}"

    def delegate() -> None:
        for node, value in (("service", ""), ("networks/lan", ""), ("name", "acme")):
            lan.store.write(f"{base}/{node}", value)

    delegate()
    lan.declare_network("other", mode="bridge", vlan="9")
    lan.store.mkdir("backend/vif/5/0")
    lan.store.set_perms("backend/vif/5/0", [f"n{tenant}"])
    guest = lan.plugged_guest(5, "lan")
    lan.plugged_guest(6, "lan")
    guest.frames("eth0").send(arp(mac(5), mac(5), "192.0.2.5"))
    told = f"{base}/service/addresses/5/0"
    eventually("its address is told to the tenant", lambda: lan.store.text(told) == "192.0.2.5")
    assert lan.store.children("service/addresses") == []
    assert lan.store.children(f"{base}/service/networks") == ["lan"]
    for node, why in (
        ("networks/lan", "network lan is not delegated to acme"),
        ("", "is not delegated to the"),
    ):
        lan.store.rm(f"{base}/{node}".rstrip("/"))
        eventually("it is an error", lambda: lan.status(5) == "error")
        assert why in (lan.store.text("backend/vif/5/0/hotplug-error") or "")
        assert lan.bridge_of("vif5.0") == ""
        assert lan.status(6) == "connected"
        delegate()
        eventually("it is back", lambda: lan.status(5) == "connected")
        assert lan.bridge_of("vif5.0") != ""
    assert lan.store.text(f"{base}/service/state") == "ready"
    assert lan.store.text(f"{base}/service/networks/lan") == "up"


def test_a_vif_that_vanishes_is_not_connected_any_more(lan: World):
    lan.plugged_guest(5, "lan")
    lan.plugged_guest(6, "lan")
    lan.netback.ip("link", "delete", "vif5.0")
    eventually("it is not connected", lambda: lan.status(5) == "")
    assert lan.status(6) == "connected"
    assert lan.store.exists("backend/vif/5/0/state")


def test_a_device_that_was_removed_is_not_brought_back(lan: World):
    lan.plugged_guest(5, "lan")
    lan.store.rm("backend/vif/5")
    lan.netback.ip("link", "delete", "vif5.0")
    lan.plugged_guest(6, "lan")
    assert lan.store.children("backend/vif") == ["6"]


def test_a_vif_without_its_node_is_cut_off(lan: World):
    lan.plugged_guest(5, "lan")
    assert lan.bridge_of("vif5.0")
    lan.store.rm("backend/vif/5")
    eventually("it is unplugged", lambda: lan.bridge_of("vif5.0") == "")


def test_a_guest_behind_nat_gets_an_address_names_and_the_outside(nat: World):
    guest = nat.plugged_guest(5, "inside")
    address = dhcp(nat, guest)
    assert address.startswith("10.9.0.")
    assert guest.python(DNS) == "192.0.2.1"
    server = nat.outside.start(sys.executable, "-c", SERVER.format(port=8000), stdout=subprocess.PIPE)
    assert server.stdout
    server.stdout.readline()
    seen = guest.python(CONNECT.format(address="192.0.2.1", port=8000, timeout=10))
    assert seen.startswith("192.0.2.1")  # NetBack's, which has it by DHCP
    assert seen in nat.netback.ip("address", "show", "nic")
    eventually("the address is reported", lambda: nat.says("addresses/5/0") == address)


def test_a_guest_with_a_given_address_gets_it_and_forwards_reach_it(nat: World):
    guest = nat.plugged_guest(5, "inside", "10.9.0.50")
    assert dhcp(nat, guest) == "10.9.0.50"
    server = guest.start(sys.executable, "-c", SERVER.format(port=22), stdout=subprocess.PIPE)
    assert server.stdout
    server.stdout.readline()
    words = nat.netback.ip("-o", "address", "show", "nic").split()
    uplink = words[words.index("inet") + 1].partition("/")[0]
    assert nat.outside.python(CONNECT.format(address=uplink, port=2222, timeout=10)) == "192.0.2.1"


def test_guests_behind_nat_reach_nothing_else_of_netback(nat: World):
    guest = nat.plugged_guest(5, "inside")
    dhcp(nat, guest)
    server = nat.netback.start(sys.executable, "-c", SERVER.format(port=8001), stdout=subprocess.PIPE)
    assert server.stdout
    server.stdout.readline()
    assert nat.netback.python(CONNECT.format(address="10.9.0.1", port=8001, timeout=5)) != "refused"
    assert guest.python(CONNECT.format(address="10.9.0.1", port=8001, timeout=1)) == "refused"
    guest.run("busybox", "ping", "-c", "1", "-W", "5", "10.9.0.1")


def test_networks_behind_nat_do_not_reach_each_other(nat: World):
    nat.declare_network("other", vlan="0", subnet="10.10.0.0/24", forwards="", mode="nat")
    one, two = nat.plugged_guest(5, "inside"), nat.plugged_guest(6, "other")
    dhcp(nat, one)
    address = dhcp(nat, two)
    server = two.start(sys.executable, "-c", SERVER.format(port=22), stdout=subprocess.PIPE)
    assert server.stdout
    server.stdout.readline()
    assert one.python(CONNECT.format(address=address, port=22, timeout=1)) == "refused"


def test_a_guest_behind_nat_cannot_speak_for_the_gateway_or_strangers(nat: World):
    sender = nat.plugged_guest(5, "inside").frames("eth0")
    other = nat.plugged_guest(6, "inside").frames("eth0")
    bad = [
        arp(mac(5), mac(5), "10.9.0.1", 2),
        udp(mac(5), "10.9.0.1", 1000, 2000),
        arp(mac(5), mac(5), "192.0.2.1", 2),
        udp(mac(5), "192.0.2.1", 1000, 2000),
        ipv6(mac(5), 17, struct.pack(">HHHH", 1000, 2000, 8, 0)),
    ]
    marker = udp(mac(5), "10.9.0.5", 1, 1)
    assert passes(sender, other, bad, marker) == []


def test_the_uplinks_address_moves_to_the_bridge_of_an_untagged_network(nat: World):
    nat.declare_network("lan", mode="bridge", vlan="0")
    bridge = nat.bridge_of("nic")
    eventually("it has moved", lambda: "inet 192.0.2." in nat.netback.ip("address", "show", bridge))
    assert "inet" not in nat.netback.ip("address", "show", "nic")
    guest = nat.plugged_guest(5, "inside")
    dhcp(nat, guest)
    guest.run("busybox", "ping", "-c", "1", "-W", "5", "192.0.2.1")


def test_an_uplink_whose_lease_is_lost_has_no_address(nat: World):
    client = (nat.folder / "run/udhcpc.pid").read_text()
    nat.netback.run("kill", "-USR2", client)  # gives the lease back
    eventually("it is reported", lambda: nat.says("networks/inside").startswith("failed no DHCP server"))
    eventually("the address is gone", lambda: "inet" not in nat.netback.ip("address", "show", "nic"))
    nat.netback.run("kill", "-USR1", client)  # asks again
    eventually("it serves again", lambda: nat.says("networks/inside") == "up")


def test_an_agent_that_is_started_again_disturbs_nothing(nat: World):
    nat.declare_network("lan", mode="bridge", vlan="0")
    guest = nat.plugged_guest(5, "inside")
    nat.plugged_guest(6, "lan")
    dhcp(nat, guest)
    eventually("the uplink serves", lambda: nat.says("networks/inside") == "up")
    before = nat.netback.ip("-o", "link"), nat.netback.ip("-o", "-4", "address")
    guest.start("busybox", "ping", "-i", "0.1", "192.0.2.1", stdout=subprocess.DEVNULL)
    nat.agent.send_signal(signal.SIGKILL)
    nat.agent.wait()
    nat.store.write("service/state", "x")
    nat.agent = nat.start_agent()
    eventually("it is ready", lambda: nat.says("state") == "ready")
    eventually("the uplink serves", lambda: nat.says("networks/inside") == "up")
    assert (nat.netback.ip("-o", "link"), nat.netback.ip("-o", "-4", "address")) == before
    nat.plugged_guest(7, "lan")
    lost = guest.run("busybox", "ping", "-c", "1", "-W", "5", "192.0.2.1")
    assert "1 packets received" in lost
    assert nat.children() == ["dnsmasq", "udhcpc"]  # once each: none is left over


def test_a_pulled_card_is_reported_and_the_rest_goes_on(nat: World):
    nat.declare_network("lan", mode="bridge", vlan="0")
    one, two = nat.plugged_guest(5, "inside"), nat.plugged_guest(6, "inside")
    addresses = [dhcp(nat, machine) for machine in (one, two)]
    nat.pull_nic()
    try:
        eventually("it is reported", lambda: nat.says("state") == "failed")
        assert "network card" in nat.says("note")
        for name in ("lan", "inside"):
            assert nat.says(f"networks/{name}").startswith("failed")
        one.run("busybox", "ping", "-c", "1", "-W", "5", addresses[1])
        nat.plugged_guest(7, "lan")
    finally:
        nat.plug_nic()
    eventually("all serves again", lambda: nat.says("networks/inside") == "up")
    assert (nat.says("state"), nat.says("note"), nat.says("networks/lan")) == ("ready", "", "up")
    one.run("busybox", "ping", "-c", "1", "-W", "5", "192.0.2.1")


def dhcp(world: World, guest: Machine) -> str:
    """The address that a guest's DHCP client gets and sets, with the route."""
    script = world.folder / "guest.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    output = guest.run(
        "busybox", "udhcpc", "-f", "-q", "-n", "-t", "20", "-T", "1", "-i", "eth0", "-s", script
    )
    lines = [line.split("|") for line in output.splitlines() if line.startswith("lease|bound")]
    assert lines, output
    _, _, address, router, _ = lines[0]
    guest.ip("address", "replace", address, "dev", "eth0")
    with contextlib.suppress(AssertionError):
        guest.ip("route", "del", "default")
    guest.ip("route", "add", "default", "via", router)
    return address.partition("/")[0]
