"""A life that ends only when somebody else ends it: for benchmarks, which compare with it."""

from xoar.xen.lives import Life


class Endless(Life):
    """As Life for a shard that never wants to be rolled back."""

    def sleep(self, deadline: "int | None", at_rest: bool, used: bool) -> "list[int] | None":
        return super().sleep(deadline, False, used)
