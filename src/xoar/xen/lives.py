"""How long a shard goes on: with policy "idle" it begins its next life itself whenever nothing is on its way,
with policy "anew" it ends then, and is built again.

That is for speed. Restorer begins the next life in any case some time after the last one, and the host's
Toolstack has the shard built anew, whatever it wants.
"""

from xoar.xen import boot, events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xen.box import Box

_NS = 1000 * 1000000
_PATIENCE = 10 * _NS  # Restorer may be busy, or not be there


class Life:
    """The time from one rollback to the next; made after `boot.snapshot`. `box` is None for a shard that is
    not rolled back: then nothing here does anything but sleep."""

    def __init__(self, box: "Box | None") -> None:
        self._box = box
        most = boot.life_time() * _NS
        now = events.now()
        self._late = now + most // 2 if most and box is not None else None

    def begin(self) -> bool:
        """Whether the last life ended with nothing on its way; to be asked once."""
        if self._box is None:
            return True
        at_rest = self._box.at_rest
        self._box.at_rest = False
        return at_rest

    def sleep(self, deadline: "int | None", at_rest: bool, used: bool) -> "list[int] | None":
        """Sleeps until `deadline` (ns) or an event, and returns the ports that fired.

        `at_rest`: nothing is on its way; `used`: somebody was served in this life. If both are so, or it is
        too old for something new to end in it, the next life begins instead. None: it did not, in time; look
        at everything, as at the beginning.
        """
        if self._box is None or not at_rest:
            return events.wait(deadline)
        if used:
            self._end(self._box)
            return None
        self._box.at_rest = True
        ports = events.wait(deadline)
        self._box.at_rest = False
        if self._late is not None and events.now() > self._late:
            self._end(self._box)
            return None
        return ports

    def _end(self, box: "Box") -> None:
        box.at_rest = True
        boot.roll_back()
        deadline = events.now() + _PATIENCE
        while events.now() < deadline:
            events.wait(deadline)
        box.at_rest = False
        self._late = None


class Over(Exception):
    """The shard's time is over: it ends."""


class Term:
    """The time of a shard that is built anew: `most` seconds in any case, `least` if it ends itself. It
    stands in a Life's place."""

    def __init__(self, most: int, least: int) -> None:
        now = events.now()
        self._late = now + most // 2 * _NS
        self._earliest = now + least * _NS

    def begin(self) -> bool:
        """As in Life."""
        return True

    def sleep(self, deadline: "int | None", at_rest: bool, used: bool) -> "list[int]":
        """As in Life. Raises Over where that has the next life begin, if it is not too young for that."""
        if at_rest:
            end = self._earliest if used else self._late
            if events.now() >= end:
                raise Over()
            deadline = end if deadline is None else min(deadline, end)
        return events.wait(deadline)
