"""What waits for a condition that events bring about, or for the end of its time."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Waits:
    """All that waits; `clock()` is in ms and never goes back."""

    def __init__(self, clock: "Callable[[], int]") -> None:
        self._clock = clock
        self._waiting: "list[tuple[Callable[[], bool], int | None, Callable[[bool], None], bool]]" = []

    @property
    def idle(self) -> bool:
        """Whether all that waits can be resumed by the next life."""
        return all([resumable for _, _, _, resumable in self._waiting])

    def until(
        self,
        condition: "Callable[[], bool]",
        timeout_ms: "int | None",
        done: "Callable[[bool], None]",
        resumable: bool = False,
    ) -> None:
        """Calls `done(True)` from `poll` once `condition()` holds, or `done(False)` after `timeout_ms`.
        `resumable`: what is remembered is enough to wait for it again."""
        deadline = None if timeout_ms is None else self._clock() + timeout_ms
        self._waiting.append((condition, deadline, done, resumable))

    def poll(self) -> bool:
        """Goes on with what need not wait any longer; whether there was anything, so that more may follow."""
        now = self._clock()
        waiting, self._waiting = self._waiting, []
        progress = False
        for entry in waiting:
            condition, deadline, done, _ = entry
            holds = condition()
            if holds or (deadline is not None and deadline <= now):
                progress = True
                done(holds)
            else:
                self._waiting.append(entry)
        return progress

    def deadline_ms(self) -> "int | None":
        """When `poll` has something to do though nothing has happened."""
        deadlines = [deadline for _, deadline, _, _ in self._waiting if deadline is not None]
        return min(deadlines) if deadlines else None
