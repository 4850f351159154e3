"""One client's shared page (io/xs_wire.h, docs/misc/xenstore-ring.txt), served by a Connection.

Waits for nothing and signals nothing: `serve` moves what can be moved and says whether the client is to be
notified. Whatever stands in the page, the worst that happens is that this client's connection is stopped,
with the reason in the page's error word; a client may then still ask to reconnect.
"""

from xoar.xen.ring import RingError, xenstore_rings
from xoar.xenstore.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xen.ring import SharedPage
    from xoar.xenstore.connection import Connection
    from xoar.xenstore.server import Server

# word numbers in the page (byte offset / 4)
_FEATURES = 2064 // 4
_CONNECTION = 2068 // 4
_ERROR = 2072 // 4

_RECONNECTION_FEATURE = 1
_ERROR_FEATURE = 2
_WATCH_DEPTH_FEATURE = 4

_CONNECTED = 0
_RECONNECT = 1

ERROR_COMM = 1
ERROR_RINGIDX = 2
ERROR_PROTO = 3

_RING_SIZE = 1024
_READS_A_TURN = 4


class RingLink:
    """A client's page and its connection. `stopped` says why it is not served any more, empty if it is."""

    def __init__(self, page: "SharedPage", server: "Server", connection: "Connection") -> None:
        self.connection = connection
        self.stopped = ""
        self._server = server
        self._words = page.words
        self._requests, self._replies = xenstore_rings(page)
        self._words[_FEATURES] = _RECONNECTION_FEATURE | _ERROR_FEATURE | _WATCH_DEPTH_FEATURE
        self._words[_ERROR] = 0

    def serve(self) -> bool:
        """Moves bytes both ways, a bounded number. Returns whether to notify the client."""
        if self._words[_CONNECTION] == _RECONNECT:
            self._reconnect()
            return True
        return self._guarded(self._move)

    def flush(self) -> bool:
        """Moves only what waits for the client. Returns whether to notify it."""
        return self._guarded(self._send)

    def busy(self) -> bool:
        """Whether `serve` should be called again without waiting for the client's notification."""
        if self.stopped or not self.connection.wants_input:
            return False
        try:
            return self._requests.readable() > 0
        except RingError:
            return True

    def stop(self, code: int, reason: str) -> bool:
        """Ends the service for this client and tells it why (an ERROR_ code). Returns True: notify it."""
        self.stopped = reason
        self._server.disconnect(self.connection)
        self._words[_ERROR] = code
        return True

    def _guarded(self, step: "Callable[[], bool]") -> bool:
        if self.stopped:
            return False
        try:
            return step()
        except RingError as error:
            return self.stop(ERROR_RINGIDX, str(error))
        except ProtocolError as error:
            return self.stop(ERROR_PROTO, str(error))

    def _move(self) -> bool:
        moved = self._send()
        for _ in range(_READS_A_TURN):
            if not self.connection.wants_input:
                break
            untrusted_data = self._requests.read(_RING_SIZE)
            self.connection.receive(untrusted_data)
            moved = self._send() or bool(untrusted_data) or moved
            if not untrusted_data:
                break
        return moved

    def _send(self) -> bool:
        moved = False
        while True:
            data = self.connection.output()
            count = self._replies.write(data) if data else 0
            if not count:
                return moved
            self.connection.sent(count)
            moved = True

    def _reconnect(self) -> None:
        self.connection.reset()
        self.stopped = ""
        self._requests.reset()
        self._replies.reset()
        self._words[_ERROR] = 0
        self._words[_CONNECTION] = _CONNECTED
