"""What Builder keeps for its next life: rows of xoar.messages.schema's table. Nobody sends these.

They lie in its recovery box (xoar.xen.box). Who had taken over the last life may have written them,
so they are read like messages from a stranger: by this table, and then by whoever knows what they mean.
"""

from xoar.messages.fields import Array, Choice, Record, Text
from xoar.messages.kind import Kind
from xoar.messages.records import (
    BAR,
    BDF,
    DEVICE_KIND,
    ENTRY,
    FUNCTION,
    GROUP,
    NAME,
    PERMIT,
    U8,
    U16,
    U32,
    U64,
    UUID,
)

STAGE = Choice("building", "there", "dying")
_DOMID = Record("domid", ("domid", U16))
_DEVICE = Record("device_function", ("bdf", BDF))

REMEMBERED = (
    Kind(
        170,
        "remember_domain",
        "a domain that was not built at boot",
        (
            ("domid", U16),
            ("name", Text(64)),  # a shard's; guests have none
            ("created", U64),
            ("parent", NAME),
            ("uuid", UUID),
            ("memory_kib", U32),
            ("vcpus", U16),
            ("group", GROUP),
            ("stage", STAGE),
            ("started", U8),
            ("reported", U8),  # its end
            ("port", U32),  # of its link to Builder; 0: it has none
        ),
    ),
    Kind(171, "remember_domid", "where the search for the next free domid begins", (("domid", U16),)),
    Kind(172, "remember_ends", "shards built at boot that have ended", (("domids", Array(_DOMID, 32)),)),
    Kind(
        173,
        "remember_device",
        "whose a device is, and the memory that was claimed and that was given",
        (
            ("driver", NAME),
            ("bdf", BDF),
            ("is_claimed", U8),
            ("claimed", Array(BAR, 6)),
            ("is_given", U8),
            ("given", Array(BAR, 6)),
        ),
    ),
    Kind(174, "remember_found", "devices that PCIBack has found", (("devices", Array(FUNCTION, 64)),)),
    Kind(175, "remember_withdrawn", "devices that were withdrawn", (("bdfs", Array(_DEVICE, 64)),)),
    Kind(176, "remember_delegation", "a delegation", (("driver", NAME), ("toolstack", NAME))),
    Kind(
        177,
        "remember_link",
        "a guest's device",
        (
            ("domid", U16),
            ("driver", NAME),
            ("device_kind", DEVICE_KIND),
            ("number", U32),
            ("toolstack", NAME),
            ("group", GROUP),
        ),
    ),
    Kind(178, "remember_permit", "an optional right that is on", PERMIT.fields),
    Kind(179, "remember_entry", "an entry of the journal", ENTRY.fields),
)
