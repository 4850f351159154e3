"""Which domains there are, what they own, and what each may do with a node. A part of the state.

`Domains.manages` and `Domains.may` are the only places that decide about access.
"""

from xoar.xenstore.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    Permissions = tuple[tuple[int, int], ...]
    """(domid, access bits): the first names the owner and what all others may do, the rest exceptions."""

# Access to a node, as bits. OWNER is never written in a permission: the first one names the owner.
READ_ACCESS = 1
WRITE_ACCESS = 2
OWNER_ACCESS = 4
_FULL = READ_ACCESS | WRITE_ACCESS | OWNER_ACCESS

_BACKEND_SHARE = 16


class Account:
    """What a domain owns."""

    def __init__(self) -> None:
        self.nodes = 0
        self.memory = 0


class Domains:
    """Domains by domid. `managers` may do everything; a domain with a target may do all that it may.
    `backends` serve devices of guests, and have higher quotas for that. A domain may have a parent, a
    Toolstack that owns its records: each child raises the parent's quotas, and those records outlive it.

    A domain exists from `add` to `remove`. With `any_exists` (a server without Xen under it) every domid
    is taken to exist.
    """

    def __init__(
        self, managers: "set[int]", any_exists: bool = False, backends: "frozenset[int]" = frozenset()
    ) -> None:
        self.managers = managers
        self._backends = backends
        self.accounts: "dict[int, Account]" = {0: Account()}
        self._targets: "dict[int, int]" = {}
        self._parents: "dict[int, int]" = {}
        self._any_exists = any_exists

    def add(self, domid: int) -> None:
        """A domain exists; nothing happens if it is known already."""
        if domid not in self.accounts:
            self.accounts[domid] = Account()

    def remove(self, domid: int) -> None:
        """A domain (not 0) is gone, and with it all that it was allowed, or others were on its behalf."""
        self.accounts.pop(domid, None)
        self.managers.discard(domid)
        self._targets.pop(domid, None)
        self._parents.pop(domid, None)
        for claimant in [key for key in self._targets if self._targets[key] == domid]:
            del self._targets[claimant]

    def share(self, domid: int) -> int:
        """How many domains' quotas (of what grows with the number of devices) a domain has."""
        return _BACKEND_SHARE if domid in self._backends else 1 + self.children(domid)

    def children(self, domid: int) -> int:
        """How many existing domains have it as their parent."""
        return len([parent for parent in self._parents.values() if parent == domid])

    def parent(self, domid: int) -> int:
        """The parent of a domain, 0 if it has none."""
        return self._parents.get(domid, 0)

    def set_parent(self, domid: int, parent: int) -> None:
        """Makes a domain the child of another one; 0: of none."""
        if parent:
            self._parents[domid] = parent

    def exists(self, domid: int) -> bool:
        """Whether permissions that name this domain mean anything."""
        return domid in self.accounts or self._any_exists

    def set_target(self, domid: int, target: int) -> None:
        """Lets `domid` (a device model) do what `target` (its guest) may do."""
        self._targets[domid] = target

    def account(self, domid: int) -> Account:
        """The account of a domain that exists."""
        self.add(domid)
        return self.accounts[domid]

    def manages(self, domid: int, path: bytes = b"/") -> bool:
        """Whether a domain has a manager's rights at `path` and below: all access, no quotas."""
        return domid in self.managers

    def may(self, caller: int, path: bytes, permissions: "Permissions", rights: int) -> bool:
        """Whether `caller` has all these rights (access bits) at the node `path`, which has these permissions
        (or would, being missing: then they are those of the next node above)."""
        if self.manages(caller, path):
            return True
        return self._granted(caller, permissions) & rights == rights

    def _granted(self, caller: int, permissions: "Permissions") -> int:
        """What permissions give to `caller`, as bits."""
        target = self._targets.get(caller, caller)
        owner, others = permissions[0]
        if owner in (caller, target):
            return _FULL
        for index in range(1, len(permissions)):
            domid, access = permissions[index]
            if domid in (caller, target):
                return access
        return others

    def living(self, permissions: "Permissions") -> "Permissions":
        """The permissions without those that name no existing domain; Refused(ENOENT) if the first does."""
        if not self.exists(permissions[0][0]):
            raise Refused("ENOENT")
        return permissions[:1] + tuple([entry for entry in permissions[1:] if self.exists(entry[0])])
