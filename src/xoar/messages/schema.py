"""Every message between shards and from the operator, declared once.

A kind has a number, a name, who may send it to whom, the right that its sender needs, the kind that answers
it and a table of bounded fields. Encoder, decoder, checks, fuzzers and docs/messages.md derive from this
table; `python -m xoar.messages.schema` prints that page. Numbers are never reused for another meaning.

Replies whose entries may not fit into one frame come in pages: the request's `start` says which entry is
the first (a domid in lists of domains, a position in other lists), and `more` in the reply says that there
is a further page, which starts after the last entry received.
"""

from xoar.messages import store
from xoar.messages.fields import Array, Blob, Choice, Fixed, Name, Number, OptionalName, Record, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_PAYLOAD = 8192
"""Bytes that may follow a frame's header."""

U8 = Number(1)
U16 = Number(2)
U32 = Number(4)
U64 = Number(8)
DIGEST = Fixed(32)
UUID = Fixed(16)
NONCE = Fixed(16)
NAME = Name(64)
COMMAND_LINE = Text(1024)
GROUP = OptionalName(32)
"""The group of guests that a guest shares driver domains with; "" is that of guests without one."""
NO_IMAGE = bytes(32)
"""The ramdisk digest of a guest that has none."""

# Xen's SHUTDOWN_* reasons (public/sched.h) by name; a domain that is gone without one has vanished
REASON = Choice("none", "poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset", "vanished")
DOMAIN_STATE = Choice("running", "blocked", "paused", "shutdown", "crashed", "dying")
GUEST_STATE = Choice("building", "running", "stopping", "rebooting", "destroying", "kept", "ended")
ON_REBOOT = Choice("restart", "destroy", "keep")
ON_CRASH = Choice("restart", "destroy", "keep")
OBJECT_KIND = Choice("shard", "guest")
DISK_MODE = Choice("w", "r")
CLAIM_STATE = Choice("claimed", "failed", "gone")
DRIVER_STATE = Choice("waiting", "building", "starting", "ready", "failed", "unassigned")
CONSOLE = Choice("console", "log", "follow")
TENANT_STATE = Choice("building", "ready", "failed")
NETWORK_MODE = Choice("bridge", "nat")
DEVICE_KIND = Choice("vif", "vbd")
PLUG_STATE = Choice("connecting", "connected", "closing", "failed")
VOLUME_ACTION = Choice("create", "clone", "grow", "delete", "import", "export")
VOLUME_FORMAT = Choice("raw", "qcow2")
BDF = U32
"""A PCI function: segment << 16 | bus << 8 | device << 3 | function."""
NO_DEVICE = 0
"""The BDF of a driver domain that has no device: that of the host bridge, which nobody is given."""

DOMAIN = Record(
    "domain",
    ("domid", U16),
    ("state", DOMAIN_STATE),
    ("reason", REASON),
    ("memory_kib", U32),
    ("max_memory_kib", U32),
    ("vcpus", U16),
    ("cpu_time_ns", U64),
    ("created_ns", U64),
    ("name", Text(64)),
    ("parent", Text(64)),  # the Toolstack that it belongs to; "": one of the boot plan's
    ("label", Text(96)),
)
BAR = Record("bar", ("address", U64), ("size", U64))
DISK = Record(
    "disk",
    ("device", NAME),  # in the guest: xvda..xvdp
    ("driver", NAME),
    ("volume", NAME),
    ("mode", DISK_MODE),
)
NIC = Record(
    "nic",
    ("network", NAME),
    ("mac", Fixed(6)),
    ("address", Text(15)),  # IPv4; the only one that the guest may use, or "" for any
    ("rate_kib", U32),  # KiB/s from the guest; 0: unlimited
)
PLUGGED_DISK = Record("plugged_disk", *DISK.fields, ("state", PLUG_STATE), ("note", Text(128)))
PLUGGED_NIC = Record(
    "plugged_nic",
    *NIC.fields,
    ("handle", U8),
    ("driver", Text(64)),
    ("state", PLUG_STATE),
    ("seen_address", Text(15)),
    ("note", Text(128)),
)
DRIVER = Record(
    "driver",
    ("name", NAME),
    ("kind", NAME),  # the shard: netback, blkback
    ("domid", U16),
    ("device", BDF),
    ("state", DRIVER_STATE),
    ("restarts", U32),
    ("age_ms", U64),
    ("note", Text(256)),
)
FORWARD = Record("forward", ("outer_port", U16), ("address", Text(15)), ("port", U16))  # TCP
NETWORK = Record(
    "network",
    ("name", NAME),
    ("driver", NAME),
    ("mode", NETWORK_MODE),
    ("vlan", U16),  # 1..4094; 0: untagged
    ("subnet", Text(18)),  # of a nat network, as 10.9.0.0/24
    ("forwards", Array(FORWARD, 16)),
    ("state", Text(128)),  # in requests empty; else "up", "failed <why>", or "" for not yet
)
VOLUME = Record(
    "volume",
    ("name", NAME),
    ("driver", NAME),
    ("size_kib", U64),
    ("used_kib", U64),
    ("origin", Text(64)),
    ("users", Text(64)),  # domids of guests, separated by commas
    ("state", Text(16)),
)
POOL = Record("pool", ("driver", NAME), ("size_kib", U64), ("used_kib", U64))
_FUNCTION = (("bdf", BDF), ("class_code", U32), ("vendor", U16), ("device", U16))
FUNCTION = Record("function", *_FUNCTION)
FOUND_DEVICE = Record("found_device", *_FUNCTION, ("driver", Text(64)))  # whose it is; "": nobody's
PERMIT = Record(
    "permit",
    ("shard", NAME),  # the name of a manifest: all of its domains
    ("security_class", NAME),  # this and the next are FLASK's names
    ("permission", NAME),
    ("on", U8),  # 1: permitted
)
ENTRY = Record(
    "entry",
    ("number", U32),  # counts from 0
    ("when_ns", U64),  # Xen's clock
    ("who", Text(64)),
    ("what", Text(128)),
    ("outcome", Text(256)),  # "done", or why it was not
)
IMAGE = Record(
    "image",
    ("digest", DIGEST),
    ("name", Text(64)),
    ("kind", Text(16)),
    ("size", U64),
    ("stored_size", U64),
)
GUEST = Record(
    "guest",
    ("name", NAME),
    ("domid", U16),
    ("state", GUEST_STATE),
    ("reason", REASON),
    ("memory_kib", U32),
    ("vcpus", U16),
    ("age_ms", U64),
    ("restarts", U32),
)
OBJECT = Record(
    "object",
    ("id", U16),
    ("name", Text(64)),
    ("kind", OBJECT_KIND),
    ("label", Text(96)),
    ("memory_kib", U32),
    ("vcpus", U16),
    ("state", Text(16)),
    ("cpu_time_ns", U64),
    ("age_ms", U64),
    ("owner", Text(64)),  # the shard that manages it; "": the first one, at boot
    ("policy", Text(32)),  # when it is rolled back, in words; "": never
    ("rollbacks", U32),
    ("rollback_age_ms", U64),  # since the last one, or the snapshot
)
ROLLBACK = Record(
    "rollback",
    ("target", NAME),
    ("life", U32),  # the number of the one that began then; 1: this is its snapshot
    ("cause", NAME),  # who asked; "timer", or "start" of the snapshot
    ("found", REASON),  # why the shard had ended; "none": it had not
    ("pages", U32),  # that it had written; of the snapshot: that are kept
    ("at_ms", U64),  # Xen's clock
    ("total_us", U32),
    ("pause_us", U32),  # the parts, in their order; all 0 of the snapshot
    ("dirty_us", U32),
    ("copy_us", U32),
    ("context_us", U32),
    ("unpause_us", U32),
)
_QUOTA = (
    ("guests", U16),
    ("memory_kib", U32),
    ("vcpus", U16),
    ("devices", U16),
    ("max_guests", U16),
    ("max_memory_kib", U32),
    ("max_vcpus", U16),
    ("max_devices", U16),
)
QUOTA = Record("quota", ("name", NAME), *_QUOTA)
TENANT = Record(
    "tenant",
    ("name", NAME),
    ("domid", U16),
    ("state", TENANT_STATE),
    *_QUOTA,
    ("age_ms", U64),
    ("restarts", U32),
    ("note", Text(256)),
)


class Kind:
    """One row of the table. `routes` are pairs (sender, receiver); replies get theirs from the requests."""

    def __init__(
        self,
        number: int,
        name: str,
        meaning: str,
        fields: "tuple[tuple[str, Any], ...]" = (),
        routes: "tuple[tuple[str, str], ...]" = (),
        right: str = "",
        reply: str = "",
    ) -> None:
        self.number = number
        self.name = name
        self.meaning = meaning
        self.record = Record(name, *fields)
        self.routes = routes
        self.right = right
        self.reply = reply


NAMED = Record("named", ("name", NAME))
DELEGATION = Record(
    "delegation",
    ("driver", NAME),
    ("tenant", NAME),
    ("networks", Array(NAMED, 8)),  # those of a NetBack that its guests may use
    ("volumes_kib", U64),  # of a BlkBack: what its volumes may have together
    ("images", Array(NAMED, 8)),  # volumes of the host that it may clone
)
# one back end of a guest's device, and where it is
_DEVICE = (("domid", U16), ("driver", NAME), ("device_kind", DEVICE_KIND), ("number", U32))
_BACK_END = (("domid", U16), ("backend", U16), ("device_kind", DEVICE_KIND), ("number", U32))

_TO_BUILDER = (("toolstack", "builder"),)
_FROM_TOOLSTACKS = _TO_BUILDER + (("tenant", "builder"),)
_INTRODUCTION = (("builder", "xenstore"), ("builder", "console"))
_TO_XENSTORE = (("builder", "xenstore"),)
_RELAY = (
    ("console", "toolstack"),
    ("toolstack", "console"),
    ("console", "tenant"),
    ("tenant", "console"),
)
_HOST_OPERATOR = (("operator", "toolstack"),)
_OPERATOR = _HOST_OPERATOR + (("operator", "tenant"),)

TABLE = (
    Kind(1, "error", "the request was refused or failed", (("errno", U16), ("text", Text(256)))),
    Kind(2, "done", "the request was carried out"),
    # Toolstack -> Builder
    Kind(
        16,
        "build",
        "makes a PVH domain from images of the library and leaves it paused; Builder introduces it",
        (
            ("uuid", UUID),
            ("kernel", DIGEST),
            ("ramdisk", DIGEST),
            ("command_line", COMMAND_LINE),
            ("memory_kib", U32),
            ("vcpus", U16),
            ("group", GROUP),
        ),
        _FROM_TOOLSTACKS,
        "build",
        "built",
    ),
    Kind(
        17,
        "built",
        "the domain stands, paused; where its XenStore and console rings are (guest frame, event channel)",
        (
            ("domid", U16),
            ("store_gfn", U64),
            ("store_port", U32),
            ("console_gfn", U64),
            ("console_port", U32),
        ),
    ),
    Kind(18, "unpause", "lets the domain run", (("domid", U16),), _FROM_TOOLSTACKS, "control", "done"),
    Kind(19, "destroy", "ends the domain at once", (("domid", U16),), _FROM_TOOLSTACKS, "control", "done"),
    Kind(
        20,
        "domains",
        "asks for the domains that Xen has, from domid `start` on",
        (("start", U16),),
        _FROM_TOOLSTACKS,
        "observe",
        "domain_list",
    ),
    Kind(
        21,
        "domain_list",
        "the host's memory and clock, and domains in ascending order; created_ns and now_ns are Xen's clock",
        (
            ("total_kib", U64),
            ("free_kib", U64),
            ("now_ns", U64),
            ("xen_version", Text(32)),
            ("more", U8),
            ("domains", Array(DOMAIN, 24)),
        ),
    ),
    Kind(
        22,
        "images",
        "asks for the image library, from position `start` on",
        (("start", U16),),
        _FROM_TOOLSTACKS,
        "observe",
        "library",
    ),
    Kind(23, "library", "images in their fixed order", (("more", U8), ("images", Array(IMAGE, 32)))),
    Kind(
        24,
        "stopped",
        "a domain shut itself down or vanished (unsolicited, id 0)",
        (("domid", U16), ("reason", REASON)),
        (("builder", "toolstack"), ("builder", "tenant"), ("builder", "xenstore"), ("builder", "console")),
        "introduce",
    ),
    Kind(
        25,
        "build_shard",
        "builds a shard of the boot plan that is built on request, paused; numbers it has no use for are 0",
        (("name", NAME),),
        _TO_BUILDER,
        "build",
        "built",
    ),
    Kind(
        26,
        "device",
        "what became of a driver domain's device (unsolicited, id 0)",
        (("driver", NAME), ("state", CLAIM_STATE), ("text", Text(256))),
        (("builder", "toolstack"),),
        "build",
    ),
    # PCIBack -> Builder
    Kind(
        27,
        "claim",
        "the device is there, reset and prepared; its memory BARs",
        (("driver", NAME), ("bdf", BDF), ("bars", Array(BAR, 6))),
        (("pciback", "builder"),),
        "claim",
        "done",
    ),
    Kind(
        28,
        "fault",
        "the device can't be handed out, or is gone",
        (("driver", NAME), ("text", Text(256))),
        (("pciback", "builder"),),
        "claim",
        "done",
    ),
    Kind(
        29,
        "quotas",
        "asks for the quotas of tenants' Toolstacks, from position `start` on",
        (("start", U16),),
        _TO_BUILDER,
        "observe",
        "quota_list",
    ),
    Kind(
        30,
        "quota_list",
        "what the guests of each may have together, and what they have, in the order of the boot plan",
        (("more", U8), ("quotas", Array(QUOTA, 32))),
    ),
    Kind(
        31,
        "plug",
        "links a guest to a driver domain: XenStore makes the node of one back end, which is the Toolstack's",
        _DEVICE,
        _FROM_TOOLSTACKS,
        "link",
        "done",
    ),
    Kind(
        34,
        "unplug",
        "takes that node away, with all below it",
        _DEVICE,
        _FROM_TOOLSTACKS,
        "link",
        "done",
    ),
    Kind(
        107,
        "allow_delegation",
        "lets the guests of a tenant's Toolstack have devices of a driver domain",
        (("driver", NAME), ("toolstack", NAME)),
        _TO_BUILDER,
        "delegate",
        "done",
    ),
    Kind(
        108,
        "withdraw_delegation",
        "lets them have no further ones",
        (("driver", NAME), ("toolstack", NAME)),
        _TO_BUILDER,
        "delegate",
        "done",
    ),
    # Builder -> XenStore and Console
    Kind(
        35,
        "make_back_end",
        "makes the node of a back end of a domain's device, for the domain's parent",
        _BACK_END,
        _TO_XENSTORE,
        "introduce",
        "done",
    ),
    Kind(
        106,
        "remove_back_end",
        "removes that node, if it is there",
        _BACK_END,
        _TO_XENSTORE,
        "introduce",
        "done",
    ),
    Kind(
        32,
        "introduce",
        "a new domain's link: the grant reference to map and the port to bind to; whose domain it is",
        (
            ("domid", U16),
            ("link", NAME),
            ("name", Text(64)),  # of a shard
            ("parent", U16),
            ("uuid", UUID),  # of a guest; else zeros
            ("gref", U32),
            ("port", U32),
        ),
        _INTRODUCTION,
        "introduce",
        "done",
    ),
    Kind(
        33,
        "release",
        "a domain is being destroyed: unmap its ring, close its port",
        (("domid", U16),),
        _INTRODUCTION,
        "introduce",
        "done",
    ),
    # Toolstack -> Builder: what operators change about rights
    Kind(
        36,
        "permits",
        "asks for the optional rights, from position `start` on",
        (("start", U16),),
        _TO_BUILDER,
        "observe",
        "permit_list",
    ),
    Kind(
        37,
        "permit_list",
        "the rights that manifests state as optional, in the order of the boot plan",
        (("more", U8), ("permits", Array(PERMIT, 32))),
    ),
    Kind(
        38,
        "permit_hypercall",
        "permits an optional right to all domains of a manifest (on is 1), or withdraws it (0)",
        PERMIT.fields,
        _TO_BUILDER,
        "permit",
        "done",
    ),
    Kind(
        39,
        "journal",
        "asks for the journal of such changes, from entry number `start` on",
        (("start", U32),),
        _TO_BUILDER,
        "observe",
        "journal_page",
    ),
    Kind(
        40,
        "journal_page",
        "entries, the oldest first; `dropped` are the oldest ones that are not kept any more",
        (("more", U8), ("dropped", U32), ("now_ns", U64), ("entries", Array(ENTRY, 16))),
    ),
    Kind(
        41,
        "found",
        "the host's devices, from position `start` of PCIBack's list on; all are told of each time",
        (("start", U16), ("more", U8), ("devices", Array(FUNCTION, 64))),
        (("pciback", "builder"),),
        "claim",
        "done",
    ),
    Kind(
        42,
        "surveyed",
        "PCIBack has told of the host's devices (unsolicited, id 0)",
        (),
        (("builder", "toolstack"),),
        "build",
    ),
    Kind(
        43,
        "assign_pci_device",
        "makes a device that is nobody's a driver domain's, which is built then as at boot",
        (("driver", NAME), ("bdf", BDF)),
        _TO_BUILDER,
        "assign",
        "done",
    ),
    Kind(
        44,
        "withdraw_pci_device",
        "makes the device of a driver domain that is gone nobody's",
        (("driver", NAME),),
        _TO_BUILDER,
        "assign",
        "done",
    ),
    Kind(
        45,
        "devices",
        "asks for the devices that PCIBack has found, from position `start` on",
        (("start", U16),),
        _TO_BUILDER,
        "observe",
        "device_list",
    ),
    Kind(
        46,
        "device_list",
        "devices in ascending order",
        (("more", U8), ("devices", Array(FOUND_DEVICE, 64))),
    ),
    # Console <-> Toolstack
    Kind(
        48,
        "relay",
        "a piece of one operator's byte stream; a new channel number opens a new stream",
        (("channel", U32), ("data", Blob(4096))),
        _RELAY,
        "relay",
    ),
    Kind(49, "hangup", "the operator's stream has ended", (("channel", U32),), _RELAY, "relay"),
    Kind(
        50,
        "attach",
        "the stream becomes the console, or a reader of the log, of a guest of this Toolstack",
        (("channel", U32), ("domid", U16), ("what", CONSOLE)),
        (("toolstack", "console"), ("tenant", "console")),
        "relay",
    ),
    # Restorer -> Toolstack
    Kind(
        52,
        "rolled_back",
        "a shard was rolled back, or its snapshot was taken; Restorer takes no answer",
        ROLLBACK.fields,
        (("restorer", "toolstack"),),
        "report",
    ),
    # Operator -> Toolstack, inside relay
    Kind(
        64,
        "guest_create",
        "builds and starts a guest; the uuid must be new",
        (
            ("name", NAME),
            ("uuid", UUID),
            ("kernel", DIGEST),
            ("ramdisk", DIGEST),
            ("command_line", COMMAND_LINE),
            ("memory_kib", U32),
            ("vcpus", U16),
            ("on_reboot", ON_REBOOT),
            ("on_crash", ON_CRASH),
            ("group", GROUP),
            ("disks", Array(DISK, 8)),
            ("nics", Array(NIC, 8)),
        ),
        _OPERATOR,
        "operate",
        "started",
    ),
    Kind(65, "started", "the guest runs as this domain", (("domid", U16),)),
    Kind(
        66,
        "guest_list",
        "asks for the guests, from position `start` on",
        (("start", U16),),
        _OPERATOR,
        "observe",
        "guests",
    ),
    Kind(67, "guests", "guests in the order of their creation", (("more", U8), ("guests", Array(GUEST, 64)))),
    Kind(
        68,
        "guest_show",
        "asks for one guest; also for one that ended lately",
        (("name", NAME),),
        _OPERATOR,
        "observe",
        "guest",
    ),
    Kind(
        69,
        "guest",
        "one guest; previous_domid is the domain that it was before its last restart (0: none)",
        (
            ("name", NAME),
            ("uuid", UUID),
            ("domid", U16),
            ("previous_domid", U16),
            ("state", GUEST_STATE),
            ("reason", REASON),
            ("kernel", DIGEST),
            ("ramdisk", DIGEST),
            ("command_line", COMMAND_LINE),
            ("memory_kib", U32),
            ("vcpus", U16),
            ("on_reboot", ON_REBOOT),
            ("on_crash", ON_CRASH),
            ("group", GROUP),
            ("age_ms", U64),
            ("restarts", U32),
            ("note", Text(256)),
            ("disks", Array(PLUGGED_DISK, 8)),
            ("nics", Array(PLUGGED_NIC, 8)),
        ),
    ),
    Kind(
        70,
        "guest_shutdown",
        "asks the guest to power off; answered when it is gone, or with an error after timeout_ms",
        (("name", NAME), ("timeout_ms", U32)),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        71,
        "guest_reboot",
        "asks the guest to reboot; answered when it runs again, or with an error after timeout_ms",
        (("name", NAME), ("timeout_ms", U32)),
        _OPERATOR,
        "operate",
        "started",
    ),
    Kind(
        72,
        "guest_destroy",
        "ends the guest at once; answered when it is gone",
        (("name", NAME),),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        73,
        "ps",
        "asks for all domains, shards and guests, from domid `start` on",
        (("start", U16),),
        _OPERATOR,
        "observe",
        "objects",
    ),
    Kind(74, "objects", "domains in ascending order", (("more", U8), ("objects", Array(OBJECT, 24)))),
    Kind(
        75,
        "image_list",
        "asks for the image library, from position `start` on",
        (("start", U16),),
        _OPERATOR,
        "observe",
        "library",
    ),
    Kind(76, "host_info", "asks for the host's memory and clock", (), _OPERATOR, "observe", "host"),
    Kind(
        77,
        "host",
        "the host's memory, Xen's release, time since Xen's boot, number of domains",
        (
            ("total_kib", U64),
            ("free_kib", U64),
            ("xen_version", Text(32)),
            ("uptime_ms", U64),
            ("domains", U16),
        ),
    ),
    Kind(
        78,
        "disk_attach",
        "plugs a disk into a running guest; answered when the guest's driver has it, or with an error",
        (("guest", NAME), ("disk", DISK), ("timeout_ms", U32)),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        79,
        "disk_detach",
        "unplugs a disk; answered when the guest has let go of it, or with an error",
        (("guest", NAME), ("device", NAME), ("timeout_ms", U32)),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        80,
        "nic_attach",
        "plugs a network interface into a running guest; answered as disk_attach",
        (("guest", NAME), ("nic", NIC), ("timeout_ms", U32)),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        81,
        "nic_detach",
        "unplugs a network interface; answered as disk_detach",
        (("guest", NAME), ("handle", U8), ("timeout_ms", U32)),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        82, "driver_list", "asks for the driver domains", (("start", U16),), _OPERATOR, "observe", "drivers"
    ),
    Kind(
        83,
        "drivers",
        "driver domains in the order of their domids",
        (("more", U8), ("drivers", Array(DRIVER, 16))),
    ),
    Kind(
        84,
        "driver_restart",
        "ends a driver domain and builds it anew; answered when it serves, or with an error",
        (("name", NAME), ("timeout_ms", U32)),
        _HOST_OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        85, "network_create", "declares a network", (("network", NETWORK),), _HOST_OPERATOR, "operate", "done"
    ),
    Kind(
        86,
        "network_delete",
        "removes a network that no guest uses",
        (("name", NAME),),
        _HOST_OPERATOR,
        "operate",
        "done",
    ),
    Kind(87, "network_list", "asks for the networks", (("start", U16),), _OPERATOR, "observe", "networks"),
    Kind(
        88,
        "networks",
        "networks in the order of their creation",
        (("more", U8), ("networks", Array(NETWORK, 8))),
    ),
    Kind(89, "volume_list", "asks for the volumes", (("start", U16),), _OPERATOR, "observe", "volumes"),
    Kind(
        90,
        "volumes",
        "volumes by driver domain and name, and the pools that hold them",
        (("more", U8), ("volumes", Array(VOLUME, 16)), ("pools", Array(POOL, 8))),
    ),
    Kind(
        91,
        "volume_change",
        "changes volumes (docs/devices.md, requests to BlkBack); what an action has no use for is empty",
        (
            ("driver", NAME),
            ("action", VOLUME_ACTION),
            ("name", NAME),
            ("source", Text(64)),
            ("size_kib", U64),
            ("offset", U64),
            ("length", U64),
            ("format", VOLUME_FORMAT),
            ("sha256", DIGEST),
        ),
        _OPERATOR,
        "operate",
        "volume_changed",
    ),
    Kind(
        92,
        "volume_changed",
        "it was done; of an export: how many bytes were written, and their SHA-256",
        (("length", U64), ("sha256", DIGEST)),
    ),
    Kind(
        93,
        "volume_progress",
        "asks how far a driver domain's current import or export is",
        (("driver", NAME),),
        _OPERATOR,
        "observe",
        "progress",
    ),
    Kind(94, "progress", "0 to 100", (("percent", U8),)),
    Kind(95, "tenant_list", "asks for the tenants", (("start", U16),), _HOST_OPERATOR, "observe", "tenants"),
    Kind(
        96,
        "tenants",
        "tenants in the order of the host's configuration",
        (("more", U8), ("tenants", Array(TENANT, 16))),
    ),
    Kind(
        109,
        "delegate",
        "delegates a driver domain to a tenant, or delegates it with other words",
        DELEGATION.fields,
        _HOST_OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        110,
        "withdraw",
        "takes a delegation back",
        (("driver", NAME), ("tenant", NAME)),
        _HOST_OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        111,
        "delegation_list",
        "asks for the delegations",
        (("start", U16),),
        _HOST_OPERATOR,
        "observe",
        "delegations",
    ),
    Kind(
        144,
        "delegations",
        "delegations in the order in which they were made",
        (("more", U8), ("delegations", Array(DELEGATION, 6))),
    ),
    Kind(
        99,
        "guest_console",
        "after the answer the stream is that guest's console, or what its console showed",
        (("name", NAME), ("what", CONSOLE)),
        _OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        100,
        "permit_show",
        "asks for the optional rights, from position `start` on",
        (("start", U16),),
        _HOST_OPERATOR,
        "observe",
        "permit_list",
    ),
    Kind(101, "permit_change", "as permit_hypercall", PERMIT.fields, _HOST_OPERATOR, "operate", "done"),
    Kind(
        102,
        "journal_show",
        "asks for the journal of changed rights, from entry number `start` on",
        (("start", U32),),
        _HOST_OPERATOR,
        "observe",
        "journal_page",
    ),
    Kind(
        103,
        "driver_assign",
        "gives a driver domain a device and starts it; answered when it serves, or with an error",
        (("name", NAME), ("bdf", BDF), ("timeout_ms", U32)),
        _HOST_OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        104,
        "driver_withdraw",
        "ends a driver domain and takes its device back",
        (("name", NAME), ("timeout_ms", U32)),
        _HOST_OPERATOR,
        "operate",
        "done",
    ),
    Kind(
        105,
        "device_show",
        "asks for the host's devices, from position `start` on",
        (("start", U16),),
        _HOST_OPERATOR,
        "observe",
        "device_list",
    ),
    Kind(
        145,
        "shard_reboot",
        "rolls a shard back to its snapshot; answered when it was, or with an error after timeout_ms",
        (("name", NAME), ("timeout_ms", U32)),
        _HOST_OPERATOR,
        "operate",
        "rolled",
    ),
    Kind(146, "rolled", "the shard was rolled back", (("rollback", ROLLBACK),)),
    Kind(
        147,
        "rollback_list",
        "asks for what is known of rollbacks, from position `start` on (since the host's start)",
        (("start", U32),),
        _HOST_OPERATOR,
        "observe",
        "rollbacks",
    ),
    Kind(
        148,
        "rollbacks",
        "rollbacks, the oldest that is kept first; `next` is the position after the last one here",
        (("more", U8), ("next", U32), ("now_ms", U64), ("records", Array(ROLLBACK, 32))),
    ),
    # Operator -> a tenant's Toolstack, before all else; the rest of the stream is sealed (seal.py)
    Kind(
        97,
        "greet",
        "begins a stream of a tenant's operator: a random number",
        (("nonce", NONCE),),
        (("operator", "tenant"),),
        "operate",
        "challenge",
    ),
    Kind(98, "challenge", "the other random number of the stream", (("nonce", NONCE),)),
) + tuple([Kind(*row) for row in store.ROWS])


def function_name(bdf: int) -> str:
    """A PCI function as people write it, 0000:03:00.0."""
    return "%04x:%02x:%02x.%d" % (bdf >> 16, bdf >> 8 & 0xFF, bdf >> 3 & 0x1F, bdf & 7)


BY_NAME = {kind.name: kind for kind in TABLE}
BY_NUMBER = {kind.number: kind for kind in TABLE}


def _route_replies() -> None:
    for request in TABLE:
        if request.reply:
            back = tuple([(receiver, sender) for sender, receiver in request.routes])
            for name in (request.reply, "error"):
                reply = BY_NAME[name]
                reply.routes += tuple([route for route in back if route not in reply.routes])


_route_replies()


def accepted(sender: str, receiver: str) -> "frozenset[str]":
    """The names of the kinds that `receiver` may be sent by `sender`."""
    return frozenset([kind.name for kind in TABLE if (sender, receiver) in kind.routes])


if __name__ == "__main__":
    from xoar.messages.document import markdown

    print(markdown())
