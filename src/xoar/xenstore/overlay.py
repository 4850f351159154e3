"""A transaction: a view of the contents that remembers what it saw and keeps its own changes apart.

Nothing is copied, since both share the records of nodes. To commit is to hand over what was read (path and
generation) and the operations: `Contents.commit` compares the first with what is there now and does the
second again, as the caller, with all checks. So whoever holds the overlay (the logic) need not be trusted.

What counts as read: nodes that a request returned; and, from the first time that a request's outcome
depends on more (it was refused, or returned a node that this transaction changed), every node the
transaction looked at. Writes alone are never in conflict with anything: they are done again on commit.
"""

from xoar.xenstore.errors import Refused
from xoar.xenstore.nodes import NODE_OVERHEAD, View, cost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.xenstore.domains import Permissions
    from xoar.xenstore.nodes import Change, Node, Plan

    Operation = tuple[str, bytes, object]
    """(name of View's method, path, its further argument)."""


class Overlay(View):
    """A transaction's view of the contents. `charge(bytes)` hears what it comes to keep, and may refuse."""

    def __init__(self, base: View, charge: "Callable[[int], None] | None" = None) -> None:
        super().__init__(base.domains, base.limits)
        self.plan: "Plan" = {}
        self.operations: "list[Operation]" = []
        self.cost = 0
        self._base = base
        self._charge = charge
        self._seen: "Plan" = {}
        self._returned: "set[bytes]" = set()
        self._depends_on_all = False
        self._cut_off: "list[bytes]" = []

    def fetch(self, path: bytes) -> "Node | None":
        if path in self.plan:
            return self.plan[path]
        if path in self._seen:
            return self._seen[path]
        for top in self._cut_off:
            if path.startswith(top):
                return None
        node = self._base.fetch(path)
        self._pay(cost(path, node))
        self._seen[path] = node
        return node

    def get(self, caller: int, path: bytes) -> "Node":
        if path in self.plan:
            self._depends_on_all = True
        try:
            node = View.get(self, caller, path)
        except Refused:
            self._depends_on_all = True
            raise
        self._returned.add(path)
        return node

    def perform(self, caller: int, operation: "Operation") -> "list[Change]":
        """Does one operation, (name, path, argument), and remembers it for the commit."""
        name, path, argument = operation
        self._pay(NODE_OVERHEAD)
        try:
            if name == "put":
                changes = View.put(self, caller, path, argument)  # type: ignore[arg-type]
            elif name == "make":
                changes = View.make(self, caller, path)
            elif name == "remove":
                changes = View.remove(self, caller, path)
                self._cut_off.append(path + b"/")
            else:
                changes = View.set_permissions(self, caller, path, argument)  # type: ignore[arg-type]
        except Refused:
            self._depends_on_all = True
            raise
        self.operations.append(operation)
        return changes

    def put(self, caller: int, path: bytes, value: bytes) -> "list[Change]":
        return self.perform(caller, ("put", path, value))

    def make(self, caller: int, path: bytes) -> "list[Change]":
        return self.perform(caller, ("make", path, None))

    def remove(self, caller: int, path: bytes) -> "list[Change]":
        return self.perform(caller, ("remove", path, None))

    def set_permissions(self, caller: int, path: bytes, permissions: "Permissions") -> "list[Change]":
        return self.perform(caller, ("set_permissions", path, permissions))

    def reads(self) -> "dict[bytes, int]":
        """What must not have changed for a commit: path -> generation, 0 if there was no such node."""
        found = {}
        for path in self._seen:
            if self._depends_on_all or path in self._returned:
                node = self._seen[path]
                found[path] = node.generation if node else 0
        return found

    def _install(self, caller: int, plan: "Plan") -> None:
        for path in plan:
            self._pay(cost(path, plan[path]))
        self.plan.update(plan)

    def _pay(self, amount: int) -> None:
        if self._charge is not None:
            self._charge(amount)
        self.cost += amount
