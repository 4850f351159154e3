"""Every message between shards and from the operator, declared once.

A kind has a number, a name, who may send it to whom, the right that its sender needs, the kind that answers
it and a table of bounded fields. Encoder, decoder, checks, fuzzers and docs/messages.md derive from this
table; `python -m xoar.messages.document` prints that page. Numbers are never reused for another meaning.

Replies whose entries may not fit into one frame come in pages: the request's `start` says which entry is
the first (a domid in lists of domains, a position in other lists), and `more` in the reply says that there
is a further page, which starts after the last entry received.
"""

from xoar.messages import store
from xoar.messages.consoles import KEPT_CONSOLES
from xoar.messages.kept import KEPT
from xoar.messages.kind import Kind
from xoar.messages.operator import OF_OPERATORS
from xoar.messages.remembered import REMEMBERED
from xoar.messages.shards import BETWEEN_SHARDS

MAX_PAYLOAD = 8192
"""Bytes that may follow a frame's header."""

TABLE = (
    BETWEEN_SHARDS
    + OF_OPERATORS
    + REMEMBERED
    + KEPT
    + KEPT_CONSOLES
    + tuple([Kind(*row) for row in store.ROWS])
)


BY_NAME = {kind.name: kind for kind in TABLE}
BY_NUMBER = {kind.number: kind for kind in TABLE}


def _route_replies() -> None:
    for request in TABLE:
        if request.reply:
            back = tuple([(receiver, sender) for sender, receiver in request.routes])
            for name in (request.reply, "error"):
                reply = BY_NAME[name]
                reply.routes += tuple([route for route in back if route not in reply.routes])


_route_replies()


def accepted(sender: str, receiver: str) -> "frozenset[str]":
    """The names of the kinds that `receiver` may be sent by `sender`."""
    return frozenset([kind.name for kind in TABLE if (sender, receiver) in kind.routes])
