"""The state: all nodes, behind a small key-value interface, which checks access and quotas by the caller's
domid.

get, put, make, remove, set_permissions (see nodes.View) and commit, which does a transaction.
"""

from xoar.xenstore import paths
from xoar.xenstore.errors import Refused
from xoar.xenstore.nodes import POPULATION, SPECIAL, STORE, Node, View, cost
from xoar.xenstore.overlay import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xenstore.domains import Domains, Permissions
    from xoar.xenstore.nodes import Change, Plan
    from xoar.xenstore.overlay import Operation

_ROOT_PERMISSIONS = ((STORE, 0),)


class Contents(View):
    """All nodes."""

    def __init__(self, domains: "Domains", limits: "dict[str, int]") -> None:
        super().__init__(domains, limits)
        self._generation = 1
        self._nodes: "dict[bytes, Node]" = {b"/": Node(b"", _ROOT_PERMISSIONS, b"", 1)}
        domains.account(STORE).nodes = 1
        domains.account(STORE).memory = cost(b"/", self._nodes[b"/"])
        for path in SPECIAL:
            self._nodes[path] = Node(b"", _ROOT_PERMISSIONS, b"", 1)

    def fetch(self, path: bytes) -> "Node | None":
        return self._nodes.get(path)

    def commit(self, caller: int, reads: "dict[bytes, int]", operations: "list[Operation]") -> "list[Change]":
        """Does a transaction's operations if all that it read is as it was (generation; 0: no such node).

        Raises Refused: EAGAIN if it is not, or if an operation that could be done then can't be done now;
        ENOSPC if a quota is in the way. Then nothing has changed.
        """
        for path in reads:
            node = self._nodes.get(path)
            if (node.generation if node else 0) != reads[path]:
                raise Refused("EAGAIN")
        draft = Overlay(self)
        changes: "list[Change]" = []
        try:
            for operation in operations:
                changes += draft.perform(caller, operation)
        except Refused as error:
            if error.name == "ENOSPC":
                raise
            raise Refused("EAGAIN")
        self._install(caller, draft.plan)
        return changes

    def add_domain(self, domid: int) -> None:
        """A domain exists from now on."""
        self.domains.add(domid)
        self._population_changed()

    def start(self, path: bytes, permissions: "Permissions", value: bytes = b"") -> "list[Change]":
        """Makes a node anew, whatever was there: with these permissions, without children."""
        changes = self.end(path) + self._create(STORE, path, value)
        self._install(STORE, {path: Node(value, permissions, b"", 0)})
        return changes

    def end(self, path: bytes) -> "list[Change]":
        """Removes a node and all below it, if it is there."""
        return self._cut(STORE, path) if path in self._nodes else []

    def remove_domain(self, domid: int) -> "list[Change]":
        """Removes what a dead domain owned, and its name from all permissions, so that no later domain of
        the same number inherits anything."""
        changes: "list[Change]" = []
        concerned = [path for path in self._nodes if self._names(domid, self._nodes[path].permissions)]
        for path in sorted(concerned):
            node = self._nodes.get(path)
            if node is None:
                continue
            owner, others = node.permissions[0]
            if owner == domid and path not in SPECIAL and path != b"/":
                changes += self._cut(STORE, path)
            else:
                kept = tuple([entry for entry in node.permissions[1:] if entry[0] != domid])
                permissions = ((STORE if owner == domid else owner, others),) + kept
                self._install(STORE, {path: Node(node.value, permissions, node.children, 0)})
        self.domains.remove(domid)
        self._population_changed()
        return changes

    def _population_changed(self) -> None:
        self._install(STORE, {POPULATION: self._nodes[POPULATION]})

    def problems(self) -> "list[str]":
        """What is inconsistent, for `xenstore-control check` and tests: nothing, one hopes."""
        found = []
        owned: "dict[int, list[int]]" = {}
        reached = self._below(b"/")
        for path in self._nodes:
            if path in SPECIAL:
                continue
            node = self._nodes[path]
            if path not in reached:
                found.append("no parent has %s" % str(path, "ascii"))
            for name in node.children.split(b"\0")[:-1]:
                if paths.child(path, name) not in self._nodes:
                    found.append("%s has no node for its child %s" % (str(path, "ascii"), str(name, "ascii")))
            sums = owned.setdefault(node.permissions[0][0], [0, 0])
            sums[0] += 1
            sums[1] += cost(path, node)
        for domid in self.domains.accounts:
            account = self.domains.accounts[domid]
            if [account.nodes, account.memory] != owned.pop(domid, [0, 0]):
                found.append("domain %d's account is wrong" % domid)
        return found + ["domain %d owns nodes and has no account" % domid for domid in owned]

    def _names(self, domid: int, permissions: "Permissions") -> bool:
        return any([entry[0] == domid for entry in permissions])

    def _install(self, caller: int, plan: "Plan") -> None:
        growth = self._growth(plan)
        if caller != STORE and not self.domains.manages(caller):
            self._check_accounts(growth)
        self._generation += 1
        for path in plan:
            node = plan[path]
            if node is not None:
                self._nodes[path] = Node(node.value, node.permissions, node.children, self._generation)
            elif path in self._nodes:
                del self._nodes[path]
        for domid in growth:
            account = self.domains.account(domid)
            account.nodes += growth[domid][0]
            account.memory += growth[domid][1]

    def _growth(self, plan: "Plan") -> "dict[int, list[int]]":
        """How much more nodes and bytes each owner would have: domid -> [nodes, bytes]."""
        growth: "dict[int, list[int]]" = {}
        for path in plan:
            if path in SPECIAL:
                continue
            for node, sign in ((self._nodes.get(path), -1), (plan[path], 1)):
                if node is not None:
                    sums = growth.setdefault(node.permissions[0][0], [0, 0])
                    sums[0] += sign
                    sums[1] += sign * cost(path, node)
        return growth

    def _check_accounts(self, growth: "dict[int, list[int]]") -> None:
        for domid in growth:
            nodes, memory = growth[domid]
            if domid == STORE or self.domains.manages(domid):
                continue
            account, share = self.domains.account(domid), self.domains.share(domid)
            if nodes > 0 and account.nodes + nodes > self.limits["nodes"] * share:
                raise Refused("ENOSPC")
            if memory > 0 and account.memory + memory > self.limits["memory"] * share:
                raise Refused("ENOSPC")
