"""What XenStore has said of nodes below watches, for as long as no watch has told otherwise.

It outlives a rollback at rest: XenStore goes on watching for this domain, and what happens meanwhile waits in
the ring. So the next life asks for what it does not know, instead of for all. Who had taken over the last
life may have left untruths: a watch, with all below it, is believed for ten minutes, and then asked for anew.
"""

from xoar.messages.errors import MessageError
from xoar.messages.kept import NODE_VALUE, PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.toolstack.memory import Thing

BELIEVED_MS = 600_000
MAX_BYTES = 64 * 1024
"""Of paths and values; what else is said is asked for by each life."""


class Mirror:
    """`clock()` is Xen's, in ms. A path with a slash behind it stands for the names of a node's children,
    separated by zero bytes; the value None for a node that is not there."""

    def __init__(self, clock: "Callable[[], int]") -> None:
        self._clock = clock
        self._since: "dict[str, int]" = {}  # of each watch: when all below it was asked for
        self._known: "dict[str, bytes | None]" = {}
        self._size = 0
        self._asked: "dict[str, bool]" = {}  # whether the answer will be true
        self._doubted: "dict[str, bool]" = {}  # nodes that were there before a change

    def watch(self, path: str) -> bool:
        """Whether the last life's watch goes on; else it is a new one."""
        if path in self._since:
            return True
        self._since[path] = self._clock()
        return False

    def knows(self, path: str) -> bool:
        """Whether it is known what is there."""
        return path in self._known

    def get(self, path: str) -> "bytes | None":
        """What is known of it."""
        return self._known[path]

    def asked(self, path: str) -> None:
        """Somebody asks XenStore for it."""
        self._asked[path] = True

    def heard(self, path: str, value: "bytes | None") -> None:
        """The answer."""
        if self._doubted.pop(path, False) and value is None:
            self._drop(path, _is_above)
        if self._asked.pop(path, False) and self._covered(path):
            try:
                PATH.encode(path)
                NODE_VALUE.encode(value or b"")
            except MessageError:
                return  # no record can hold it
            self._put(path, value)

    def changed(self, path: str) -> None:
        """A watch tells of a change: of the node and what is below it nothing is known then.

        Nor of its parents, unless it was there: then it is mostly its value that has changed. Whoever had
        asked for it asks again, and hears if it is gone."""
        if self._known.get(path) is None:
            self._drop(path, _is_above)
        else:
            self._doubted[path] = True
        self._drop(path, _is_below)

    def _drop(self, path: str, concerns: "Callable[[str, str], bool]") -> None:
        for known in [known for known in self._known if concerns(_node(known), path)]:
            self._size -= _size(known, self._known.pop(known))
        for asked in self._asked:
            if concerns(_node(asked), path):
                self._asked[asked] = False

    def remembered(self) -> "list[Thing]":
        """What the next life is to know."""
        things: "list[Thing]" = []
        for path, since in self._since.items():
            things.append(("watch " + path, "kept_watch", (path, since)))
        for path, value in self._known.items():
            fields = (path, int(value is not None), value or b"")
            things.append(("node " + path, "kept_node", fields))
        return things

    def recall_watch(self, fields: "Any") -> "str | None":
        """The thing that a record of the last life is about; None if it is not believed any more."""
        if fields.path in self._since or not 0 <= self._clock() - fields.since_ms < BELIEVED_MS:
            return None
        self._since[fields.path] = fields.since_ms
        return "watch " + str(fields.path)

    def recall_node(self, fields: "Any") -> "str | None":
        """The same for what was known of a node; watches come first."""
        path, value = fields.path, fields.value if fields.there else None
        if path in self._known or not self._covered(path) or not self._put(path, value):
            return None
        return "node " + str(path)

    def _covered(self, path: str) -> bool:
        for watched in self._since:
            if path.startswith(watched) and path[len(watched) : len(watched) + 1] in ("", "/"):
                return True
        return False

    def _put(self, path: str, value: "bytes | None") -> bool:
        size = _size(path, value)
        if self._size + size > MAX_BYTES:
            return False
        self._known[path] = value
        self._size += size
        return True


def _size(path: str, value: "bytes | None") -> int:
    return len(path) + len(value or b"")


def _node(path: str) -> str:
    return path[:-1] if path.endswith("/") else path


def _is_below(node: str, path: str) -> bool:
    return node == path or node.startswith(path + "/")


def _is_above(node: str, path: str) -> bool:
    return path.startswith(node + "/")
