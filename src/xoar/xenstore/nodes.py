"""Nodes, and the requests that one can make of them; where they are kept is left to the two subclasses.

Nodes are immutable records. A change is planned first, as a dict of new nodes by path, and then installed as
a whole, so that a refused request leaves nothing behind.
"""

from collections import namedtuple

from xoar.xenstore import paths
from xoar.xenstore.domains import OWNER_ACCESS, READ_ACCESS, WRITE_ACCESS
from xoar.xenstore.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from xoar.xenstore.domains import Domains, Permissions

    class Node(NamedTuple):
        """`children`: the children's names, each with a nul at its end; `generation`: of the last change."""

        value: bytes
        permissions: Permissions
        children: bytes
        generation: int

    class Change(NamedTuple):
        """What watches need to know: who may read any of `permissions` may see that `path` changed.

        `gone`: the nodes that went with `path` if it was removed, itself included; empty otherwise.
        """

        path: bytes
        permissions: tuple[Permissions, ...]
        gone: dict[bytes, Node]

    Plan = dict[bytes, Node | None]
    """New nodes by path; None: the node goes."""

else:
    Node = namedtuple("Node", ("value", "permissions", "children", "generation"))
    Change = namedtuple("Change", ("path", "permissions", "gone"))

STORE = 0
"""The owner of what no living domain owns: domain 0 is the server's user on Linux, and nobody on Xoar."""

SPECIAL = (b"@introduceDomain", b"@releaseDomain")
"""Nodes that are no part of the tree: their permissions say who may watch domains come and go."""

POPULATION = SPECIAL[1]
"""The node whose generation changes whenever a domain comes or goes: permissions depend on who lives."""

NODE_OVERHEAD = 224
"""Bytes of a node besides its strings, as MicroPython has it (record, dict entry, three headers)."""


def cost(path: bytes, node: "Node | None") -> int:
    """Bytes of memory that a node takes, or the knowledge that there is none."""
    if node is None:
        return NODE_OVERHEAD + len(path)
    return NODE_OVERHEAD + len(path) + len(node.value) + len(node.children)


class View:
    """What one can do with nodes: the same for the contents and for a transaction's view of them.

    Each method does one request of `caller` (a domid) and raises Refused if it may not or can't be done.
    The changing ones return the changes for which watches are to fire.
    """

    def __init__(self, domains: "Domains", limits: "dict[str, int]") -> None:
        self.domains = domains
        self.limits = limits

    def fetch(self, path: bytes) -> "Node | None":
        """The node, without any check."""
        raise NotImplementedError

    def _install(self, caller: int, plan: "Plan") -> None:
        raise NotImplementedError

    def get(self, caller: int, path: bytes) -> "Node":
        """The node at `path`, which `caller` must be allowed to read."""
        node = self._find(caller, path, READ_ACCESS)
        if node is None:
            raise Refused("ENOENT")
        return node

    def put(self, caller: int, path: bytes, value: bytes) -> "list[Change]":
        """Stores a value, and makes what is missing of the path."""
        node = self._find(caller, path, WRITE_ACCESS)
        if node is None:
            return self._create(caller, path, value)
        node = Node(value, node.permissions, node.children, 0)
        self._check_size(caller, path, node)
        self._install(caller, {path: node})
        return [self._changed(path, node)]

    def make(self, caller: int, path: bytes) -> "list[Change]":
        """Makes sure that `path` exists."""
        if self._find(caller, path, WRITE_ACCESS) is None:
            return self._create(caller, path, b"")
        return []

    def remove(self, caller: int, path: bytes) -> "list[Change]":
        """Removes a node and all below it; nothing happens if only the node itself is missing."""
        node = self._find(caller, path, WRITE_ACCESS)
        if node is None:
            if self.fetch(paths.parent(path)) is None:
                raise Refused("ENOENT")
            return []
        if path == b"/":
            raise Refused("EINVAL")
        return self._cut(caller, path)

    def set_permissions(self, caller: int, path: bytes, permissions: "Permissions") -> "list[Change]":
        """Replaces a node's permissions; only its owner may, and only a manager may name another owner."""
        privileged = self.domains.manages(caller, path)
        if not privileged and len(permissions) > self.limits["permissions"]:
            raise Refused("ENOSPC")
        self.fetch(POPULATION)
        permissions = self.domains.living(permissions)
        old = self._find(caller, path, WRITE_ACCESS | OWNER_ACCESS)
        if old is None:
            raise Refused("ENOENT")
        if not privileged and permissions[0][0] != old.permissions[0][0]:
            raise Refused("EPERM")
        node = Node(old.value, permissions, old.children, 0)
        self._check_size(caller, path, node)
        self._install(caller, {path: node})
        if path in SPECIAL:
            return []
        return [self._changed(path, node, old.permissions)]

    def _find(self, caller: int, path: bytes, wanted: int) -> "Node | None":
        """The node, or None if the caller may know that there is none: the next node above decides that."""
        node = self.fetch(path)
        if node is not None:
            if not self.domains.may(caller, path, node.permissions, wanted):
                raise Refused("EACCES")
            return node
        paths.check(path)
        level = path
        while node is None:
            level = paths.parent(level)
            node = self.fetch(level)
        if not self.domains.may(caller, path, node.permissions, wanted & ~OWNER_ACCESS):
            raise Refused("EACCES")
        return None

    def _create(self, caller: int, path: bytes, value: bytes) -> "list[Change]":
        """Makes a node and its missing parents; they inherit permissions, but belong to who makes them."""
        missing = [path]
        above = paths.parent(path)
        parent = self.fetch(above)
        while parent is None:
            missing.append(above)
            above = paths.parent(above)
            parent = self.fetch(above)
        permissions = parent.permissions
        if not self.domains.manages(caller, path) and permissions[0][0] != caller:
            permissions = ((caller, permissions[0][1]),) + permissions[1:]
        plan: "Plan" = {}
        names = b""
        for made in missing:
            plan[made] = Node(b"" if names else value, permissions, names, 0)
            names = paths.leaf(made) + b"\0"
        plan[above] = Node(parent.value, parent.permissions, parent.children + names, 0)
        for place in plan:
            self._check_size(caller, place, plan[place])
        self._install(caller, plan)
        return [Change(path, (permissions, (plan[paths.parent(path)] or parent).permissions), {})]

    def _cut(self, caller: int, top: bytes) -> "list[Change]":
        gone = self._below(top)
        plan: "Plan" = {path: None for path in gone}
        above = paths.parent(top)
        parent = self.fetch(above)
        if parent is None:
            raise Refused("EIO")
        names = b"\0" + parent.children
        start = names.find(b"\0" + paths.leaf(top) + b"\0")
        children = names[1 : start + 1] + names[start + len(paths.leaf(top)) + 2 :]
        plan[above] = Node(parent.value, parent.permissions, children, 0)
        self._install(caller, plan)
        return [Change(top, (gone[top].permissions, parent.permissions), gone)]

    def _below(self, top: bytes) -> "dict[bytes, Node]":
        """A node and all below it."""
        found: "dict[bytes, Node]" = {}
        waiting = [top]
        while waiting:
            path = waiting.pop()
            node = self.fetch(path)
            if node is not None:
                found[path] = node
                for name in node.children.split(b"\0")[:-1]:
                    waiting.append(paths.child(path, name))
        return found

    def _changed(self, path: bytes, node: "Node", *old: "Permissions") -> "Change":
        parent = self.fetch(paths.parent(path)) or node
        return Change(path, (node.permissions, parent.permissions) + old, {})

    def _check_size(self, caller: int, path: bytes, node: "Node | None") -> None:
        """Raises Refused(ENOSPC) if an unprivileged caller makes a node too large; xenstored's arithmetic."""
        if node is not None and caller != STORE and not self.domains.manages(caller, path):
            size = 24 + 8 * len(node.permissions) + len(node.value) + len(node.children)
            if size >= self.limits["node-size"]:
                raise Refused("ENOSPC")
