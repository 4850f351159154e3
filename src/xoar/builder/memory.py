"""What Builder remembers over a rollback: its parts as messages in the recovery box, and back.

Whatever lies in the box, a new life begins: what is no message, or says what can't be, is left out and
reported.
"""

from xoar.builder.errors import BuildError
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
    """`recalls`: each takes a message and says whether it was its own; `remembers`: each gives messages,
    (kind, fields) each, which nobody changes afterwards. `log` takes and gives records as they are."""

    def __init__(
        self,
        box: "Box",
        remembers: "list[Callable[[], list[tuple[str, dict[str, Any]]]]]",
        recalls: "list[Callable[[Message], bool]]",
        log: "Log",
        report: "Callable[[str], None]" = print,
    ) -> None:
        self._box = box
        self._remembers = remembers
        self._recalls = recalls
        self._log = log
        self._report = report
        # what was stored last
        self._entries: "list[tuple[str, dict[str, Any]]] | None" = None
        self._logged: "list[bytes]" = []
        self.full = False

    def store(self) -> None:
        """Puts all that is to be remembered into the box; of the log what there is room for, the newest.

        `full` says that no more should be asked for. Without room for the rest the box keeps what it had.
        """
        entries = []
        for remember in self._remembers:
            entries += remember()
        log = list(self._log.remember())
        if entries == self._entries and log == self._logged:
            return
        records = [encode(kind, 0, **fields) for kind, fields in entries]
        left = self._box.room - sum([len(record) + 4 for record in records])
        self.full = left < _RESERVE
        kept = len(log)
        while kept and left >= _RESERVE + len(log[kept - 1]) + 4:
            kept -= 1
            left -= len(log[kept]) + 4
        try:
            self._box.store(records + log[kept:])
            self._entries, self._logged = entries, log
        except Full as error:
            self._report("builder: no room in the recovery box: %s" % error)

    def load(self) -> int:
        """Has everybody take back what is theirs; how many records there were."""
        records = self._box.load()
        wrong = []
        for record in records:
            if not self._log.recall(record):
                trouble = self._take(record)
                if trouble:
                    wrong.append(trouble)
        for text in wrong[:_MOST_REPORTS]:
            self._report("builder: the recovery box: %s" % text)
        if len(wrong) > _MOST_REPORTS:
            self._report("builder: the recovery box: %d more" % (len(wrong) - _MOST_REPORTS))
        return len(records)

    def _take(self, record: bytes) -> str:
        """What is wrong with a record, or ""."""
        try:
            message = decode(record)
            if not any([recall(message) for recall in self._recalls]):
                return "nobody knows %s" % message.kind
        except (MessageError, BuildError, OSError, ValueError) as error:
            return str(error)
        return ""
