"""Tenants that a driver domain is delegated to, as its agent finds them in XenStore (docs/devices.md).

A tenant's Toolstack is not trusted, and what it may write to it may also hide from others: so whatever is
refused reads as nothing, and nothing is read that needs more than one reply.
"""

from xoar.xenstore import wire
from xoar.xenstore.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xenstore.client import Client

TENANTS = "tenants"
"""Below it a node for each tenant, named by the domid of its Toolstack."""

SERVICE = "service"
"""What the agent says to the host; made by the host's Toolstack, which owns it."""

_NAME = "abcdefghijklmnopqrstuvwxyz0123456789-"
_NAME_MAX = 16
_DOMID_MAX = 0x7FEF  # DOMID_FIRST_RESERVED - 1


def base(domid: int) -> str:
    """What a tenant's nodes are below."""
    return "%s/%d" % (TENANTS, domid)


def number(untrusted_word: str, highest: int) -> "int | None":
    """A decimal number without leading zeros from 0 to `highest`, None if it is none."""
    if not 1 <= len(untrusted_word) <= len(str(highest)) or untrusted_word.strip("0123456789"):
        return None
    value = int(untrusted_word)
    return value if str(value) == untrusted_word and value <= highest else None


def domid_of(untrusted_node: str) -> "int | None":
    """The domid that a node is named by, None if it is none."""
    return number(untrusted_node, _DOMID_MAX)


def value(store: "Client", path: str) -> "str | None":
    """A value; None if there is no such node, "" if it is not ASCII or may not be read."""
    try:
        return str(store.read(path), "ascii")
    except Refused as error:
        return None if error.name == "ENOENT" else ""
    except UnicodeError:
        return ""


def text(store: "Client", path: str) -> str:
    """A value; "" if there is none, it is not ASCII, or it may not be read."""
    return value(store, path) or ""


def children(store: "Client", path: str) -> "list[str]":
    """The names of a node's children, sorted; none if it may not be read, or has more than a reply holds."""
    try:
        names = wire.strings(store.call(wire.DIRECTORY, path.encode() + b"\0"))
    except Refused:
        return []
    return sorted([str(name, "ascii") for name in names])


def owner(store: "Client", path: str) -> "int | None":
    """The domain that owns a node; None if there is no such node, or it may not be looked at."""
    try:
        permissions = store.get_perms(path)
    except Refused:
        return None
    return domid_of(permissions[0][1:]) if permissions else None


def name(store: "Client", domid: int) -> str:
    """The name of the tenant whose Toolstack that is; "" if there is none, or its nodes are not whole yet."""
    found = text(store, base(domid) + "/name")
    return found if len(found) <= _NAME_MAX and not found.strip(_NAME) else ""


def found(store: "Client") -> "list[int]":
    """The domids of all that have nodes, whole or not."""
    domids = [domid_of(node) for node in children(store, TENANTS)]
    return [domid for domid in domids if domid is not None]
