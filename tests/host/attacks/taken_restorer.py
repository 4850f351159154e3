"""The shard restorer, until it is the attacker's."""

from takeover import GuestRuns, sweep, when

from xoar.shards.restorer import main as shard


def main():
    when(GuestRuns(), sweep)
    shard.main()
