"""A Toolstack's memory in XenStore: a node for each record, below one that State makes and keeps for it.

It is for Toolstacks that are built again (tenants'): nothing of theirs outlives the domain but what others
keep. XenStore keeps the records of their guests anyway, within a quota, readable for nobody else.
"""

from xoar.toolstack.memory import number_of
from xoar.toolstack.store import Batch
from xoar.xenstore import paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.toolstack.store import StoreLink
    from xoar.xenstore.client import Client

_ROOM = 1 << 20
"""XenStore's quota is narrower where there are few guests, and says so itself."""


class XenStoreShelf:
    """`client` is the one behind `store`, and must be able to wait; `domid` is this Toolstack's."""

    def __init__(
        self, client: "Client", store: "StoreLink", domid: int, report: "Callable[[str], None]" = print
    ) -> None:
        self._client = client
        self._store = store
        self._home = paths.memory(domid).decode()
        self._report = report
        self._there: "dict[int, bytes]" = {}
        self._strange: "list[str]" = []
        self._wanted: "dict[int, bytes] | None" = None
        self._writing = False
        self._trouble = ""

    @property
    def room(self) -> int:
        """0 if XenStore has taken nothing lately."""
        return 0 if self._trouble else _ROOM

    @property
    def settled(self) -> bool:
        """Whether XenStore has all that was stored, or has refused it."""
        return not self._writing

    def load(self) -> "list[bytes]":
        """Waits for XenStore. Raises Refused if it does not say: then it is not known what was stored, and
        this Toolstack must not go on as if there were no guests."""
        for name in self._client.directory(self._home):
            value = self._client.read("%s/%s" % (self._home, name))
            if name.isdigit() and len(name) < 11 and name[0] != "0":
                self._there[int(name)] = value
            else:
                self._strange.append(name)
        return [self._there[number] for number in sorted(self._there)]

    def store(self, records: "list[bytes]") -> None:
        """Writes what is new, then removes what is gone; `settled` says when that is done."""
        self._wanted = {number_of(record): record for record in records}
        if not self._writing:
            self._write()

    def _write(self) -> None:
        wanted, there = self._wanted or {}, self._there
        self._wanted = None
        batch = Batch(self._store)
        written = [number for number in sorted(wanted) if there.get(number) != wanted[number]]
        for number in written:
            batch.put(self._node(number), wanted[number])
        for number in sorted(there):
            if number not in wanted:
                batch.add(wire.RM, self._node(number))
        for name in self._strange:
            batch.add(wire.RM, "%s/%s" % (self._home, name))
        self._strange = []
        self._there, self._writing = wanted, True

        def done(refused: str) -> None:
            self._writing = False
            if refused and not self._trouble:
                self._report("toolstack: what it knows is not remembered: %s" % refused)
            self._trouble = refused
            if refused:
                for number in written:
                    self._there[number] = b""
            if self._wanted is not None:
                self._write()

        self._store.run(batch, done)

    def _node(self, number: int) -> str:
        return "%s/%d" % (self._home, number)
