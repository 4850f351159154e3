"""The shard logic, until it is the attacker's."""

from takeover import GuestRuns, sweep, when

from xoar.shards.logic import main as shard


def main():
    when(GuestRuns(), sweep)
    shard.main()
