"""Rollbacks of shards: what Restorer told of them, kept for a while, and asking it for one."""

from xoar.messages.errors import ENOENT, ETIMEDOUT
from xoar.messages.records import ROLLBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.channel import Channel
    from xoar.toolstack.guest import Request
    from xoar.toolstack.waits import Waits

KEPT = 256
"""The newest records, of all shards together."""
_PAGE = 32


def policies(settings: "Callable[[str], list[str]]") -> "dict[str, str]":
    """When each shard is rolled back, in words, from the command line (xoar.host.bundle)."""
    words = [word.split(":") for word in settings("restarted")]
    return {name: policy.replace("_", " ") for name, policy in words}


class Rollbacks:
    """`restorer` is Restorer's link, None where there is none (a tenant's Toolstack). `policies`: when each
    shard is rolled back, in words; `kicks`: what asks Restorer for each that this Toolstack may ask for."""

    def __init__(
        self,
        restorer: "Channel | None",
        policies: "dict[str, str]",
        kicks: "dict[str, Callable[[], None]]",
        waits: "Waits",
        clock: "Callable[[], int]",
    ) -> None:
        self._restorer = restorer
        self._policies = policies
        self._kicks = kicks
        self._waits = waits
        self._clock = clock
        self._records: "list[Any]" = []
        self._last: "dict[str, Any]" = {}
        self._first = 0  # the position of the oldest record that is kept

    @property
    def idle(self) -> bool:
        """Whether Restorer has told nothing that was not taken."""
        return self._restorer is None or self._restorer.idle

    def turn(self) -> bool:
        """Takes what Restorer has told; whether there is more."""
        if self._restorer is None:
            return False
        for message in self._restorer.receive():
            record = ROLLBACK.value(*message.fields)
            self._last[record.target] = record
            self._records.append(record)
            if len(self._records) > KEPT:
                self._records.pop(0)
                self._first += 1
        return self._restorer.more

    def of(self, name: str) -> "tuple[str, int, int]":
        """A shard's policy, how often it was rolled back, and how long ago for the last time (ms)."""
        policy = self._policies.get(name, "")
        last = self._last.get(name)
        if last is None:
            return policy, 0, 0
        return policy, last.life - 1, max(self._clock() - last.at_ms, 0)

    def ask(self, name: str, timeout_ms: int, request: "Request") -> None:
        """Has a shard rolled back; answered when it was."""
        if name not in self._kicks:
            named = ", ".join(self._kicks) or "none"
            request.refuse(ENOENT, "%s can't be rolled back on demand; these can: %s" % (name, named))
            return
        before = self.of(name)[1]

        def done(in_time: bool) -> None:
            if in_time:
                request.answer("rolled", rollback=self._last[name])
            else:
                request.refuse(ETIMEDOUT, "Restorer has not rolled %s back" % name)

        self._waits.until(lambda: self.of(name)[1] > before, timeout_ms, done)
        self._kicks[name]()

    def page(self, start: int, request: "Request") -> None:
        """Answers with a page of records, the oldest first; `start` counts from the host's start."""
        first = max(start, self._first)
        records = self._records[first - self._first : first - self._first + _PAGE]
        end = first + len(records)
        more = int(end < self._first + len(self._records))
        request.answer("rollbacks", more=more, next=end, now_ms=self._clock(), records=records)
