"""What a Toolstack remembers: a list of records (xoar.messages.kept) outside of its heap, for its next life.

Records lie on a *shelf*, which has `load() -> list[bytes]`, `store(list[bytes])`, all at once, and `room`:
bytes for records, with 4 more for each. Shelves are xoar.toolstack.shelf, in XenStore, and
xoar.xen.box, memory that a rollback leaves alone. Who took over the last life may have written what
`load` gives: `recall` keeps what the schema knows, and what that means is judged by whoever it is about.

Nobody says what has changed. At the end of each turn all parts of the Toolstack list what they remember, as
(the thing, kind of record, its fields); what is as it was costs a comparison.
"""

from xoar.messages.codec import Message, decode, encode
from xoar.messages.errors import MessageError
from xoar.messages.kept import KEPT
from xoar.messages.schema import BY_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    Thing = tuple[object, str, tuple[Any, ...]]

    class Shelf(Protocol):
        """Where records outlive this Toolstack."""

        @property
        def room(self) -> int:
            """Bytes for records and 4 more for each; 0: it has taken nothing lately."""

        def load(self) -> list[bytes]:
            """What was stored last, or anything else."""

        def store(self, records: list[bytes]) -> None:
            """Keeps these, in place of those from before."""


_KINDS = [kind.name for kind in KEPT]
_GROW = [kind.name for kind in KEPT if "note" in [name for name, _ in kind.record.fields]]
_NOTE = 256
_OVERHEAD = 4
_HEADER = 12
_LAST = 1 << 30
"""Numbers of records are below; an honest Toolstack never gets there."""
_MAX_REPORTS = 16


class Memory:
    """`shelf` None: nothing is remembered. `reserve`: bytes that no operator's request may use."""

    def __init__(
        self, shelf: "Shelf | None", report: "Callable[[str], None]" = print, reserve: int = 0
    ) -> None:
        self._shelf = shelf
        self._report = report
        self._reserve = reserve
        self._frames: "dict[int, bytes]" = {}
        # of each thing: the record's number, the fields that are in it, the record
        self._known: "dict[object, tuple[int, tuple[Any, ...] | None, bytes]]" = {}
        self._last = 0
        self._used = 0
        self._stored: "list[bytes] | None" = None
        self._reports = 0

    @property
    def exists(self) -> bool:
        """Whether there is a next life to remember anything for."""
        return self._shelf is not None

    def recall(self) -> "list[Message]":
        """The records of the last life that are records, in the order in which their things came to be."""
        found: "dict[int, Message]" = {}
        for untrusted_record in self._shelf.load() if self._shelf is not None else []:
            try:
                message = _decoded(untrusted_record)
            except MessageError as error:
                self.drop(str(error))
                continue
            if message.id in found:
                self.drop("there are two records %d" % message.id)
                continue
            found[message.id] = message
            self._frames[message.id] = untrusted_record
            self._last = max(self._last, message.id)
        return [found[number] for number in sorted(found)]

    def adopt(self, thing: object, message: Message) -> None:
        """A thing that a record of the last life was about is there again."""
        self._known[thing] = (message.id, None, self._frames[message.id])

    def drop(self, why: str) -> None:
        """A record of the last life is of no use: a line for Xen's console."""
        self._say("a record of the last life is dropped: %s" % why)

    def _say(self, text: str) -> None:
        if self._reports < _MAX_REPORTS:
            self._reports += 1
            self._report("toolstack: %s" % text)

    def update(self, things: "list[Thing]") -> None:
        """Remembers these and nothing else."""
        shelf, known = self._shelf, self._known
        if shelf is None:
            return
        changed = self._stored is None or len(things) != len(known)
        now: "dict[object, tuple[int, tuple[Any, ...] | None, bytes]]" = {}
        for thing, kind, fields in things:
            entry = known.get(thing)
            if entry is None or entry[1] != fields:
                if entry is None:
                    self._last += 1
                number = self._last if entry is None else entry[0]
                frame = _encoded(kind, number, fields)
                changed = changed or entry is None or entry[2] != frame
                entry = (number, fields, frame)
            now[thing] = entry
        self._known = now
        if changed:
            self._store(shelf, [kind for _, kind, _ in things])

    def lacks(self, kinds: "list[str]") -> str:
        """Why there is no room for further records of these kinds; "" if there is."""
        if self._shelf is None:
            return ""
        more = sum([BY_NAME[kind].record.largest + _HEADER + _OVERHEAD for kind in kinds])
        if self._used + self._reserve + more <= self._shelf.room:
            return ""
        return "the Toolstack can't remember more: its memory is full"

    def _store(self, shelf: "Shelf", kinds: "list[str]") -> None:
        frames = [frame for _, _, frame in sorted(self._known.values(), key=_number)]
        size = sum([len(frame) + _OVERHEAD for frame in frames])
        self._used = size + _NOTE * len([kind for kind in kinds if kind in _GROW])
        self._stored = frames
        if 0 < shelf.room < size:
            self._say("what is new is not remembered: it needs %d bytes of %d" % (size, shelf.room))
        else:
            # one that takes nothing at the moment may take it now
            shelf.store(frames)


def _number(entry: "tuple[int, tuple[Any, ...] | None, bytes]") -> int:
    return entry[0]


def number_of(record: bytes) -> int:
    """The number of a record that Memory made."""
    return record[4] | record[5] << 8 | record[6] << 16 | record[7] << 24


def _encoded(kind: str, number: int, fields: "tuple[Any, ...]") -> bytes:
    names = [name for name, _ in BY_NAME[kind].record.fields]
    return encode(kind, number, **dict(zip(names, fields)))


def _decoded(untrusted_record: bytes) -> Message:
    message = decode(untrusted_record)
    if message.kind not in _KINDS:
        raise MessageError("a Toolstack keeps no %s" % message.kind)
    if not 0 < message.id < _LAST:
        raise MessageError("%d is no record's number" % message.id)
    return message
