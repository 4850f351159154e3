"""The backend's side of pcifront's protocol (xen/include/public/io/pciif.h).

One operation at a time stands in a shared page: the frontend fills it in, sets the flag `active` and signals;
the backend answers in place, clears the flag and signals. Each word is read once, before it is judged;
whatever stands there, the answer is an error code at worst. The driver domain has one device, 0000:00:00.0.
"""

from collections import namedtuple

from xoar.abi import xen as abi
from xoar.pci import shadow
from xoar.pci.errors import PciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from xoar.pci.interrupts import Interrupts
    from xoar.pci.shadow import Shadow

    class Answer(NamedTuple):
        """What goes back: XEN_PCI_ERR_*, the value, and pirqs for the first MSI-X entries."""

        err: int
        value: int
        pirqs: "list[int]"

else:
    Answer = namedtuple("Answer", ("err", "value", "pirqs"))

VIRTUAL_NAME = "0000:00:00.0"

# word numbers in the page
_FLAGS = abi.xen_pci_sharedinfo.offset("flags") // 4
_OP = abi.xen_pci_sharedinfo.offset("op") // 4
_ERR = _OP + abi.xen_pci_op.offset("err") // 4
_VALUE = _OP + abi.xen_pci_op.offset("value") // 4
_HEAD = [
    _OP + abi.xen_pci_op.offset(field) // 4
    for field in ("cmd", "domain", "bus", "devfn", "offset", "size", "value")
]
_ENTRIES = _OP + abi.xen_pci_op.offset("msix_entries") // 4  # a word each: vector, and entry << 16

_ACTIVE = abi.XEN_PCIF_active
_MASK = 0xFFFFFFFF

_NOT_FOUND = Answer(abi.XEN_PCI_ERR_dev_not_found, 0, [])
_BAD_OFFSET = Answer(abi.XEN_PCI_ERR_invalid_offset, 0, [])
_NOT_IMPLEMENTED = Answer(abi.XEN_PCI_ERR_not_implemented, 0, [])
_FAILED = Answer(abi.XEN_PCI_ERR_op_failed, 0, [])


class Backend:
    """Answers one driver domain; `words` are its shared page's."""

    def __init__(self, words: memoryview, space: "Shadow", interrupts: "Interrupts") -> None:
        self._words = words
        self._space = space
        self._interrupts = interrupts

    def serve(self) -> bool:
        """Answers the operation that waits, if one does; whether to signal the frontend. Never raises."""
        words = self._words
        if not words[_FLAGS] & _ACTIVE:
            return False
        untrusted = [words[position] for position in _HEAD]
        answer = self._judge(*untrusted)
        # a frontend that gave up waiting has taken the flag back, and may have put the next operation there
        if not words[_FLAGS] & _ACTIVE or [words[position] for position in _HEAD] != untrusted:
            return False
        for i in range(len(answer.pirqs)):
            words[_ENTRIES + i] = words[_ENTRIES + i] & 0xFFFF0000 | answer.pirqs[i]
        words[_VALUE] = answer.value
        words[_ERR] = answer.err & _MASK
        words[_FLAGS] = words[_FLAGS] & (_MASK ^ _ACTIVE)
        return True

    def _judge(
        self, command: int, segment: int, bus: int, devfn: int, offset: int, size: int, value: int
    ) -> Answer:
        if segment or bus or devfn:
            return _NOT_FOUND
        if command in (abi.XEN_PCI_OP_conf_read, abi.XEN_PCI_OP_conf_write):
            if size not in (1, 2, 4) or offset % size or offset >= shadow.SIZE:
                return _BAD_OFFSET
            if command == abi.XEN_PCI_OP_conf_read:
                return Answer(abi.XEN_PCI_ERR_success, self._space.read(offset, size), [])
            self._space.write(offset, size, value)
            return Answer(abi.XEN_PCI_ERR_success, value, [])
        try:
            if command == abi.XEN_PCI_OP_enable_msi:
                return Answer(abi.XEN_PCI_ERR_success, self._interrupts.enable_msi(), [])
            if command == abi.XEN_PCI_OP_enable_msix:
                return self._enable_msix(value)
            # Linux sends disable_msi for MSI-X, too
            if command in (abi.XEN_PCI_OP_disable_msi, abi.XEN_PCI_OP_disable_msix):
                self._interrupts.disable()
                return Answer(abi.XEN_PCI_ERR_success, 0, [])
        except (OSError, PciError):
            return _FAILED
        return _NOT_IMPLEMENTED

    def _enable_msix(self, count: int) -> Answer:
        if count > abi.SH_INFO_MAX_VEC:
            return _FAILED
        entries = [self._words[_ENTRIES + i] >> 16 for i in range(count)]
        return Answer(abi.XEN_PCI_ERR_success, 0, self._interrupts.enable_msix(entries))
