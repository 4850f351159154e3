"""One client's shared page (io/xs_wire.h, docs/misc/xenstore-ring.txt), served by a Connection.

Waits for nothing and signals nothing: `serve` moves what can be moved and says whether the client is to be
notified. Whatever stands in the page, the worst that happens is that this client's connection is stopped,
with the reason in the page's error word; a client may then still ask to reconnect.
"""

from xoar.abi import xen as abi
from xoar.xen.ring import RingError, xenstore_rings
from xoar.xenstore.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xen.ring import SharedPage
    from xoar.xenstore.connection import Connection
    from xoar.xenstore.gate import Gate

# word numbers in the page
_FEATURES = abi.xenstore_domain_interface.offset("server_features") // 4
_CONNECTION = abi.xenstore_domain_interface.offset("connection") // 4
_ERROR = abi.xenstore_domain_interface.offset("error") // 4

_RECONNECTION_FEATURE = abi.XENSTORE_SERVER_FEATURE_RECONNECTION
_ERROR_FEATURE = abi.XENSTORE_SERVER_FEATURE_ERROR
_WATCH_DEPTH_FEATURE = 4  # bit 2 of docs/misc/xenstore-ring.txt; Xen 4.17's header has no name for it

_CONNECTED = abi.XENSTORE_CONNECTED
_RECONNECT = abi.XENSTORE_RECONNECT

ERROR_COMM = abi.XENSTORE_ERROR_COMM
ERROR_RINGIDX = abi.XENSTORE_ERROR_RINGIDX
ERROR_PROTO = abi.XENSTORE_ERROR_PROTO

_RING_SIZE = abi.XENSTORE_RING_SIZE
_READS_A_TURN = 4


class RingLink:
    """A client's page and its connection. `stopped` says why it is not served any more, empty if it is."""

    def __init__(self, page: "SharedPage", gate: "Gate", connection: "Connection") -> None:
        self.connection = connection
        self.stopped = ""
        self._gate = gate
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
        self._gate.disconnect(self.connection)
        self._words[_ERROR] = code
        return True

    def _guarded(self, step: "Callable[[], bool]") -> bool:
        if self.stopped:
            return False
        try:
            moved = step()
            self.connection.check()
            return moved
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
