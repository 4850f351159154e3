"""The shard builder, as if the host had run for long: neighbouring pages of driver domains lie apart.

On a host that has just started, memory comes in large pieces, and Linux does without the right to make what
devices read and write contiguous.
"""

from array import array

import nano
from xoar.abi import xen as abi
from xoar.builder import driver
from xoar.shards.builder import main as shard
from xoar.xen import hypercall, memory

_CHUNK = 512  # pages of one hypercall


class Scattered:
    """What `driver` uses of xoar.xen.memory."""

    Window = memory.Window

    @staticmethod
    def populate(domid, start, count, machine_frames):
        """Every other page first, then those between."""
        for first in (start, start + 1):
            for position in range(first, start + count, 2 * _CHUNK):
                _populate(
                    domid, range(position, min(position + 2 * _CHUNK, start + count), 2), machine_frames
                )


def _populate(domid, frames, machine_frames):
    extents = array("Q", list(frames))
    request = abi.memory_reservation.new(
        extent_start=nano.address(memoryview(extents)), nr_extents=len(extents), extent_order=0, domid=domid
    )
    if hypercall.memory_op("populate", abi.XENMEM_populate_physmap, request) != len(extents):
        raise OSError(12, "no memory left for a driver domain")
    for index, frame in enumerate(frames):
        machine_frames[frame] = extents[index]


def main():
    driver.memory = Scattered
    shard.main()
