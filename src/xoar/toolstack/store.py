"""The Toolstack's link to XenStore, which may break without ending the Toolstack. Nothing here waits.

Values and watch events come from other domains: what is kept of them is bounded here, what they mean is
checked by whoever asked.
"""

from xoar.xen.ring import RingError
from xoar.xenstore import wire
from xoar.xenstore.client import Listing
from xoar.xenstore.errors import ProtocolError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.toolstack.mirror import Mirror
    from xoar.xenstore.client import Client

    Heard = Callable[["bytes | None"], None]

MAX_READS = 1024
"""Paths that may be read at the same time; what a domain changes beyond that is not noticed."""

# what is removed is ours if it is there; if it is not, XenStore may say that it is not ours to know
_MISSING = ("ENOENT", "EACCES")


class Batch:
    """Requests that are answered in any order; `poll` says when all are."""

    def __init__(self, store: "StoreLink") -> None:
        self.refused = ""
        self._store = store
        self._waiting: "list[tuple[int, str]]" = []
        self._removals: "list[int]" = []

    def add(self, kind: int, path: str, *words: str) -> None:
        """Sends a request about `path`; the words end with a zero byte each, except WRITE's value."""
        payload = path.encode() + b"\0"
        for word in words:
            payload += word.encode() + (b"" if kind == wire.WRITE else b"\0")
        request = self._store.request(kind, payload)
        self._waiting.append((request, path))
        if kind == wire.RM:
            self._removals.append(request)

    def put(self, path: str, value: bytes) -> None:
        """Writes any bytes."""
        self._waiting.append((self._store.request(wire.WRITE, path.encode() + b"\0" + value), path))

    def write(self, base: str, values: "tuple[tuple[str, str], ...]") -> None:
        """Writes values below `base`, in their order."""
        for name, value in values:
            self.add(wire.WRITE, "%s/%s" % (base, name), value)

    def make(self, path: str, owner: int, writer: int, *readers: int) -> None:
        """Makes a node of ours, `owner`, which `writer` may change, too. What either of them makes below it
        inherits that, and the readers."""
        self.add(wire.MKDIR, path)
        permissions = ["n%d" % owner, "b%d" % writer]
        for reader in readers:
            permissions.append("r%d" % reader)
        # what the writer makes is the writer's
        permissions.append("b%d" % owner)
        self.add(wire.SET_PERMS, path, *permissions)

    def read_by(self, path: str, owner: int, *readers: int) -> None:
        """Makes a node of ours, `owner`, that others may read, with what we make below it."""
        self.add(wire.MKDIR, path)
        self.add(wire.SET_PERMS, path, "n%d" % owner, *["r%d" % reader for reader in readers])

    def poll(self) -> bool:
        """Takes the replies that have come; True once none is missing. `refused` then says what failed."""
        left = []
        for request, path in self._waiting:
            try:
                if self._store.take_reply(request) is None:
                    left.append((request, path))
            except Refused as error:
                if error.name in _MISSING and request in self._removals:
                    continue
                self.refused = self.refused or "XenStore refused %s: %s" % (path, error.name)
        self._waiting = left
        return not left


_WATCHED_ALREADY = "EEXIST"


class StoreLink:
    """A XenStore client whose link, once `broken`, refuses all requests with EIO. It asks only for what its
    mirror does not know."""

    def __init__(self, client: "Client", mirror: "Mirror") -> None:
        self.broken = ""
        self.mirror = mirror
        self.has_watched = False
        """Whether first events of watches may be on their way; whoever has asked for something since then and
        has the answer sets it back."""
        self._client = client
        self._due: "list[Callable[[], None]]" = []  # what is told without asking
        self._batches: "list[tuple[Batch, Callable[[str], None]]]" = []
        self._watches: "dict[str, Callable[[str], None]]" = {}
        # of each path that is being read: the request, whether it must be read again, who wants the value
        self._reads: "dict[str, tuple[int, bool, Heard]]" = {}

    def request(self, kind: int, payload: bytes, transaction: int = 0) -> int:
        """Queues a request and returns its number."""
        if self.broken:
            return 0
        try:
            return self._client.request(kind, payload, transaction)
        except (RingError, ProtocolError) as error:
            self.broken = str(error)
            return 0

    def take_reply(self, request: int) -> "bytes | None":
        """The reply to a request, or None if it has not come yet. Raises Refused."""
        if self.broken:
            raise Refused("EIO")
        return self._client.take_reply(request)

    def run(self, batch: Batch, finished: "Callable[[str], None]") -> None:
        """Calls `finished(refused)` from `poll` or `finish` once all is answered; "" if all was done."""
        self._batches.append((batch, finished))

    def watch(self, path: str, changed: "Callable[[str], None]") -> None:
        """Calls `changed(path)` from `poll` for each change at `path` and below, and once at first."""
        self._watches[path] = changed
        if self.mirror.watch(path):
            self._due.append(lambda: changed(path))
            return

        def watched(refused: str) -> None:
            if refused.endswith(_WATCHED_ALREADY):
                changed(path)  # a watch of the last life, with no first event

        self.has_watched = True
        batch = Batch(self)
        batch.add(wire.WATCH, path, path)
        self.run(batch, watched)

    def read(self, path: str, heard: "Heard") -> None:
        """Calls `heard(value)` from `poll`; None if there is no such node.

        A path that is being read already is read once more after that, so the last value is never missed.
        """
        reading = self._reads.get(path)
        if reading is not None:
            self._reads[path] = (reading[0], True, heard)
        elif not self._known(path, heard) and len(self._reads) < MAX_READS:
            self.mirror.asked(path)
            self._reads[path] = (self.request(wire.READ, path.encode() + b"\0"), False, heard)

    def _known(self, path: str, heard: "Heard") -> bool:
        """Whether the mirror knows what is there; then `heard` is called from `poll`."""
        if not self.mirror.knows(path):
            return False
        value = self.mirror.get(path)
        self._due.append(lambda: heard(value))
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way in either direction."""
        if self.broken or self._batches or self._reads or self._due:
            return False
        try:
            return self._client.idle
        except RingError:
            return False

    def children(self, path: str, heard: "Callable[[list[str]], None]") -> None:
        """Calls `heard(names)` from `poll`; none if there is no such node. Once at a time for a path."""
        listing = Listing()
        key = path + "/"  # no path of a node ends so

        def tell(names: "bytes | None") -> None:
            heard([str(name, "ascii") for name in wire.strings(names or b"")])

        def part(reply: "bytes | None") -> None:
            if reply is not None and not listing.take(reply):
                ask()
                return
            if reply is not None:
                self.mirror.heard(key, listing.names)
            tell(None if reply is None else listing.names)

        def ask() -> None:
            payload = wire.words(path, "%d" % listing.start)
            self._reads[key] = (self.request(wire.DIRECTORY_PART, payload), False, part)

        if key not in self._reads and not self._known(key, tell) and len(self._reads) < MAX_READS:
            self.mirror.asked(key)
            ask()

    def poll(self) -> bool:
        """Moves bytes both ways and tells of what has come; whether there was anything."""
        moved = False
        if not self.broken:
            try:
                moved = self._client.poll()
            except (RingError, ProtocolError) as error:
                self.broken = str(error)
        self._tell_of_changes()
        due, self._due = self._due, []
        for tell in due:
            tell()
        self._tell_of_values()
        return self.finish() or moved or bool(due)

    def finish(self) -> bool:
        """Tells of the batches that need no further reply, an empty one at once; whether there were any."""
        batches, self._batches = self._batches, []
        progress = False
        for batch, finished in batches:
            if batch.poll():
                progress = True
                finished(batch.refused)
            else:
                self._batches.append((batch, finished))
        return progress

    def _tell_of_changes(self) -> None:
        while True:
            event = self._client.take_event()
            if event is None:
                return
            path, token = event
            self.mirror.changed(path)
            if token in self._watches:
                self._watches[token](path)

    def _tell_of_values(self) -> None:
        for path in list(self._reads):
            request, again, heard = self._reads[path]
            try:
                value = self.take_reply(request)
                if value is None:
                    continue
                if not path.endswith("/"):  # else it may be a part
                    self.mirror.heard(path, value)
            except Refused as error:
                value = None
                if error.name == "ENOENT":
                    self.mirror.heard(path, None)
            del self._reads[path]
            if again:
                self.read(path, heard)
            heard(value)
