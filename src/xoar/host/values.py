"""Values of devices as people write them: addresses, sizes, names.

Each parser raises ValueError with what is wrong and how to write it.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address

from xoar.host.tables import parse_size

DISKS = tuple(f"xvd{letter}" for letter in "abcdefghijklmnop")
"""The names that a guest's disks can have, in their order."""

_BDF = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_XEN_OUI = bytes((0x00, 0x16, 0x3E))


def parse_number(text: str) -> int:
    """A number of up to five digits; -1 if it is none."""
    return int(text) if _NUMBER.fullmatch(text) else -1


def parse_bdf(text: str) -> str:
    """A PCI function such as 0000:03:00.0."""
    if not _BDF.fullmatch(text):
        raise ValueError(f'"{text}" is no PCI function: write it like "0000:03:00.0"')
    return text


def parse_mac(text: str) -> bytes:
    """A MAC address of one station, such as 00:16:3e:01:02:03."""
    raw = bytes.fromhex(text.replace(":", "")) if _MAC.fullmatch(text) else b""
    if not raw or raw[0] & 1 or not any(raw):
        raise ValueError(f'"{text}" is no MAC address of one interface, such as "00:16:3e:01:02:03"')
    return raw


def format_mac(mac: bytes) -> str:
    """As `parse_mac` reads it."""
    return mac.hex(":")


def generated_mac(host: str, guest: str, index: int) -> bytes:
    """The MAC address of a guest's interface that was given none: always the same, with Xen's prefix."""
    digest = hashlib.sha256(f"{host}/{guest}/{index}".encode()).digest()
    return _XEN_OUI + bytes((digest[0] & 0x7F,)) + digest[1:3]


def parse_address(text: str) -> str:
    """An IPv4 address."""
    try:
        first = IPv4Address(text).packed[0]
    except ValueError:
        first = 0
    # 0.0.0.0/8, 127.0.0.0/8, multicast and above are no interface's
    if first in (0, 127) or first >= 224:
        raise ValueError(f'"{text}" is no IPv4 address such as "10.0.2.20"')
    return text


def parse_interface(text: str) -> tuple[str, int]:
    """Address and prefix length of 10.0.2.20/24; of an address alone 24."""
    address, slash, length = text.partition("/")
    prefix = parse_number(length) if slash else 24
    if not 8 <= prefix <= 30:
        raise ValueError(f'"{text}": the length of a prefix is 8 to 30, as in "10.0.2.20/24"')
    return parse_address(address), prefix


def parse_device(text: str) -> str:
    """A disk's name in the guest."""
    if text not in DISKS:
        raise ValueError(f'"{text}" is no disk of a guest: xvda to xvdp')
    return text


def parse_target(text: str) -> tuple[str, int]:
    """Address and port of 10.9.0.10:22."""
    address, _, digits = text.partition(":")
    port = parse_number(digits)
    if not 1 <= port <= 65535:
        raise ValueError(f'"{text}" is no address and port such as "10.9.0.10:22"')
    return parse_address(address), port


def parse_rate(text: str) -> int:
    """KiB/s of a rate such as 10MiB (per second)."""
    kib = parse_size(text)
    if kib >= 1 << 32:
        raise ValueError(f'"{text}": a rate is less than 4TiB a second')
    return kib


def guest_memory_kib(text: str) -> int:
    """KiB of a guest's memory. Raises ValueError with the reason."""
    kib = parse_size(text)
    if kib % 4 or not 8 << 10 <= kib <= 1 << 30:
        raise ValueError(f'"{text}": a guest has 8MiB to 1TiB of memory, in whole pages (4KiB)')
    return kib


def parse_volume_size(text: str) -> int:
    """KiB of a volume or a disk."""
    kib = parse_size(text)
    if not 1 << 10 <= kib <= 1 << 40:
        raise ValueError(f'"{text}": a volume has 1MiB to 1024TiB')
    return kib


def is_key(text: str) -> bool:
    """Whether a text is a public SSH key, not the name of a file."""
    return text.startswith(("ssh-", "ecdsa-", "sk-")) and " " in text
