"""What Builder was asked to change about rights while the host runs, by whom, and what came of it. No I/O.

The newest entries are kept, a bounded number; each is also a line for Xen's console. Refusals cost
their asker nothing, so only so many of them are printed.
"""

import struct

from xoar.builder.errors import BuildError
from xoar.messages.codec import HEADER_SIZE, decode, encode
from xoar.messages.errors import MessageError
from xoar.messages.records import ENTRY
from xoar.messages.schema import BY_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MOST = 256
"""Entries that are kept."""

DONE = "done"
_MAX_PRINTED_REFUSALS = 64
_MAX_WHO, _MAX_WHAT, _MAX_OUTCOME = 64, 128, 256  # characters, as in the schema

_KIND = BY_NAME["remember_entry"].number


class Journal:
    """`clock()` is Xen's, in ns; `report` takes lines for Xen's console."""

    def __init__(self, clock: "Callable[[], int]", report: "Callable[[str], None]" = print) -> None:
        self._clock = clock
        self._report = report
        self._entries: "list[bytes]" = []  # messages, as they are remembered: they are read seldom
        self._next = 0
        self._refusals = 0

    @property
    def dropped(self) -> int:
        """How many entries are not kept any more."""
        return self._next - len(self._entries)

    def enter(self, who: str, what: str, outcome: str) -> None:
        """Adds an entry: the asker's name, what it asked for, and DONE or why that was refused."""
        who, what = _plain(who, _MAX_WHO), _plain(what, _MAX_WHAT)
        outcome = _plain(outcome, _MAX_OUTCOME)
        if len(self._entries) == MOST:
            self._entries.pop(0)
        self._entries.append(
            encode(
                "remember_entry",
                0,
                number=self._next,
                when_ns=self._clock(),
                who=who,
                what=what,
                outcome=outcome,
            )
        )
        self._next += 1
        if outcome != DONE:
            self._refusals += 1
        if outcome == DONE or self._refusals <= _MAX_PRINTED_REFUSALS:
            self._report("builder: journal: %s: %s: %s" % (who, what, outcome))

    def attempt(self, who: str, what: str, action: "Callable[[], None]") -> None:
        """Does something, and enters that and what came of it. Raises what `action` does."""
        try:
            action()
        except BuildError as error:
            self.enter(who, what, "refused: %s" % error)
            raise
        except OSError as error:
            self.enter(who, what, "Xen refused: error %d" % error.args[0])
            raise
        self.enter(who, what, DONE)

    def reporter(self, who: str) -> "Callable[[str], None]":
        """Enters what a link says of messages that its other end may not send: 16 times at most."""
        return lambda text: self.enter(who, "a message", text)

    def since(self, number: int, most: int) -> "tuple[list[Any], bool]":
        """At most `most` entries (records.ENTRY) from that number on, the oldest first, and whether there are
        more."""
        found = self._entries[max(number - self.dropped, 0) :]
        return [_read(record) for record in found[:most]], len(found) > most

    def remember(self) -> "list[bytes]":
        """The entries, as `recall` takes them."""
        return self._entries

    def recall(self, record: bytes) -> bool:
        """Takes one of them back, whoever wrote it, unless it does not follow the last one; whether it says
        that it is one."""
        if len(record) < HEADER_SIZE + 4 or struct.unpack_from("<I", record)[0] != _KIND:
            return False
        number = struct.unpack_from("<I", record, HEADER_SIZE)[0]
        if not self._entries:
            self._next = number
        if number == self._next and len(self._entries) < MOST:
            self._entries.append(record)
            self._next += 1
        return True


def _read(record: bytes) -> "Any":
    try:
        return decode(record).fields
    except MessageError:
        number = struct.unpack_from("<I", record, HEADER_SIZE)[0]
        return ENTRY.value(number, 0, "?", "?", "this entry is damaged")


def _plain(text: str, limit: int) -> str:
    """At most `limit` characters, others than printable ASCII as "?"."""
    return "".join([char if " " <= char <= "~" else "?" for char in text[:limit]])
