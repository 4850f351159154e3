"""A link that another domain opened to this one: its page, mapped, and its event channel, bound."""

from xoar.xen import events, grants


class Served:
    """The server's end of a link. `page` is the client's, `port` a local one. Raises OSError if refused."""

    def __init__(self, domid: int, gref: int, port: int) -> None:
        self._mapping = grants.map(domid, gref)
        self.page = self._mapping.page
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
