"""The shard toolstack, which ends in its third life."""

from ending import in_life

from xoar.shards.toolstack import main as shard


def main():
    in_life(3)
    shard.main()
