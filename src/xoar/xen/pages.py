"""Pages of this domain that others use, too."""

import nano
from xoar.xen.ring import PAGE_SIZE, SharedPage


def own_page(frame: int) -> SharedPage:
    """The page at a frame of this domain, as byte and word view."""
    address = frame * PAGE_SIZE
    return SharedPage(nano.memory(address, PAGE_SIZE), nano.memory(address, PAGE_SIZE // 4, "I"))


class Buffer:
    """One page of this domain's that is nobody else's: `page`, at frame `frame`, for as long as there is this
    object: `page` alone does not hold it."""

    def __init__(self) -> None:
        self._memory = bytearray(2 * PAGE_SIZE)  # the heap knows no pages
        self.frame = -(-nano.address(self._memory) // PAGE_SIZE)
        self.page = own_page(self.frame)
