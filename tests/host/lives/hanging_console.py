"""The shard console, which hangs at the end of one of its lives."""

import nano
from xoar.shards.console import main as shard
from xoar.xen import boot
from xoar.xen.ring import PAGE_SIZE

_HANGS = 3
_kicked = boot.roll_back


def _roll_back():
    if nano.memory(boot.LIFE_FRAME * PAGE_SIZE, 1, "I")[0] == _HANGS:
        print("console: hangs")
        while True:
            pass
    _kicked()


def main():
    boot.roll_back = _roll_back
    shard.main()
