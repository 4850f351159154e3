"""Rollbacks of shards: what Restorer told of them, kept for a while, and asking it for one."""

from xoar.messages.errors import ENOENT, ETIMEDOUT, MessageError
from xoar.messages.records import ROLLBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.channel import Channel
    from xoar.toolstack.guest import Request
    from xoar.toolstack.memory import Thing
    from xoar.toolstack.waits import Waits

KEPT = 256
"""At least so many of the newest records, of all shards together."""
_PAGE = 16
"""Records that are remembered as one."""
_GRACE_MS = 100  # a turn of Console takes less
_ROWS = 32
"""Of an answer."""


def policies(settings: "Callable[[str], list[str]]") -> "dict[str, str]":
    """When each shard is rolled back or built anew, in words, from the command line (xoar.host.bundle)."""
    words = [word.split(":") for word in settings("restarted")]
    found = {name: policy.replace("_", " ") for name, policy in words}
    for seconds in settings("tenant_seconds"):
        for word in settings("tenant"):
            found["tenant-" + word.split(":")[0]] = "built anew after use and %s s" % seconds
    return found


class _Page:
    """Up to _PAGE rollbacks, the oldest first, as the memory has them; decoded when somebody asks."""

    def __init__(self, rows: bytes = b"") -> None:
        self.rows = rows
        self.records: "list[Any] | None" = None if rows else []

    def decoded(self) -> "list[Any]":
        """The records; what makes no sense in a memory that somebody else may have written ends them."""
        if self.records is None:
            self.records = []
            at = 0
            while at < len(self.rows):
                try:
                    record, at = ROLLBACK.decode(self.rows, at)
                except MessageError:
                    break
                self.records.append(record)
        return self.records

    def add(self, record: "Any") -> None:
        """One more."""
        self.decoded().append(record)
        self.rows += ROLLBACK.encode(record)


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
        self.first = 0  # the position of the oldest record that is kept
        self._restorer = restorer
        self._policies = policies
        self._kicks = kicks
        self._waits = waits
        self._clock = clock
        self._pages: "list[_Page]" = []
        # of each shard, of those in the pages that were looked at
        self._last: "dict[str, Any]" = {}
        self._looked = True

    @property
    def idle(self) -> bool:
        """Whether Restorer has told nothing that was not taken."""
        return self._restorer is None or self._restorer.quiet

    def remembered(self) -> "list[Thing]":
        """What there is to remember."""
        return [(page, "kept_rollbacks", (page.rows,)) for page in self._pages]

    def recall(self, fields: "Any") -> "_Page | None":
        """Rollbacks that the last life was told of; None if there are too many."""
        if len(self._pages) * _PAGE > KEPT:
            return None
        page = _Page(fields.rows)
        self._pages.append(page)
        self._looked = False
        return page

    def turn(self) -> bool:
        """Takes what Restorer has told; whether there is more."""
        if self._restorer is None:
            return False
        for message in self._restorer.receive():
            record = ROLLBACK.value(*message.fields)
            self._last[record.target] = record
            if not self._pages or len(self._pages[-1].decoded()) >= _PAGE:
                self._pages.append(_Page())
            self._pages[-1].add(record)
            if len(self._pages) * _PAGE > KEPT + _PAGE:
                self.first += len(self._pages.pop(0).decoded())
        return self._restorer.more

    def of(self, name: str) -> "tuple[str, int, int]":
        """A shard's policy, how often it was rolled back, and how long ago for the last time (ms)."""
        self._look()
        policy = self._policies.get(name, "")
        last = self._last.get(name)
        if last is None:
            return policy, 0, 0
        return policy, last.life - 1, max(self._clock() - last.at_ms, 0)

    def _look(self) -> None:
        if not self._looked:
            self._looked = True
            for page in self._pages:
                for record in page.decoded():
                    self._last[record.target] = record

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
        # Console has brought this request: if it were cut off in that turn, operators' sessions would end
        self._waits.until(lambda: False, _GRACE_MS, lambda in_time: self._kicks[name]())

    def page(self, start: int, request: "Request") -> None:
        """Answers with a page of records, the oldest first; `start` counts from the host's start."""
        every = [record for page in self._pages for record in page.decoded()]
        first = max(start, self.first)
        records = every[first - self.first : first - self.first + _ROWS]
        end = first + len(records)
        more = int(end < self.first + len(every))
        request.answer("rollbacks", more=more, next=end, now_ms=self._clock(), records=records)
