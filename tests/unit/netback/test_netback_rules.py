"""What rules do is tested in test_on_wires; here, that nft takes all that a layout can be."""

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from namespaces import Machine
from test_netback_layout import INSIDE, LAN, NIC, layout, vif

from xoar.netback.arp import parse as parse_arp
from xoar.netback.declared import Network
from xoar.netback.lease import is_lost
from xoar.netback.lease import parse as parse_lease
from xoar.netback.ruleset import render

networks = st.sets(st.sampled_from([LAN, INSIDE, Network("tagged", 7)]))
vifs = st.sets(
    st.builds(
        vif,
        st.integers(32, 34),
        st.sampled_from(["lan", "inside", "tagged"]),
        st.sampled_from(["", "10.9.0.5", "10.9.0.6"]),
    )
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.end()


@given(networks, vifs, st.sampled_from([NIC, None]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nft_takes_every_ruleset_after_any_other(machine: Machine, declared, plugged, nic):
    text = render(layout(*declared, *plugged, nic=nic))
    process = machine.start("nft", "-f", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    _, complaint = process.communicate(text, timeout=60)
    assert process.returncode == 0, f"{complaint}\n{text}"


@given(st.text(max_size=60) | st.lists(st.text(max_size=9), min_size=5, max_size=5).map("|".join))
def test_a_line_that_makes_no_sense_is_no_lease(line: str):
    assert parse_lease(line) is None


def test_a_lease_is_taken_from_its_line():
    lease = parse_lease("lease|bound|192.0.2.9/24|192.0.2.1 192.0.2.2|192.0.2.3")
    assert lease is not None
    assert (str(lease.address), str(lease.gateway)) == ("192.0.2.9/24", "192.0.2.1")
    assert lease.servers == (IPv4Address("192.0.2.3"),)
    lease = parse_lease("lease|renew|192.0.2.10/24||")
    assert lease is not None
    assert (str(lease.address), lease.gateway, lease.servers) == ("192.0.2.10/24", None, ())


def test_other_events_are_no_lease():
    assert parse_lease("lease|leasefail|/||") is None
    assert is_lost("lease|deconfig|/||")
    assert not is_lost("lease|leasefail|/||")


@pytest.mark.parametrize(
    "address", ["", "/", "192.0.2.9/33", "192.0.2.9/0", "224.0.0.1/24", "0.0.0.0/24", "127.0.0.1/8", "::1/64"]
)
def test_an_address_that_makes_no_sense_is_no_lease(address: str):
    assert parse_lease(f"lease|bound|{address}||") is None


@given(st.binary(max_size=60))
def test_a_packet_that_is_no_arp_names_nobody(packet: bytes):
    assert parse_arp(packet) is None


@given(st.binary(min_size=6, max_size=6), st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_arp_names_its_sender(mac: bytes, address: IPv4Address):
    packet = bytes.fromhex("0001 0800 06 04 0001") + mac + address.packed + bytes(10)
    assert parse_arp(packet) == (mac.hex(":"), str(address))
