"""Builds what tests of a section need, with progress: ./run-tests calls it, so that pytest need not wait.

Usage: python tests/prepare.py unit|nano|host|devices|soak|rights|all
"""

import sys

from xoar.host.apt import Apt
from xoar.host.build import abi, micropython, xen
from xoar.host.errors import HostError
from xoar.host.progress import Reporter


def prepare(section: str) -> None:
    show = Reporter()
    apt = Apt(show)
    abi.generate(xen.build(apt, show), show)
    if section in ("nano", "all"):
        micropython.unix_port(micropython.build(apt, show), show)


if __name__ == "__main__":
    try:
        prepare(sys.argv[1])
    except HostError as error:
        sys.exit(f"xoar: {error}")
