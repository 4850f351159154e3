"""The shard logic, which ends in its tenth life: while the first guest is created."""

from ending import in_life

from xoar.shards.logic import main as shard


def main():
    in_life(10)
    shard.main()
