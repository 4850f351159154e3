"""The links of other shards: each a page that is copied, its event channel, and the messages in it.

A link whose page can't be copied any more is lost: nothing more is read or written, its channel is broken.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from xoar.messages.channel import Channel

    class Copy(Protocol):
        """xoar.xen.copied.Copied."""

        port: int

        def fetch(self) -> None: ...
        def publish(self) -> None: ...
        def close(self) -> None: ...


class Link:
    """One of them. It has to be looked at if it is `ready`; `domid` is its client's."""

    def __init__(self, domid: int, copy: "Copy", channel: "Channel") -> None:
        self.domid = domid
        self.port = copy.port
        self.channel = channel
        self.ready = True
        self.lost = False
        self._copy = copy

    def receive(self) -> "list[Any]":
        """The messages that have come, if it is ready; it stays so if there are more."""
        if not self.ready or self.lost:
            return []
        self._copied(self._copy.publish)  # what was changed since would be overwritten
        self._copied(self._copy.fetch)
        messages = self.channel.receive()
        self.ready = self.channel.more
        return messages

    def hold(self) -> None:
        """What is sent from now on waits for `go_on`. A conversation that makes no sense begins anew."""
        self.channel.held = True
        if self.channel.broken and not self.lost:
            self.channel.renew()

    def go_on(self) -> None:
        """Sends what waits."""
        self.channel.held = False
        self.channel.flush()
        self._copied(self._copy.publish)

    def close(self) -> None:
        """Lets the event channel go."""
        self._copy.close()

    def _copied(self, step: "Callable[[], None]") -> None:
        try:
            if not self.lost:
                step()
        except OSError as error:
            self.lost = True
            self.channel.broken = str(error)
