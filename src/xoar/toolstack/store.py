"""The Toolstack's link to XenStore, which may break without ending the Toolstack."""

from xoar.xen.ring import RingError
from xoar.xenstore.errors import ProtocolError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xenstore.client import Client


class StoreLink:
    """A XenStore client whose link, once `broken`, refuses all requests with EIO."""

    def __init__(self, client: "Client") -> None:
        self.broken = ""
        self._client = client

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

    def poll(self) -> bool:
        """Moves bytes both ways; whether any were."""
        if self.broken:
            return False
        try:
            return self._client.poll()
        except (RingError, ProtocolError) as error:
            self.broken = str(error)
            return False
