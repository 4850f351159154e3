"""Addresses of guests from their DHCP requests."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from xoar.netback import dhcp

MAC = bytes.fromhex("00163e010203")


def request(
    options: bytes = b"\x35\x01\x03\x32\x04\x0a\x00\x02\x0f\xff",
    mac: bytes = MAC,
    current: bytes = bytes(4),
    cookie: bytes = bytes.fromhex("63825363"),
) -> bytes:
    """An IP packet with a client's message."""
    message = struct.pack(">BBBB", 1, 1, 6, 0) + bytes(8) + current + bytes(12) + mac + bytes(10 + 192)
    payload = message + cookie + options
    udp = struct.pack(">HHHH", 68, 67, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4) + udp


def test_the_requested_address_is_the_clients() -> None:
    assert dhcp.parse(request()) == ("00:16:3e:01:02:03", "10.0.2.15")


def test_a_client_that_renews_has_its_address_in_the_header() -> None:
    packet = request(b"\x00\x35\x01\x03\xff", current=b"\x0a\x00\x02\x10")
    assert dhcp.parse(packet) == ("00:16:3e:01:02:03", "10.0.2.16")


def test_what_is_no_request_for_an_address_says_nothing() -> None:
    for packet in (
        b"",
        request()[:200],
        request(b"\x35\x01\x01\x32\x04\x0a\x00\x02\x0f\xff"),  # DHCPDISCOVER
        request(b"\x35\x01\x03\xff"),  # no address
        request(b"\x35\x01\x03\x32\x04\x7f\x00\x00\x01\xff"),
        request(b"\x35\x01\x03\x32\x04\x0a"),  # cut short
        request(cookie=bytes(4)),
    ):
        assert dhcp.parse(packet) is None


@given(st.binary(max_size=400), st.binary(max_size=80))
def test_any_bytes_are_taken(packet: bytes, options: bytes) -> None:
    dhcp.parse(packet)
    dhcp.parse(request(options))


_HEAR = """
import socket, sys, time
sys.path.insert(0, sys.argv[1])
from xoar.netback import dhcp
listener = dhcp.Listener()
sender = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
for packet in map(bytes.fromhex, sys.argv[2:]):
    sender.sendto(packet, ("lo", 0x0800))
time.sleep(0.2)
buffer, count = dhcp.Listener(), 0
while True:
    try:
        listener._socket.recvfrom(600)
        count += 1
    except OSError:
        break
print(count)
"""


def test_the_kernel_passes_on_nothing_else() -> None:
    other = bytearray(request())
    struct.pack_into(">H", other, 22, 53)
    fragment = bytearray(request())
    struct.pack_into(">H", fragment, 6, 100)
    tcp = bytearray(request())
    tcp[9] = socket.IPPROTO_TCP
    packets = [bytes(packet).hex() for packet in (request(), other, fragment, tcp, request())]
    source = str(Path(dhcp.__file__).parents[2])
    script = "ip link set lo up && exec " + f"{sys.executable} -c '{_HEAR}' {source} " + " ".join(packets)
    done = subprocess.run(
        ["unshare", "-Urn", "sh", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    # each packet on lo is seen twice: as it is sent and as it arrives
    assert done.stdout.strip() in ("2", "4"), done.stderr
