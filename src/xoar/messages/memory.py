"""What a shard remembers over a rollback: its parts as messages in the recovery box, and back.

Whatever lies in the box, a new life begins: what is no message, or says what can't be, is left out and
reported.
"""

from xoar.messages.codec import decode, encode
from xoar.messages.errors import MessageError
from xoar.xen.box import Full

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from xoar.messages.codec import Message

    class Box(Protocol):
        """xoar.xen.box.Box."""

        @property
        def room(self) -> int: ...
        def store(self, records: "list[bytes]") -> None: ...
        def load(self) -> "list[bytes]": ...

    class Log(Protocol):
        """The journal, which keeps its entries as messages."""

        def remember(self) -> "list[bytes]": ...
        def recall(self, record: bytes) -> bool: ...


_MOST_REPORTS = 8
_RESERVE = 8192  # bytes of the box for what a request or two may add


class Memory:
    """`who` is the shard, for its reports. `remembers`: each gives messages, (kind, fields) each, which
    nobody changes afterwards; `recalls`: each takes a message and says whether it was its own. `log` takes
    and gives records as they are."""

    def __init__(
        self,
        who: str,
        box: "Box",
        remembers: "list[Callable[[], list[tuple[str, dict[str, Any]]]]]",
        recalls: "list[Callable[[Message], bool]]",
        log: "Log | None" = None,
        report: "Callable[[str], None]" = print,
    ) -> None:
        self._who = who
        self._box = box
        self._remembers = remembers
        self._recalls = recalls
        self._log = log
        self._report = report
        # what was stored last
        self._entries: "list[tuple[str, dict[str, Any]]] | None" = None
        self._records: "list[bytes]" = []
        self._logged: "list[bytes]" = []
        self._refused = False
        self.full = False

    def store(self) -> bool:
        """Puts all that is to be remembered into the box; of the log what there is room for, the newest.

        `full` says that no more should be asked for. False: there is no room for the rest, the box keeps
        what it had.
        """
        entries = []
        for remember in self._remembers:
            entries += remember()
        log = list(self._log.remember()) if self._log is not None else []
        if entries == self._entries and log == self._logged:
            return True
        records = self._encoded(entries)
        left = self._box.room - sum([len(record) + 4 for record in records])
        self.full = left < _RESERVE
        kept = len(log)
        while kept and left >= _RESERVE + len(log[kept - 1]) + 4:
            kept -= 1
            left -= len(log[kept]) + 4
        try:
            self._box.store(records + log[kept:])
        except Full as error:
            if not self._refused:
                self._say("no room: %s" % error)
            self._refused = True
            return False
        self._entries, self._records, self._logged = entries, records, log
        self._refused = False
        return True

    def _encoded(self, entries: "list[tuple[str, dict[str, Any]]]") -> "list[bytes]":
        """Their messages; those of entries that are as they were, in the same place, are there already."""
        before, records = self._entries or [], self._records
        return [
            records[i]
            if i < len(before) and before[i] == entries[i]
            else encode(entries[i][0], 0, **entries[i][1])
            for i in range(len(entries))
        ]

    def load(self) -> int:
        """Has everybody take back what is theirs; how many records there were."""
        records = self._box.load()
        wrong = []
        for record in records:
            if self._log is None or not self._log.recall(record):
                trouble = self._take(record)
                if trouble:
                    wrong.append(trouble)
        for text in wrong[:_MOST_REPORTS]:
            self._say(text)
        if len(wrong) > _MOST_REPORTS:
            self._say("%d more" % (len(wrong) - _MOST_REPORTS))
        return len(records)

    def _take(self, record: bytes) -> str:
        """What is wrong with a record, or ""."""
        try:
            message = decode(record)
            if not any([recall(message) for recall in self._recalls]):
                return "nobody knows %s" % message.kind
        except MessageError as error:
            return str(error)
        except Exception as error:  # whatever it is, the next life would meet it again
            return "%s: %s" % (message.kind, error)
        return ""

    def _say(self, text: str) -> None:
        self._report("%s: the recovery box: %s" % (self._who, text))
