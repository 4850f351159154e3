"""A shard that ends in one of its lives, as that begins."""

from xoar.xen import boot

_snapshot = boot.snapshot


class End(BaseException):
    """Nothing in a shard catches this."""


def in_life(number):
    """To be called before the shard's own main."""

    def snapshot():
        life = _snapshot()
        if life == number:
            raise End("asked to end")
        return life

    boot.snapshot = snapshot
