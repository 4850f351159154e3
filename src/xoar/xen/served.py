"""A link that another domain opened to this one: its page, mapped, and its event channel, bound."""

from xoar.xen import events, grants, memory
from xoar.xen.copied import Copied
from xoar.xen.pages import Buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xen.copied import Sides


class Bound:
    """The server's end of a client's event channel; `port` is a local one. Raises OSError if refused."""

    def __init__(self, domid: int, port: int) -> None:
        self.port = events.bind(domid, port)

    def notify(self) -> None:
        """Signals the client."""
        events.notify(self.port)

    def close(self) -> None:
        """Lets it go. What Xen has taken back by itself, because the domain is gone, is no trouble."""
        _let_go(lambda: events.close(self.port))


def _let_go(step: "Callable[[], None]") -> None:
    try:
        step()
    except OSError as error:
        print("letting go of a link: %s" % error)


class _End(Bound):
    """The server's end of a link. `page` is the client's."""

    def __init__(self, mapping: "grants.Mapping | memory.Frame", domid: int, port: int) -> None:
        self._mapping = mapping
        self.page = mapping.page
        try:
            super().__init__(domid, port)
        except OSError:
            self._mapping.unmap()
            raise

    def close(self) -> None:
        """Lets both go."""
        super().close()
        _let_go(self._mapping.unmap)


class Served(_End):
    """The end of one who may map the page because the client grants it. Raises OSError if refused."""

    def __init__(self, domid: int, gref: int, port: int) -> None:
        super().__init__(grants.map(domid, gref), domid, port)


class Reached(_End):
    """The end of one who may map all of the client's memory: its frame `frame`. Raises OSError if refused."""

    def __init__(self, domid: int, frame: int, port: int) -> None:
        super().__init__(memory.Frame(domid, frame), domid, port)


def copied(sides: "Sides", buffer: Buffer, domid: int, gref: int, port: int) -> Copied:
    """The end of one whose page is copied to and from `buffer`. Raises OSError if refused."""
    copies = grants.Copies(domid, gref, buffer)
    copies.fetch()
    return Copied(buffer.page, sides, copies, Bound(domid, port))
