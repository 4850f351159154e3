"""XenStore in one domain: State calls Logic straight away. For comparison."""

from xoar.shards.xenstore import main as shard
from xoar.shards.xenstore import replacing
from xoar.xenstore.server import Direct


class OneDomain(replacing.LogicDomain):
    """Logic's domain is there, and is never asked."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.link = Direct()
        self.link.deadline = lambda gate: None

    def start(self, gate):
        pass

    def turn(self, gate):
        return False


def main():
    shard.LogicDomain = OneDomain
    shard.main()
