"""IPv4 addresses and subnets as text (dotted decimal, prefix length)."""

# RFC 1918 and RFC 6598: what a network of ours behind NAT may be
_PRIVATE = ((0x0A000000, 8), (0xAC100000, 12), (0xC0A80000, 16), (0x64400000, 10))
MIN_PREFIX = 16
MAX_PREFIX = 29


def address(untrusted_text: str) -> "int | None":
    """The number of a host's address such as 10.9.0.2, or None: no leading zeros, nothing special."""
    parts = untrusted_text.split(".")
    if len(parts) != 4:
        return None
    number = 0
    for part in parts:
        value = decimal(part, 255)
        if value is None:
            return None
        number = number << 8 | value
    # 0.0.0.0/8, 127.0.0.0/8, multicast and above
    first = number >> 24
    return None if first in (0, 127) or first >= 224 else number


def subnet(untrusted_text: str) -> "tuple[int, int] | None":
    """(first address, prefix length) of a private /16../29 such as 10.9.0.0/24, or None."""
    parts = untrusted_text.split("/")
    if len(parts) != 2:
        return None
    base, prefix = address(parts[0]), decimal(parts[1], 32)
    if base is None or prefix is None or not MIN_PREFIX <= prefix <= MAX_PREFIX:
        return None
    if base & ((1 << (32 - prefix)) - 1) or not any([within(base, entry) for entry in _PRIVATE]):
        return None
    return base, prefix


def within(number: int, net: "tuple[int, int]") -> bool:
    """Whether an address is in a subnet."""
    return number >> (32 - net[1]) == net[0] >> (32 - net[1])


def for_guests(number: int, net: "tuple[int, int]") -> bool:
    """Whether a guest may have this address of a NAT network: the first one is NetBack's, the network's and
    the broadcast address are nobody's."""
    base, prefix = net
    return base + 1 < number < base + (1 << (32 - prefix)) - 1


def overlap(one: "tuple[int, int]", other: "tuple[int, int]") -> bool:
    """Whether two subnets have an address in common."""
    return within(one[0], other) or within(other[0], one)


def decimal(untrusted_text: str, largest: int) -> "int | None":
    """A number from 0 to `largest` in plain decimal digits, or None."""
    if not untrusted_text or len(untrusted_text) > 20 or untrusted_text.strip("0123456789"):
        return None
    if untrusted_text[0] == "0" and untrusted_text != "0":
        return None
    value = int(untrusted_text)
    return value if value <= largest else None
