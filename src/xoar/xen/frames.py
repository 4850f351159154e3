"""Free guest page frames above this domain's RAM, into which pages of other domains are mapped.

They are unpopulated: mapping over own RAM would free that RAM (XENMEM_add_to_physmap).
"""

import nano
from xoar.xen.ring import PAGE_SIZE

_REACH = 1 << 20  # nano's page tables map 4 GiB
_free: "dict[int, list[int]]" = {}  # count -> starts of runs that were given back
_next = nano.shared_info() // PAGE_SIZE + 1


def take(count: int = 1) -> int:
    """The first of `count` free frames in a row."""
    global _next
    runs = _free.get(count)
    if runs:
        return runs.pop()
    if _next + count > _REACH:
        raise MemoryError("no free page frames to map other domains' pages into")
    start = _next
    _next += count
    return start


def give_back(start: int, count: int = 1) -> None:
    """Frees a run that take() returned; nothing may be mapped in it any more."""
    _free.setdefault(count, []).append(start)
