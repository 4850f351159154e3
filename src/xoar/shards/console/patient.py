"""Console that never has itself rolled back.

No host has this one in its place, but that of `xoar bench rollbacks`.
"""

from xoar.shards.console import main as shard
from xoar.xen.endless import Endless


def main() -> None:
    """Serves for ever."""
    setattr(shard, "Life", Endless)  # noqa: B010
    shard.main()
