"""Pages of this domain that others use, too."""

import nano
from xoar.xen.ring import PAGE_SIZE, SharedPage


def own_page(frame: int) -> SharedPage:
    """The page at a frame of this domain, as byte and word view."""
    address = frame * PAGE_SIZE
    return SharedPage(nano.memory(address, PAGE_SIZE), nano.memory(address, PAGE_SIZE // 4, "I"))
