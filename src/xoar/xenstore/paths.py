"""Rules for paths (docs/misc/xenstore.txt): bytes, absolute once `absolute` has seen them."""

from xoar.abi import xen as abi
from xoar.xenstore.errors import Refused

RELATIVE_MAX = abi.XENSTORE_REL_PATH_MAX
"""Bytes of a path, not counting a leading /local/domain/<domid>/ (XENSTORE_REL_PATH_MAX)."""

_DOMAINS = b"/local/domain/"
ABSOLUTE_MAX = RELATIVE_MAX + len(_DOMAINS) + 6
"""Bytes of the longest path that `check` can let pass."""

OF_A_GUEST = (
    (b"control", False),
    (b"control/shutdown", True),
    (b"control/feature-poweroff", True),
    (b"control/feature-reboot", True),
    (b"control/feature-suspend", True),
    (b"control/sysrq", True),
    (b"device", False),
    (b"device/suspend", False),
    (b"device/suspend/event-channel", True),
    (b"data", True),
    (b"drivers", True),
    (b"feature", True),
    (b"attr", True),
    (b"error", True),
)
"""What a guest's home has at first, parents first, and whether the guest may write there (libxl__domain_make
in libxl_create.c, docs/misc/xenstore-paths.pandoc)."""

_ALLOWED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@")


def home(domid: int) -> bytes:
    """The path to which a domain's relative paths are relative."""
    return b"/local/domain/%d" % domid


def vm(uuid: bytes) -> bytes:
    """What keeps its name when a guest gets a new domid; named in the usual form of a uuid, 8-4-4-4-12."""
    digits = "".join(["%02x" % byte for byte in uuid])
    return ("/vm/" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))).encode()


def memory(domid: int) -> bytes:
    """Where a Toolstack that is built again keeps what its next life needs to know."""
    return b"/memory/%d" % domid


def backends(domid: int) -> bytes:
    """What holds all back ends in a domain."""
    return home(domid) + b"/backend"


def back_end(domid: int, kind: bytes, frontend: int, number: int) -> bytes:
    """The back end in a domain of another domain's device, as xenbus has it."""
    return b"%s/%s/%d/%d" % (backends(domid), kind, frontend, number)


def front_end(domid: int, kind: bytes, number: int) -> bytes:
    """A domain's device, as xenbus has it."""
    return b"%s/device/%s/%d" % (home(domid), kind, number)


def absolute(untrusted_path: bytes, base: bytes) -> bytes:
    """The path itself if it starts with / or @, otherwise the path below `base`. Not checked further."""
    first = untrusted_path[:1]
    if first == b"/" or first == b"@":
        return untrusted_path
    return base + b"/" + untrusted_path


def check(untrusted_path: bytes) -> None:
    """Raises Refused(EINVAL) if an absolute path is not well-formed."""
    limit = RELATIVE_MAX
    if untrusted_path.startswith(_DOMAINS):
        end = untrusted_path.find(b"/", len(_DOMAINS))
        if 0 < end - len(_DOMAINS) <= 5:
            limit += end + 1
    if (
        len(untrusted_path) > limit
        or untrusted_path[:1] != b"/"
        or (untrusted_path[-1:] == b"/" and untrusted_path != b"/")
        or untrusted_path.find(b"//") >= 0
    ):
        raise Refused("EINVAL")
    for byte in untrusted_path:
        if byte not in _ALLOWED:
            raise Refused("EINVAL")


def node_of(name: str) -> str:
    """The node that a name of ours has: names may have dots, paths may not."""
    return name.replace(".", "@")


def name_of(node: str) -> str:
    """The name behind a node."""
    return node.replace("@", ".")


def parent(path: bytes) -> bytes:
    """The path one level up; / is its own parent."""
    return path[: path.rfind(b"/")] or b"/"


def leaf(path: bytes) -> bytes:
    """The last name of a path."""
    return path[path.rfind(b"/") + 1 :]


def child(path: bytes, name: bytes) -> bytes:
    """The path of a child."""
    return b"/" + name if path == b"/" else path + b"/" + name
