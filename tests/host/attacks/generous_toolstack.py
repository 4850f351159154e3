"""The Toolstack, but a guest may also write to the node that Xen's test-xenstore works below.

That program uses the relative path "xenstore-test", and a guest may not write to its home, on any Xen host.
"""

from xoar.shards.toolstack import main as toolstack
from xoar.toolstack import records

records._GUEST_WRITTEN += ("xenstore-test",)


def main():
    toolstack.main()
