"""What a Toolstack keeps for its next life (xoar.toolstack.memory): rows of xoar.messages.schema's table.

Nobody sends these. Who had taken over the last life may have written them, so they are read like a message
from a stranger: by this table, and then by whoever knows what they mean. The frame's id is the record's
number, which it keeps for as long as what it is about is known. Those of tenants' Toolstacks, guests with
their devices, fit into a node of XenStore's (2 KiB) each.
"""

from xoar.messages.fields import Blob, Text
from xoar.messages.kind import Kind
from xoar.messages.records import (
    BDF,
    DELEGATION,
    DISK,
    DRIVER_STATE,
    GUEST_CONFIG,
    GUEST_STATE,
    NAME,
    NETWORK,
    NIC,
    REASON,
    TENANT_STATE,
    U8,
    U16,
    U32,
    U64,
    UUID,
)

PATH = Text(256)
NODE_VALUE = Blob(4096)
_DEVICE = (
    ("guest", UUID),
    ("driver_domid", U16),
    ("plugged", U8),  # its nodes are in XenStore
    ("lost", U8),  # its driver domain has ended
    ("closing", U8),  # it is to be unplugged
)

KEPT = (
    Kind(
        184,
        "kept_guest",
        "a guest, also one that has ended",
        GUEST_CONFIG.fields
        + (
            ("domid", U16),
            ("previous_domid", U16),
            ("state", GUEST_STATE),
            ("settled", U8),  # nothing is on its way
            ("rebuild", U8),  # it is to run again
            ("reason", REASON),
            ("note", Text(256)),
            ("started_ms", U64),  # Xen's clock
            ("restarts", U32),
            ("quick_ends", U8),
            ("resting", Blob(16)),  # handles of interfaces that went lately
        ),
    ),
    Kind(185, "kept_disk", "a guest's disk", _DEVICE + DISK.fields),
    Kind(
        186,
        "kept_nic",
        "a guest's network interface",
        _DEVICE + (("driver", NAME), ("handle", U8)) + NIC.fields,
    ),
    Kind(
        187,
        "kept_driver",
        "a driver domain",
        (
            ("name", NAME),
            ("device", BDF),
            ("state", DRIVER_STATE),
            ("settled", U8),
            ("note", Text(256)),
            ("restarts", U32),
            ("since_ms", U64),
            ("up", U8),
            ("recorded", U8),
        ),
    ),
    Kind(188, "kept_network", "a network", NETWORK.fields),
    Kind(
        189,
        "kept_tenant",
        "a tenant's Toolstack",
        (
            ("name", NAME),
            ("state", TENANT_STATE),
            ("note", Text(256)),
            ("restarts", U32),
            ("quick_ends", U8),
            ("since_ms", U64),
        ),
    ),
    Kind(190, "kept_delegation", "a delegation", DELEGATION.fields),
    Kind(
        191, "kept_rollbacks", "rollbacks that Restorer told of, one after the other", (("rows", Blob(4096)),)
    ),
    Kind(
        192,
        "kept_counts",
        "rollbacks that are not kept any more, the last request to a driver domain",
        (("first", U32), ("last_change", U32)),
    ),
    Kind(
        193,
        "kept_watch",
        "a watch that XenStore has, and since when all below it was asked for (Xen's clock)",
        (("path", PATH), ("since_ms", U64)),
    ),
    Kind(
        194,
        "kept_node",
        "what XenStore said of a node below a watch; of a path that ends in /, the names of its children",
        (("path", PATH), ("there", U8), ("value", NODE_VALUE)),
    ),
)
