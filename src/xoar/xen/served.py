"""A link that another domain opened to this one: its page, mapped, and its event channel, bound."""

from xoar.xen import events, grants, memory


class _End:
    """The server's end of a link. `page` is the client's, `port` a local one."""

    def __init__(self, mapping: "grants.Mapping | memory.Frame", domid: int, port: int) -> None:
        self._mapping = mapping
        self.page = mapping.page
        try:
            self.port = events.bind(domid, port)
        except OSError:
            self._mapping.unmap()
            raise

    def notify(self) -> None:
        """Signals the client."""
        events.notify(self.port)

    def close(self) -> None:
        """Lets both go. What Xen has taken back by itself, because the domain is gone, is no trouble."""
        for step in (self._close_port, self._mapping.unmap):
            try:
                step()
            except OSError as error:
                print("letting go of a link: %s" % error)

    def _close_port(self) -> None:
        events.close(self.port)


class Served(_End):
    """The end of one who may map the page because the client grants it. Raises OSError if refused."""

    def __init__(self, domid: int, gref: int, port: int) -> None:
        super().__init__(grants.map(domid, gref), domid, port)


class Reached(_End):
    """The end of one who may map all of the client's memory: its frame `frame`. Raises OSError if refused."""

    def __init__(self, domid: int, frame: int, port: int) -> None:
        super().__init__(memory.Frame(domid, frame), domid, port)
