"""The shard console, until it is the attacker's."""

from takeover import GuestRuns, sweep, when

from xoar.shards.console import main as shard
from xoar.xen.endless import Endless


def main():
    shard.Life = Endless  # it would not be there long enough to attack anybody
    when(GuestRuns(), sweep)
    shard.main()
