"""Addresses of PCI functions: what operators write, and the numbers that messages and the boot plan have.

A number is segment << 16 | bus << 8 | device << 3 | function, as in xoar.messages.records.BDF.
"""

import re

_ADDRESS = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")


def bdf_number(text: str) -> int:
    """The number of an address such as "0000:03:00.0" or "03:00.0" (segment 0). Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is no PCI address: write it as lspci shows it, such as "03:00.0"')
    segment, bus, device, function = (int(part or "0", 16) for part in match.groups())
    return segment << 16 | bus << 8 | device << 3 | function


def emulated_bdf(index: int) -> int:
    """The number of the `index`-th driver domain's device (0..) in an emulated machine.

    Each sits behind a root port of its own: alone on bus index + 1, as device 0, function 0.
    """
    return index + 1 << 8
