"""Restorer's core: who may ask for which shard's rollback, and when there is one. No I/O.

Nothing that anybody sends is looked at, but that an event channel fired: each one stands for one thing that
one domain may ask. So there is nothing here to confuse, and a storm of events is no more than one event.
"""

from collections import namedtuple

from xoar.microreboot.snapshot import Broken, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from xoar.microreboot import snapshot

    class Machine(snapshot.Machine, Protocol):
        """What is done to Xen; a test has one of its own."""

        def notify(self, port: int) -> None: ...


Target = namedtuple("Target", ("name", "domid", "frames", "port", "seconds", "untracked", "kept", "sealed"))
"""A shard that is rolled back: how many frames of memory it has (the shared info page follows them), the
event channel with it, after how many seconds it is rolled back in any case (0: never), whether it may ask for
it itself. Then ranges of frames: in which others write by grants, which Xen does not count as written, so
they are put back each time; that are left as they are; and that nobody writes, of which there is no copy."""

Kick = namedtuple("Kick", ("who", "target", "listens"))
"""Somebody who may ask for a shard's rollback; `listens`: and who is to hear of each, as it speaks with the
shard."""

Rollback = namedtuple("Rollback", ("target", "life", "cause", "reason", "pages", "times"))
"""What is told of one: `life` is the number of the life that begins; `cause` is who asked, which may be
"itself", "timer", or "start" for the snapshot itself; `reason` is SHUTDOWN_* if the shard had ended, else
None; `pages` were restored (copied, for the snapshot); `times` are those of Snapshot.restore (start and end,
for the snapshot)."""

_NS = 1_000_000_000
TIMER, START, ITSELF = "timer", "start", "itself"
CRASHES = 3
"""A shard that was found ended in so many lives in a row is reported."""
DEMAND_PACE = _NS // 20
"""Who asks as it likes gets a rollback as often as this (ns): it shall not keep others from being served."""
_SLOWER, _SLOWEST = 4, 6
"""With each life of a shard in a row that ended, that many times slower, so often: up to three minutes."""


class _Shard:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.snapshot: "Snapshot | None" = None
        self.deadline: "int | None" = None
        self.failed = False
        self.crashes = 0
        self.last = 0  # when the last life began


class Restorer:
    """`kicks` are by the port on which somebody may ask. `tell` is called after
    each rollback, `report` with lines for Xen's console. `life_frame`: see Snapshot."""

    def __init__(
        self,
        machine: "Machine",
        targets: "list[Target]",
        kicks: "dict[int, Kick]",
        life_frame: int,
        tell: "Callable[[Rollback], None]",
        report: "Callable[[str], None]" = print,
    ) -> None:
        self._machine = machine
        self._shards = {target.name: _Shard(target) for target in targets}
        self._own = {target.port: target.name for target in targets}
        self._kicks = kicks
        self._life_frame = life_frame
        self._tell = tell
        self._report = report
        self._postponed: "dict[int, int]" = {}  # port -> when what was asked there is done

    def turn(self, ports: "list[int]") -> None:
        """Does what these ports ask for, each once."""
        for port in ports:
            if port in self._own:
                self._begin(self._shards[self._own[port]])
            elif port in self._kicks:
                self._asked(port, self._kicks[port])
        now = self._machine.now()
        for port in [port for port, due in self._postponed.items() if due <= now]:
            del self._postponed[port]
            kick = self._kicks[port]
            self._roll_back(self._shards[kick.target], _cause(kick), port)
        for shard in self._shards.values():
            if shard.deadline is not None and shard.deadline <= now:
                self._roll_back(shard, TIMER, None)

    def deadline(self) -> "int | None":
        """When `turn` is to be called in any case (ns)."""
        deadlines = [shard.deadline for shard in self._shards.values() if shard.deadline is not None]
        deadlines += list(self._postponed.values())
        return min(deadlines) if deadlines else None

    def _asked(self, port: int, kick: Kick) -> None:
        shard = self._shards[kick.target]
        due = shard.last + DEMAND_PACE * _SLOWER ** min(shard.crashes, _SLOWEST)
        # whoever asks for its own is not there any more to ask again
        if kick.listens or kick.who == kick.target or due <= self._machine.now():
            self._roll_back(shard, _cause(kick), port)
        else:
            self._postponed[port] = due

    def _begin(self, shard: _Shard) -> None:
        """Takes a shard's snapshot. Only the first time: what asks later may be anybody in its place."""
        target = shard.target
        if shard.snapshot is None and not shard.failed:
            start = self._machine.now()
            try:
                shard.snapshot = Snapshot(self._machine, target, self._life_frame)
            except (OSError, MemoryError) as error:
                self._give_up(shard, "no snapshot of %s: %s" % (target.name, error))
                return
            pages, times = shard.snapshot.pages, [start, self._machine.now()]
            self._tell(Rollback(target.name, 1, START, None, pages, times))
            self._begin_life(shard, None)

    def _roll_back(self, shard: _Shard, cause: str, asker: "int | None") -> None:
        """Does nothing if the shard is not there to be rolled back: before its snapshot, or after a
        failure."""
        snapshot, target = shard.snapshot, shard.target
        if snapshot is None or shard.failed:
            return
        try:
            pages, reason, times = snapshot.restore()
        except (OSError, Broken) as error:
            self._give_up(shard, "%s can't be rolled back any more: %s" % (target.name, error))
            return
        self._tell(Rollback(target.name, snapshot.lives, cause, reason, pages, times))
        shard.crashes = 0 if reason is None else shard.crashes + 1
        if shard.crashes == CRASHES:
            self._report("restorer: %s has ended in %d lives in a row" % (target.name, CRASHES))
        self._begin_life(shard, asker)

    def _begin_life(self, shard: _Shard, asker: "int | None") -> None:
        """Wakes the shard, whoever asked for its rollback, and who speaks with it."""
        shard.last = self._machine.now()
        if shard.target.seconds:
            shard.deadline = shard.last + shard.target.seconds * _NS
        for port, kick in self._kicks.items():
            if port == asker or (kick.listens and kick.target == shard.target.name):
                self._machine.notify(port)
        # whatever it slept on in its former life, this wakes it
        self._machine.notify(shard.target.port)

    def _give_up(self, shard: _Shard, text: str) -> None:
        shard.failed = True
        shard.deadline = None
        self._report("restorer: " + text)


def _cause(kick: Kick) -> str:
    return ITSELF if kick.who == kick.target else kick.who
