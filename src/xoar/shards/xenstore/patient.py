"""XenStore whose Logic is rolled back only when it fails: what `xoar bench xenstore` compares with.

No host has this one in its place, but a benchmark's or a test's.
"""

from xoar.shards.xenstore import main as shard
from xoar.shards.xenstore import replacing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Patient(replacing.LogicDomain):
    def __init__(
        self, page: "Any", notify: "Any", now: "Any", ask: "Any" = None, after: int = 0, *more: "Any"
    ) -> None:
        super().__init__(page, notify, now, ask, 0, *more)


def main() -> None:
    """Serves for ever."""
    setattr(shard, "LogicDomain", Patient)  # noqa: B010
    shard.main()
