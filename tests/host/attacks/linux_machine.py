"""Raw hypercalls of a program that runs as root on Linux, with the calls of the module nano.

/dev/xen/privcmd (Linux, include/uapi/xen/privcmd.h) hands them to Xen as they are, if xen-privcmd was
loaded with unrestricted=1, which a kernel that is locked down does not heed.
"""

import ctypes
import fcntl
import mmap
import os
import struct

DEVICE = "/dev/xen/privcmd"
_HYPERCALL = 48 << 16 | ord("P") << 8  # IOCTL_PRIVCMD_HYPERCALL
_UPDATE_VA_MAPPING = 14
_WRITABLE = 0x67  # a page table entry: present, writable, for user space, accessed, dirty
_FLUSH = 2  # UVMF_INVLPG


class Machine:
    def __init__(self):
        self._file = os.open(DEVICE, os.O_RDWR)
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._page[0] = 1  # its page tables are there

    def address(self, buffer):
        if isinstance(buffer, bytes):
            return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value
        return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))

    def hypercall(self, number, *arguments):
        words = [word if isinstance(word, int) else self.address(word) for word in arguments]
        words = [number, *words, *[0] * (5 - len(words))]
        try:
            return fcntl.ioctl(self._file, _HYPERCALL, bytearray(struct.pack("<6Q", *words)))
        except OSError as error:
            return -error.errno

    def mappable(self, frames):
        """Which machine page frames Xen lets this process map, writable, where a page of its own was."""
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        found = []
        for frame in frames:
            if self.hypercall(_UPDATE_VA_MAPPING, place, frame << 12 | _WRITABLE, _FLUSH) == 0:
                found.append(frame)
                self.hypercall(_UPDATE_VA_MAPPING, place, 0, _FLUSH)
        return found
