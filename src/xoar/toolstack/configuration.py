"""What a guest may be configured to be: what neither the schema's bounds nor Builder's checks say already."""

from xoar.messages.errors import EINVAL
from xoar.messages.records import NO_IMAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIN_MEMORY_KIB = 8 * 1024
MAX_MEMORY_KIB = 1 << 30


def judge(config: "Any") -> "tuple[int, str]":
    """(error number, what is wrong) of the fields of guest_create; (0, "") if nothing is."""
    if config.uuid == bytes(16):
        return EINVAL, "the uuid is zero; a new random one is needed"
    if config.kernel == NO_IMAGE:
        return EINVAL, "no kernel is named"
    if not MIN_MEMORY_KIB <= config.memory_kib <= MAX_MEMORY_KIB or config.memory_kib % 4:
        text = "%d KiB of memory: %d to %d in steps of 4 are possible"
        return EINVAL, text % (config.memory_kib, MIN_MEMORY_KIB, MAX_MEMORY_KIB)
    return 0, ""
