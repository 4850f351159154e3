"""Names of volumes, and what they are called in LVM and in the device mapper.

LVM reserves names that begin with "snapshot" or "pvmove" and names with parts such as "_tmeta" (lvm(8), VALID
NAMES). A volume's logical volume therefore begins with "v.", and "_" becomes "+", which no volume's
name has.
"""

GROUP = "xoar"
POOL = "pool"
POOL_DEVICE = "xoar-pool-tpool"
"""The device mapper's name of the thin pool proper (LVM adds the layer -tpool)."""

_PREFIX = "v."
_START = "abcdefghijklmnopqrstuvwxyz0123456789"
_REST = _START + "_.-"
_MAX = 64


def check(untrusted_name: str) -> str:
    """The name itself. Raises ValueError if it is none (as names in messages, at most 64 characters)."""
    if not 1 <= len(untrusted_name) <= _MAX or untrusted_name[0] not in _START or untrusted_name.strip(_REST):
        raise ValueError(
            f"{untrusted_name[:_MAX]!a} is no name: up to {_MAX} lower-case letters and digits,"
            " after the first one also _ . -"
        )
    return untrusted_name


def to_lv(name: str) -> str:
    """The logical volume of a volume."""
    return _PREFIX + name.replace("_", "+")


def from_lv(lv: str) -> str | None:
    """The volume of a logical volume; None if it is not a volume's."""
    if not lv.startswith(_PREFIX):
        return None
    try:
        return check(lv[len(_PREFIX) :].replace("+", "_"))
    except ValueError:
        return None


def device(name: str) -> str:
    """The device mapper's name of a volume (hyphens in a logical volume's name are doubled)."""
    return f"{GROUP}-{to_lv(name).replace('-', '--')}"


def path(name: str) -> str:
    """The block device of a volume."""
    return f"/dev/mapper/{device(name)}"
