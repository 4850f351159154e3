"""A shard's links: those of who asks it, and those of whom it asks."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.messages.channel import Channel


_PATIENCE = 5 * 1000000000


class Conversations:
    """Channels by name. `clients` come and go."""

    def __init__(self, clients: "dict[str, Channel]", servers: "dict[str, Channel]") -> None:
        self.clients = clients
        self.servers = servers
        self._since: "dict[Channel, int]" = {}  # when something began to wait

    @property
    def more(self) -> bool:
        """Whether there are requests already that can be served."""
        return any([channel.more and not channel.congested for channel in self.clients.values()])

    @property
    def idle(self) -> bool:
        """Whether no message is on its way."""
        return all([channel.idle for channel in self._all()])

    def expire(self, now: int) -> "int | None":
        """Begins those anew in which half a message, or one that nobody takes, waits for too long: one client
        shall not keep the shard from being at rest. When to look again (ns), if one waits."""
        waiting = {}
        for channel in self._all():
            if not channel.idle:
                waiting[channel] = self._since.get(channel, now)
                if waiting[channel] + _PATIENCE <= now:
                    del waiting[channel]
                    channel.renew()
        self._since = waiting
        return min(waiting.values()) + _PATIENCE if waiting else None

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
