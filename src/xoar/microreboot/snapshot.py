"""A shard as it was before its first request, and how it becomes that again. docs/microreboot.md has the why.

All of the shard's pages stay mapped here: to map and unmap those that are restored, each time, took longer
than all else together.
"""

from array import array

from xoar.abi import xen as abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Machine(Protocol):
        """What is done to Xen (machine.py); a test has one of its own."""

        def map_all(self, domid: int, count: int) -> memoryview: ...
        def room(self, count: int) -> memoryview: ...
        def buffer(self, length: int) -> "tuple[memoryview, memoryview]": ...
        def pause(self, domid: int) -> None: ...
        def unpause(self, domid: int) -> None: ...
        def resume(self, domid: int) -> None: ...
        def ended(self, domid: int) -> "int | None": ...
        def context(self, domid: int) -> bytearray: ...
        def set_context(self, domid: int, state: bytearray) -> None: ...
        def log_dirty(self, domid: int) -> None: ...
        def take_dirty(self, domid: int, bitmap: memoryview, pages: int) -> None: ...
        def now(self) -> int: ...


PAGE = 4096
_ZERO = bytes(PAGE)
_WORD = 32
PHASES = ("pause", "dirty", "copy", "context", "unpause")

# A shard that is put back finds no event pending and none masked, as nano sets them at first: whatever was
# pending at the snapshot would keep Xen from waking it. Its times in the same page are Xen's and go on.
_EVENT_FIELDS = ("upcall", "selector", "evtchn_pending", "evtchn_mask")


_ZEROS, _KEPT, _SEALED = -1, -2, -3
"""In place of where a frame's copy lies: it held only zeros; it is not put back; it is not to be written."""


class Broken(Exception):
    """The shard can't be put back, and must not run any more."""


class Snapshot:
    """Takes it, of the domain of a Target (restorer.py). `life_frame`: the one whose first word says which
    life this is. OSError: Xen refuses, or there is no room for the copies.
    """

    def __init__(self, machine: "Machine", target: "Any", life_frame: int) -> None:
        domid, count = target.domid, target.frames
        self._machine = machine
        self._domid = domid
        self.lives = 0
        self._untracked = [frame for run in target.untracked for frame in run] + [life_frame]
        self._life_frame = life_frame
        words = (count + 1 + _WORD - 1) // _WORD  # shared info counts as written, too
        self._frames = count
        self._bitmap, self._words = machine.buffer(words * 4)
        machine.pause(domid)
        try:
            self._memory = machine.map_all(domid, count + 1)
            self._context = machine.context(domid)
            self._slots = array("i", [0] * count)
            for runs, slot in ((target.kept, _KEPT), (target.sealed, _SEALED)):
                for run in runs:
                    for frame in run:
                        self._slots[frame] = slot
            self.pages = self._find_content()
            self._copies = machine.room(self.pages)
            for frame in range(count):
                slot = self._slots[frame]
                if slot >= 0:
                    self._copies[slot : slot + PAGE] = self._memory[frame * PAGE : (frame + 1) * PAGE]
            machine.log_dirty(domid)
            self._begin_life()
        finally:
            machine.unpause(domid)

    def _find_content(self) -> int:
        """Gives each frame that has to be copied its place; how many these are."""
        memory, slots, pages = self._memory, self._slots, 0
        for frame in range(self._frames):
            if slots[frame] == 0:
                if memory[frame * PAGE : (frame + 1) * PAGE] == _ZERO:
                    slots[frame] = _ZEROS
                else:
                    slots[frame] = pages * PAGE
                    pages += 1
        return pages

    def restore(self) -> "tuple[int, int | None, list[int]]":
        """Puts the shard back: its next life begins.

        Returns how many pages it had written, why it had ended (SHUTDOWN_*, None if it had not), and the
        times (ns) at the start and after each of PHASES. Broken: the shard stays paused for good.
        """
        machine, domid = self._machine, self._domid
        times = [machine.now()]
        machine.pause(domid)
        try:
            times.append(machine.now())
            machine.take_dirty(domid, self._bitmap, self._frames + 1)
            times.append(machine.now())
            written = self._copy_back()
            times.append(machine.now())
            machine.set_context(domid, self._context)
            reason = machine.ended(domid)
            if reason is not None:
                machine.resume(domid)
            self._begin_life()
            times.append(machine.now())
        except OSError:
            machine.unpause(domid)
            raise
        machine.unpause(domid)
        times.append(machine.now())
        return written, reason, times

    def _copy_back(self) -> int:
        words = self._words
        written = 0
        for index in range(len(words)):
            bits = words[index]
            frame = index * _WORD
            while bits:
                if bits & 1 and frame < self._frames:
                    self._restore_page(frame)
                    written += 1
                bits >>= 1
                frame += 1
        for frame in self._untracked:
            self._restore_page(frame)
        base = self._frames * PAGE
        for name in _EVENT_FIELDS:
            offset, size = abi.shared_info.fields[name]
            self._memory[base + offset : base + offset + size] = bytes(size)
        return written

    def _restore_page(self, frame: int) -> None:
        slot = self._slots[frame]
        if slot == _KEPT:
            return
        if slot == _SEALED:
            raise Broken("it has written in its boot module")
        page = _ZERO if slot == _ZEROS else self._copies[slot : slot + PAGE]
        self._memory[frame * PAGE : (frame + 1) * PAGE] = page

    def _begin_life(self) -> None:
        self.lives += 1
        start = self._life_frame * PAGE
        self._memory[start : start + 4] = self.lives.to_bytes(4, "little")
