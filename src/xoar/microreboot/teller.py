"""What Restorer tells of its work: records into a ring that Toolstack reads, and nothing back.

It never waits for the reader. What finds no room waits in a bounded list, the oldest goes first; the number
of the life in each record shows what is missing. The reader's offset in the ring is the one word that is read
of what others write: an impossible one ends the telling, and nothing else.
"""

from xoar.abi import xen as abi
from xoar.messages.codec import encode
from xoar.microreboot.restorer import START
from xoar.xen.ring import RingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.microreboot.restorer import Rollback
    from xoar.xen.ring import ByteRing

MOST = 64
"""Records that wait for room in the ring."""

_PACE = 250_000_000  # ns between two signals: to wake Toolstack for each rollback would double its cost
_NS_PER_US = 1000
_MOST_US = 0xFFFFFFFF
_FOUND = {
    None: "none",
    abi.SHUTDOWN_poweroff: "poweroff",
    abi.SHUTDOWN_reboot: "reboot",
    abi.SHUTDOWN_suspend: "suspend",
    abi.SHUTDOWN_watchdog: "watchdog",
    abi.SHUTDOWN_soft_reset: "soft_reset",
}


class Teller:
    """`ring` leads to the reader, `notify()` wakes it, `now()` is Xen's clock."""

    def __init__(self, ring: "ByteRing", notify: "Callable[[], None]", now: "Callable[[], int]") -> None:
        self._ring = ring
        self._notify = notify
        self._now = now
        self._waiting: "list[bytes]" = []
        self._unsaid = False  # something is in the ring that the reader was not woken for
        self._next = 0
        self.broken = False

    def tell(self, rollback: "Rollback") -> None:
        """Puts a record into the ring, or where it waits for room there."""
        if self.broken:
            return
        if len(self._waiting) == MOST:
            self._waiting.pop(0)
        self._waiting.append(record(rollback))
        self._move()

    def flush(self) -> None:
        """Moves what there is room for into the ring, and wakes the reader, but not too often."""
        self._move()
        now = self._now()
        if (self._unsaid or self._waiting) and now >= self._next:
            self._unsaid = False
            self._next = now + _PACE
            self._notify()

    def _move(self) -> None:
        try:
            while self._waiting and len(self._waiting[0]) <= self._ring.writable():
                self._ring.write(self._waiting.pop(0))
                self._unsaid = True
        except RingError:
            self.broken = True
            self._waiting = []

    def deadline(self) -> "int | None":
        """When `flush` is to be called in any case (ns)."""
        return self._next if self._unsaid or self._waiting else None


def record(rollback: "Rollback") -> bytes:
    """The message of one rollback, or of a snapshot."""
    times = rollback.times
    if rollback.cause == START:
        steps = [0, 0, 0, 0, 0]
    else:
        steps = [_us(times[i + 1] - times[i]) for i in range(len(times) - 1)]
    return encode(
        "rolled_back",
        0,
        target=rollback.target,
        life=rollback.life,
        cause=rollback.cause,
        found=_FOUND.get(rollback.reason, "crash"),
        pages=rollback.pages,
        at_ms=times[-1] // 1000000,
        total_us=_us(times[-1] - times[0]),
        pause_us=steps[0],
        dirty_us=steps[1],
        copy_us=steps[2],
        context_us=steps[3],
        unpause_us=steps[4],
    )


def _us(duration: int) -> int:
    return min(max(duration // _NS_PER_US, 0), _MOST_US)
