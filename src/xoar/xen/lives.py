"""A shard with policy "idle": it begins its next life itself whenever nothing is on its way.

That is for speed. Restorer begins it in any case some time after the last one, whatever the shard wants.
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
        self._earliest = now + boot.pause() * _NS

    def begin(self) -> bool:
        """Whether the last life ended with nothing on its way; to be asked once."""
        if self._box is None:
            return True
        at_rest = self._box.at_rest
        self._box.at_rest = False
        return at_rest

    def sleep(self, deadline: "int | None", at_rest: bool, used: bool) -> "list[int] | None":
        """Sleeps until `deadline` (ns) or an event, and returns the ports that fired.

        `at_rest`: nothing is on its way; `used`: somebody was served in this life. If both are so and it is
        not too young, or it is too old for something new to end in it, the next life begins instead. None: it
        did not, in time; look at everything, as at the beginning.
        """
        if self._box is None or not at_rest:
            return events.wait(deadline)
        if used and events.now() >= self._earliest:
            self._end(self._box)
            return None
        if used:
            deadline = self._earliest if deadline is None else min(deadline, self._earliest)
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
