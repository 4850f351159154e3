"""A tenant's Toolstack that ends when it is asked to reboot a guest."""

from xoar.shards.toolstack import main as shard
from xoar.toolstack.guests import Guests


class End(BaseException):
    """Nothing in a Toolstack catches this."""


def reboot(guests, name, timeout_ms, request):
    raise End("asked to end")


def main():
    Guests.reboot = reboot
    shard.main()
