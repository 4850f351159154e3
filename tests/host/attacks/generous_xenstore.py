"""XenStore, but a guest may also write to the node that Xen's test-xenstore works below.

That program uses the relative path "xenstore-test", and a guest may not write to its home, on any Xen host.
"""

from xoar.shards.xenstore import main as xenstore
from xoar.xenstore import paths

paths.OF_A_GUEST += ((b"xenstore-test", True),)


def main():
    xenstore.main()
