"""The shard builder, which ends in its third life."""

from ending import in_life

from xoar.shards.builder import main as shard


def main():
    in_life(3)
    shard.main()
