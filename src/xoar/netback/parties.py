"""Whom NetBack serves, and which networks each may use: the host, and the tenants that it is delegated to."""

from typing import NamedTuple

from xoar.xenstore import tenants
from xoar.xenstore.linux import Connection

NOBODY = "this driver domain is not delegated to the Toolstack of the guest"


class Party(NamedTuple):
    """`tenant`: its name; `base`: what its nodes begin with; both are empty for the host. `networks`:
    those that its guests may use, None: all."""

    tenant: str = ""
    base: str = ""
    networks: frozenset[str] | None = None

    def may_use(self, network: str) -> bool:
        """Whether its guests may be plugged into a network, and it may hear of it."""
        return self.networks is None or network in self.networks


HOST = Party()


def tenant(store: Connection, domid: int) -> Party | None:
    """The tenant whose Toolstack that is; None if it has no nodes here, or they are not whole."""
    name, base = tenants.name(store, domid), tenants.base(domid)
    if not name:
        return None
    return Party(name, f"{base}/", frozenset(tenants.children(store, f"{base}/networks")))
