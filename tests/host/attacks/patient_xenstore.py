"""XenStore whose Logic is rolled back only when it fails. For comparison."""

from xoar.shards.xenstore import main as shard
from xoar.shards.xenstore import replacing


class Patient(replacing.LogicDomain):
    def __init__(self, page, notify, now, ask=None, after=0, *more):
        super().__init__(page, notify, now, ask, 0, *more)


def main():
    shard.LogicDomain = Patient
    shard.main()
