"""The configuration space that a driver domain sees: a copy of 256 bytes, filled once.

What may be changed:

    COMMAND        in the copy; hardware gets the bus-master bit alone. Memory decode stays on: Xen reads the
                   MSI-X table, and an access while it is off is an NMI on some machines. INTx stays off.
    memory BARs    in the copy: all ones turns one into its size mask, anything else into its address again
    cache line, latency, interrupt line, MSI's ENABLE, MSI-X's ENABLE and MASKALL: in the copy

Everything else reads as it was filled and ignores writes. ROM, I/O BARs, power management (a driver domain
may not put its device to sleep) and all other capabilities read as absent; but virtio devices keep their
vendor capabilities, which only say where in the BARs their registers are.
"""

import struct

from xoar.pci import bars, capabilities, config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.pci.bars import Bar
    from xoar.pci.config import Function

SIZE = 256
"""Bytes; the rest of the 4 KiB is not there for a driver domain."""

_ONES = 0xFFFFFFFF
_COMMAND_BITS = 0x7FF
_FORMATS = {1: "<B", 2: "<H", 4: "<I"}
_EXPRESS_SIZE = 20
_MSIX_SIZE = 12
_VIRTIO = 0x1AF4
_VIRTIO_KIND = 3
_VIRTIO_LENGTH = 2
_VIRTIO_WINDOW = 5  # a way to the BARs through configuration space: not copied


class Shadow:
    """What the driver domain of a function sees of it, whose memory windows are `windows`."""

    def __init__(self, function: "Function", windows: "list[Bar]") -> None:
        self._function = function
        self._data = bytearray(SIZE)
        self._writable = bytearray(SIZE)
        self._bars: "dict[int, tuple[int, int]]" = {}  # offset -> (address and flags, size mask and flags)
        for offset in (config.ID, config.ID + 2, config.CLASS, config.CLASS + 2):
            self._set(offset, 2, function.read(offset, 2))
        self._set(config.HEADER_TYPE, 1, function.header_type)
        for offset in (config.SUBSYSTEM, config.SUBSYSTEM + 2):
            self._set(offset, 2, function.read(offset, 2))
        self._allow(config.COMMAND, 2, _COMMAND_BITS)
        self._allow(config.CACHE_LINE, 2, 0xFFFF)
        self._allow(config.INTERRUPT_LINE, 1, 0xFF)
        for window in windows:
            self._add_window(window)
        self._copy_capabilities()

    def read(self, offset: int, size: int) -> int:
        """What the driver domain reads; `size` is 1, 2 or 4, the offset a multiple of it below SIZE."""
        value: int = struct.unpack_from(_FORMATS[size], self._data, offset)[0]
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """What the driver domain writes, as far as it may; bits above `size` bytes are ignored."""
        register = offset & ~3
        if register in self._bars:
            address, mask = self._bars[register]
            self._set(register, 4, mask if size == 4 and value & _ONES == _ONES else address)
            return
        for position in range(offset, offset + size):
            writable = self._writable[position]
            self._data[position] = self._data[position] & ~writable | value & writable
            value >>= 8
        if offset <= config.COMMAND < offset + size:
            master = self._data[config.COMMAND] & config.COMMAND_MASTER
            self._function.write(config.COMMAND, 2, config.QUIET | master)

    def _set(self, offset: int, size: int, value: int) -> None:
        struct.pack_into(_FORMATS[size], self._data, offset, value)

    def _allow(self, offset: int, size: int, bits: int) -> None:
        struct.pack_into(_FORMATS[size], self._writable, offset, bits)

    def _add_window(self, window: "Bar") -> None:
        address = window.address | window.flags
        mask = (1 << 64) - window.size | window.flags
        for offset in (window.offset, window.offset + 4) if bars.is_wide(window) else (window.offset,):
            self._bars[offset] = (address & _ONES, mask & _ONES)
            self._set(offset, 4, address & _ONES)
            address >>= 32
            mask >>= 32

    def _copy_capabilities(self) -> None:
        link = config.CAPABILITIES
        for kind, offset in capabilities.walk(self._function):
            if not self._copy_capability(kind, offset):
                continue
            self._set(link, 1, offset)
            self._set(offset, 2, kind)
            link = offset + 1
        status = self._function.read(config.STATUS, 2)
        if link == config.CAPABILITIES:
            status &= ~config.STATUS_CAPABILITIES
        self._set(config.STATUS, 2, status)

    def _copy_capability(self, kind: int, offset: int) -> bool:
        """Copies what follows the list's two bytes; False if the capability is not for the driver domain."""
        function = self._function
        if kind == capabilities.MSI and offset + 14 <= SIZE:
            control = function.read(offset + capabilities.MSI_CONTROL, 2) & capabilities.MSI_64BIT
            self._set(offset + capabilities.MSI_CONTROL, 2, control)
            self._allow(offset + capabilities.MSI_CONTROL, 2, capabilities.MSI_ENABLE)
        elif kind == capabilities.MSIX and offset + _MSIX_SIZE <= SIZE:
            self._copy(offset, _MSIX_SIZE)
            control = function.read(offset + capabilities.MSIX_CONTROL, 2) & capabilities.MSIX_ENTRIES
            self._set(offset + capabilities.MSIX_CONTROL, 2, control)
            changeable = capabilities.MSIX_ENABLE | capabilities.MSIX_MASK_ALL
            self._allow(offset + capabilities.MSIX_CONTROL, 2, changeable)
        elif kind == capabilities.EXPRESS and offset + _EXPRESS_SIZE <= SIZE:
            self._copy(offset, _EXPRESS_SIZE)
            able = self.read(offset + capabilities.EXPRESS_DEVCAP, 4) & ~capabilities.DEVCAP_RESET
            self._set(offset + capabilities.EXPRESS_DEVCAP, 4, able)
        elif kind == capabilities.VENDOR and function.read(config.ID, 2) == _VIRTIO:
            length = function.read(offset + _VIRTIO_LENGTH, 1)
            if function.read(offset + _VIRTIO_KIND, 1) == _VIRTIO_WINDOW or offset + length > SIZE:
                return False
            self._copy(offset, length)
        else:
            return False
        return True

    def _copy(self, offset: int, length: int) -> None:
        for position in range(offset + 2, offset + length):
            self._data[position] = self._function.read(position, 1)
