"""How an end of a link that has lost its place begins the conversation anew.

A shard that is rolled back in the middle of a message knows neither what it had read of it nor what it had
sent. In the last 16 bytes of a link's page each end has two words: how often it wanted to begin anew, and
the last such wish of the other end that it has fulfilled. Who wants to leaves the rings alone until that is
done; the other end empties both, forgets half messages, and says so.

The words are the other end's to change as it likes; all it can gain is that its own conversation begins anew.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xen.ring import SharedPage

CLIENT, SERVER = 0, 2
_WORDS = 4096 // 4
_MASK = 0xFFFFFFFF


class Renewal:
    """One end's; `side` is CLIENT (whose page it is) or SERVER."""

    def __init__(self, page: "SharedPage", side: int) -> None:
        self._words = page.words
        self._mine = _WORDS - 4 + side
        self._theirs = _WORDS - 4 + (SERVER - side)

    def begin(self) -> None:
        """Wants to begin anew."""
        self._words[self._mine] = (self._words[self._mine] + 1) & _MASK

    @property
    def waits(self) -> bool:
        """Whether this end still waits for that."""
        done: bool = self._words[self._theirs + 1] != self._words[self._mine]
        return done

    @property
    def wanted(self) -> bool:
        """Whether the other end wants to begin anew."""
        asked: bool = self._words[self._theirs] != self._words[self._mine + 1]
        return asked

    def fulfil(self) -> None:
        """Says that both rings are empty."""
        self._words[self._mine + 1] = self._words[self._theirs]
