"""The server's end of a link whose page it never maps: it works on a copy, and copies back what it changed.

So nothing of another domain is in this one's memory map, for ever or by mistake: there is nothing to take
away when it is rolled back (docs/microreboot.md). The price is a hypercall for each look.

`Sides` says what of the page is this end's to write: the data of the ring that it fills, and words. Data goes
back before the words that say it is there; only words that were changed are written, since the others are
the other end's.
"""

from collections import namedtuple

from xoar.abi import xen as abi
from xoar.abi.layout import Layout
from xoar.xen.ring import PAGE_SIZE, SharedPage, console_rings, xenstore_rings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Copies(Protocol):
        """What moves bytes between the other domain's page and the copy here (xoar.xen.grants)."""

        def fetch(self) -> None:
            """Copies the page here. Raises OSError."""

        def store(self, runs: "list[tuple[int, int]]") -> None:
            """Copies these bytes, (offset, length) each, there, in this order. Raises OSError."""

    class Channel(Protocol):
        """An event channel."""

        port: int

        def notify(self) -> None: ...
        def close(self) -> None: ...


_WORD = 4

Sides = namedtuple("Sides", ("data", "size", "producer", "words"))
"""Offset and size of the data that this end writes; the word that says how much there is; all words that
this end may change, the last thing it writes last."""


def _word(layout: Layout, name: str) -> int:
    return layout.offset(name) // _WORD


def _console() -> Sides:
    layout = abi.xencons_interface
    data, size = layout.fields["in"]
    producer = _word(layout, "in_prod")
    return Sides(data, size, producer, [producer, _word(layout, "out_cons")])


def _messages() -> Sides:
    layout = abi.xenstore_domain_interface
    data, size = layout.fields["rsp"]
    # all four: who begins a conversation anew (xoar.messages.renewal) has them set to 0, and waits meanwhile
    words = [_word(layout, name) for name in ("req_cons", "req_prod", "rsp_cons", "rsp_prod")]
    renewal = [PAGE_SIZE // _WORD - 2, PAGE_SIZE // _WORD - 1]
    return Sides(data, size, _word(layout, "rsp_prod"), words + renewal)


CONSOLE, MESSAGES = _console(), _messages()
"""A guest's console ring; a link that carries messages."""


class Copied:
    """`page` is where `copies` has its copy; several ends may have the same if each is published before the
    next one is fetched. `to_client`, `to_server`: its rings."""

    def __init__(self, page: SharedPage, sides: Sides, copies: "Copies", channel: "Channel") -> None:
        self.page = page
        self.port = channel.port
        if sides is CONSOLE:
            self.to_client, self.to_server = console_rings(page)
        else:
            self.to_server, self.to_client = xenstore_rings(page)
        self._sides = sides
        self._copies = copies
        self._channel = channel
        self._before = [page.words[word] for word in sides.words]

    def fetch(self) -> None:
        """Brings the copy up to date. Raises OSError if Xen refuses: the page is not granted any more."""
        self._copies.fetch()
        words = self.page.words
        self._before = [words[word] for word in self._sides.words]

    def publish(self) -> None:
        """Copies back what was changed here, and signals the other end then. Raises OSError."""
        words, sides = self.page.words, self._sides
        now = [words[word] for word in sides.words]
        if now == self._before:
            return
        runs = []
        for word, was, value in zip(sides.words, self._before, now):
            if was != value:
                runs.append((word * _WORD, _WORD))
                if word == sides.producer:
                    runs.insert(0, (sides.data, sides.size))
        self._before = now
        self._copies.store(runs)
        self._channel.notify()

    def close(self) -> None:
        """Lets the event channel go."""
        self._channel.close()
