"""The fields and records that messages are made of."""

from xoar.messages.fields import Array, Choice, Fixed, Name, Number, OptionalName, Record, Text

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
GUEST_CONFIG = Record(
    "guest_config",
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
NAMED = Record("named", ("name", NAME))
DELEGATION = Record(
    "delegation",
    ("driver", NAME),
    ("tenant", NAME),
    ("networks", Array(NAMED, 8)),  # those of a NetBack that its guests may use
    ("volumes_kib", U64),  # of a BlkBack: what its volumes may have together
    ("images", Array(NAMED, 8)),  # volumes of the host that it may clone
)


def function_name(bdf: int) -> str:
    """A PCI function as people write it, 0000:03:00.0."""
    return "%04x:%02x:%02x.%d" % (bdf >> 16, bdf >> 8 & 0xFF, bdf >> 3 & 0x1F, bdf & 7)
