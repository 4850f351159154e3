"""Restorer's core: who may ask for which shard's rollback, and when there is one. No I/O.

Nothing that anybody sends is looked at, but that an event channel fired: each one stands for one thing that
one domain may ask. So there is nothing here to confuse, and a storm of events is no more than one event.
"""

from collections import namedtuple

from xoar.microreboot.snapshot import Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from xoar.microreboot import snapshot

    class Machine(snapshot.Machine, Protocol):
        """What is done to Xen; a test has one of its own."""

        def notify(self, port: int) -> None: ...


Target = namedtuple("Target", ("name", "domid", "frames", "port", "seconds", "untracked"))
"""A shard that is rolled back: how many frames of memory it has, the event channel with it, after how many
seconds it is rolled back in any case (0: never), and the frames in which others write by grants."""

Kick = namedtuple("Kick", ("who", "target", "listens"))
"""Somebody who may ask for a shard's rollback; `listens`: and who is to hear of each, as it speaks with the
shard."""

Rollback = namedtuple("Rollback", ("target", "life", "cause", "reason", "pages", "times"))
"""What is told of one: `life` is the number of the life that begins; `cause` is who asked, "timer", or
"start" for the snapshot itself; `reason` is SHUTDOWN_* if the shard had ended, else None; `pages` were
restored (copied, for the snapshot); `times` are those of Snapshot.restore (start and end, for the
snapshot)."""

_NS = 1_000_000_000
TIMER, START = "timer", "start"


class _Shard:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.snapshot: "Snapshot | None" = None
        self.deadline: "int | None" = None
        self.failed = False


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

    def turn(self, ports: "list[int]") -> None:
        """Does what these ports ask for, each once."""
        for port in ports:
            if port in self._own:
                self._begin(self._shards[self._own[port]])
            elif port in self._kicks:
                kick = self._kicks[port]
                self._roll_back(self._shards[kick.target], kick.who, port)
        now = self._machine.now()
        for shard in self._shards.values():
            if shard.deadline is not None and shard.deadline <= now:
                self._roll_back(shard, TIMER, None)

    def deadline(self) -> "int | None":
        """When `turn` is to be called in any case (ns)."""
        deadlines = [shard.deadline for shard in self._shards.values() if shard.deadline is not None]
        return min(deadlines) if deadlines else None

    def _begin(self, shard: _Shard) -> None:
        """Takes a shard's snapshot. Only the first time: what asks later may be anybody in its place."""
        target = shard.target
        if shard.snapshot is None and not shard.failed:
            start = self._machine.now()
            try:
                shard.snapshot = Snapshot(
                    self._machine, target.domid, target.frames, list(target.untracked), self._life_frame
                )
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
        except OSError as error:
            self._give_up(shard, "%s can't be rolled back any more: %s" % (target.name, error))
            return
        self._tell(Rollback(target.name, snapshot.lives, cause, reason, pages, times))
        self._begin_life(shard, asker)

    def _begin_life(self, shard: _Shard, asker: "int | None") -> None:
        """Wakes the shard, whoever asked for its rollback, and who speaks with it."""
        if shard.target.seconds:
            shard.deadline = self._machine.now() + shard.target.seconds * _NS
        for port, kick in self._kicks.items():
            if port == asker or (kick.listens and kick.target == shard.target.name):
                self._machine.notify(port)
        # whatever it slept on in its former life, this wakes it
        self._machine.notify(shard.target.port)

    def _give_up(self, shard: _Shard, text: str) -> None:
        shard.failed = True
        shard.deadline = None
        self._report("restorer: " + text)
