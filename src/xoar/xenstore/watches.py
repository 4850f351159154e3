"""Which watches there are, and which of them a change concerns."""

from xoar.xenstore import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xenstore.connection import Connection
    from xoar.xenstore.domains import Permissions
    from xoar.xenstore.nodes import Change

    Visible = Callable[[int, bytes, tuple[Permissions, ...]], bool]

_WATCH_OVERHEAD = 256
"""Bytes of a watch besides its strings."""


class Watch:
    """One registered watch. `lost` says that an event found no room and has to be made up for."""

    def __init__(
        self, connection: "Connection", path: bytes, token: bytes, relative: int, depth: "int | None"
    ) -> None:
        self.connection = connection
        self.path = path
        self.token = token
        self.depth = depth
        self.lost = False
        self.cost = _WATCH_OVERHEAD + len(path) + len(token)
        self._prefix = len(connection.base) + 1 if relative else 0

    def fire(self, path: bytes) -> None:
        """Tells the client that `path` changed, relative to its home if that is how it set up the watch."""
        self.connection.event(self, path[self._prefix :])

    def fire_itself(self) -> None:
        """Tells the client to look at what it watches."""
        self.fire(self.path)


class Watches:
    """All watches by the path that they watch, so that a change costs a look-up for each level above it."""

    def __init__(self) -> None:
        self._by_path: "dict[bytes, list[Watch]]" = {}

    def add(self, watch: Watch) -> None:
        """Registers a watch."""
        self._by_path.setdefault(watch.path, []).append(watch)

    def remove(self, watch: Watch) -> None:
        """Forgets a registered watch."""
        same = self._by_path[watch.path]
        same.remove(watch)
        if not same:
            del self._by_path[watch.path]

    def fire(self, change: "Change", visible: "Visible") -> None:
        """Fires what watches the changed path or something above it; after a removal also what watched a
        removed node, with that node's own path. `visible(domid, path, permissions)` says who may see it."""
        for path in change.gone:
            if path != change.path:
                node = change.gone[path]
                permissions = (node.permissions, change.gone[paths.parent(path)].permissions)
                for watch in self._by_path.get(path, ()):
                    if visible(watch.connection.domid, path, permissions):
                        watch.fire(path)
        distance = 0
        path = change.path
        while True:
            for watch in self._by_path.get(path, ()):
                near = watch.depth is None or distance <= watch.depth
                if near and visible(watch.connection.domid, change.path, change.permissions):
                    watch.fire(change.path)
            if path == b"/":
                return
            path = paths.parent(path)
            distance += 1

    def fire_special(self, name: bytes, domid: int, permitted: "Callable[[int], bool]") -> None:
        """Fires @introduceDomain or @releaseDomain for a domain: to watches of the event (depth 1: with the
        domain's number at its end) and to those of the event for this domain alone."""
        numbered = name + b"/%d" % domid
        for watch in self._by_path.get(name, ()):
            if permitted(watch.connection.domid):
                watch.fire(numbered if watch.depth == 1 else name)
        for watch in self._by_path.get(numbered, ()):
            if permitted(watch.connection.domid):
                watch.fire(numbered)
