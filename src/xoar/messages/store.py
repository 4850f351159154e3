"""Messages between XenStore's permanent part ("xenstore": state and gate) and its Logic, as rows of
xoar.messages.schema's table.

The number of a frame is that of the request that it is about. `store_request` hands a request to Logic;
Logic asks for one operation, and ends with `store_answer` or `store_refusal`. Who sent the request, and in
which transaction it is, is nothing that Logic says (xoar.xenstore.gate).
"""

from xoar.messages.fields import Array, Blob, Choice, Number, Record, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Fields = tuple[tuple[str, Any], ...]

_U8, _U16, _U32, _U64 = Number(1), Number(2), Number(4), Number(8)

PATH = Blob(2068)
"""XENSTORE_REL_PATH_MAX behind /local/domain/<domid>/ (xoar.xenstore.paths.ABSOLUTE_MAX)."""
PAYLOAD = Blob(4096)
"""XENSTORE_PAYLOAD_MAX."""
ACCESS = Record("access", ("domid", _U16), ("bits", _U8))  # 1: read, 2: write
PERMISSIONS = Array(ACCESS, 1365)  # no more fit into a request: "n0" and a nul each
LIMIT = Record("limit", ("name", Text(32)), ("value", _U32))
REFUSAL = Choice(
    "EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO", "ENOTEMPTY", "ENOSYS",
    "EROFS", "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM",
)  # fmt: skip
"""io/xs_wire.h, xsd_errors."""
TRANSACTION = Choice("none", "open", "unknown")

_TO_LOGIC = (("xenstore", "logic"),)
_TO_STATE = (("logic", "xenstore"),)


def _operation(
    number: int, name: str, meaning: str, fields: "Fields" = (), reply: str = "done"
) -> "tuple[Any, ...]":
    return number, name, meaning, fields, _TO_STATE, "serve", reply


ROWS: "tuple[tuple[Any, ...], ...]" = (
    (
        112,
        "store_request",
        "a client's request; transaction: whether it names one, and the client has it open",
        (
            ("domid", _U16),
            ("manager", _U8),
            ("transaction", TRANSACTION),
            ("type", _U32),  # XS_*
            ("payload", PAYLOAD),
        ),
        _TO_LOGIC,
        "serve",
        "store_answer",
    ),
    (113, "store_answer", "the reply's payload", (("payload", PAYLOAD),)),
    (
        114,
        "store_refusal",
        "the operation, or the client's request, is refused with this error of XenStore's",
        (("name", REFUSAL),),
        _TO_LOGIC + _TO_STATE,
    ),
    _operation(115, "store_read", "reads a node", (("path", PATH),), "store_value"),
    (116, "store_value", "the node's value", (("value", PAYLOAD),)),
    _operation(
        117,
        "store_list",
        "lists a node's children, from byte `start` of their list on",
        (("path", PATH), ("start", _U32)),
        "store_names",
    ),
    (
        118,
        "store_names",
        "the node's generation, bytes of the whole list, and a page of it: names, each with a nul",
        (("generation", _U64), ("size", _U32), ("names", PAYLOAD)),
    ),
    _operation(119, "store_get_permissions", "reads permissions", (("path", PATH),), "store_permissions"),
    (120, "store_permissions", "the first names the owner", (("permissions", PERMISSIONS),)),
    _operation(121, "store_put", "stores a value", (("path", PATH), ("value", PAYLOAD))),
    _operation(122, "store_make", "makes sure that a node exists", (("path", PATH),)),
    _operation(123, "store_remove", "removes a node and all below it", (("path", PATH),)),
    _operation(
        124,
        "store_set_permissions",
        "replaces permissions",
        (("path", PATH), ("permissions", PERMISSIONS)),
    ),
    _operation(125, "store_begin", "opens a transaction", (), "store_transaction"),
    (126, "store_transaction", "the transaction's number", (("number", _U32),)),
    _operation(127, "store_end", "ends the request's transaction: commit 1, or 0", (("commit", _U8),)),
    _operation(
        128,
        "store_watch",
        "registers a watch; depth 0xffffffff: any; relative 1: events name paths below the client's home",
        (("path", PATH), ("token", PAYLOAD), ("depth", _U32), ("relative", _U8)),
    ),
    _operation(129, "store_unwatch", "removes a watch", (("path", PATH), ("token", PAYLOAD))),
    _operation(130, "store_forget", "drops the client's watches and transactions"),
    _operation(131, "store_introduce", "makes a domain known", (("domid", _U16), ("port", _U32))),
    _operation(132, "store_release", "a domain is gone", (("domid", _U16),)),
    _operation(133, "store_resume", "a domain that stopped runs again", (("domid", _U16),)),
    _operation(
        134,
        "store_set_target",
        "a device model may do what its guest may",
        (("domid", _U16), ("target", _U16)),
    ),
    _operation(
        135, "store_is_introduced", "whether a domain is known", (("domid", _U16),), "store_introduced"
    ),
    (136, "store_introduced", "1 or 0", (("introduced", _U8),)),
    _operation(137, "store_limits", "asks for all quotas", (), "store_limit_list"),
    (138, "store_limit_list", "quotas by name", (("limits", Array(LIMIT, 32)),)),
    _operation(139, "store_set_limit", "changes a quota", (("name", Text(32)), ("value", _U32))),
    _operation(140, "store_usage", "asks what a domain owns", (("domid", _U16),), "store_account"),
    (
        141,
        "store_account",
        "nodes, their bytes; with a ring (1 or 0), its watches and open transactions",
        (
            ("nodes", _U32),
            ("memory", _U32),
            ("connected", _U8),
            ("watches", _U32),
            ("transactions", _U32),
        ),
    ),
    _operation(142, "store_check", "logs what is inconsistent"),
    _operation(143, "store_log", "logs a line of the client's", (("text", Text(4096)),)),
)
"""(number, name, meaning, fields, routes, right, reply) of each kind; what is left out is empty."""
