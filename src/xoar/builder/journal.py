"""What Builder was asked to change about rights while the host runs, by whom, and what came of it. No I/O.

The newest entries are kept, a bounded number; each is also a line for Xen's console. Refusals cost
their asker nothing, so only so many of them are printed.
"""

from collections import namedtuple

from xoar.builder.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 256
"""Entries that are kept."""

DONE = "done"
_MAX_PRINTED_REFUSALS = 64
_MAX_WHO, _MAX_WHAT, _MAX_OUTCOME = 64, 128, 256  # characters, as in the schema

Entry = namedtuple("Entry", ("number", "when_ns", "who", "what", "outcome"))
"""Numbers count from 0 without a gap; `when_ns` is Xen's clock."""


class Journal:
    """`clock()` is Xen's, in ns; `report` takes lines for Xen's console."""

    def __init__(self, clock: "Callable[[], int]", report: "Callable[[str], None]" = print) -> None:
        self._clock = clock
        self._report = report
        self._entries: "list[Entry]" = []
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
        self._entries.append(Entry(self._next, self._clock(), who, what, outcome))
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

    def since(self, number: int, most: int) -> "tuple[list[Entry], bool]":
        """At most `most` entries from that number on, the oldest first, and whether there are more."""
        found = [entry for entry in self._entries if entry.number >= number]
        return found[:most], len(found) > most


def _plain(text: str, limit: int) -> str:
    """At most `limit` characters, others than printable ASCII as "?"."""
    return "".join([char if " " <= char <= "~" else "?" for char in text[:limit]])
