"""A shard's links: those of who asks it, and those of whom it asks."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.messages.channel import Channel


_PATIENCE = 5 * 1000000000
_RESTLESS = 20 * 1000000000
"""For a client of whom something else waits at each look (ns)."""


class Conversations:
    """Channels by name. `clients` come and go."""

    def __init__(self, clients: "dict[str, Channel]", servers: "dict[str, Channel]") -> None:
        self.clients = clients
        self.servers = servers
        # when it has waited for too long: (channel, which way, number) of what the other end does not go on
        # with, or (channel,) of anything
        self._due: "dict[tuple[Any, ...], int]" = {}

    @property
    def more(self) -> bool:
        """Whether there are messages already that can be received."""
        clients = any([channel.unread and not channel.congested for channel in self.clients.values()])
        return clients or any([channel.unread for channel in self.servers.values()])

    def expire(self, now: int) -> "int | None":
        """Begins those anew in which half a message, or one that nobody takes, waits for too long: one client
        shall not keep the shard from being at rest. When to look again (ns), if one waits.

        To be asked when there is no `more`. What was there at the last look may have gone on since, and
        something else wait now: only the same thing at both looks has waited all the time between. But a
        client of whom something waits at every look is given up as well, some time later."""
        due: "dict[tuple[Any, ...], int]" = {}
        for channel in self._all():
            waits: "list[tuple[tuple[Any, ...], int]]" = []
            for way, number in enumerate(channel.stalled):
                if number is not None:
                    waits += [((channel, way, number), _PATIENCE), ((channel,), _RESTLESS)]
            ends = {what: self._due.get(what, now + patience) for what, patience in waits}
            if ends and min(ends.values()) <= now:
                channel.renew()
            else:
                due.update(ends)
        self._due = due
        return min(due.values()) if due else None

    def begin_anew(self) -> None:
        """All of them: what was on its way is lost."""
        for channel in self._all():
            channel.renew()

    def hold(self) -> None:
        """What is sent from now on waits for `go_on`. A conversation that makes no sense begins anew."""
        for channel in self._all():
            channel.flush()
            channel.held = True
            if channel.broken:
                channel.renew()

    def go_on(self) -> None:
        """Sends what waits."""
        for channel in self._all():
            channel.held = False
            channel.flush()

    def _all(self) -> "list[Channel]":
        return list(self.clients.values()) + list(self.servers.values())
