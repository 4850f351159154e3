"""The shard logic, which ends in its fiftieth life: while the first guest is created."""

from ending import in_life

from xoar.shards.logic import main as shard


def main():
    in_life(50)
    shard.main()
