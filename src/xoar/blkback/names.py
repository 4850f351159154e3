"""Names of volumes, and what they are called in LVM and in the device mapper.

A volume of the host has its name; one of a tenant has the tenant's name and a "+" in front, which no name
has: so nothing that is asked for by name can mean a volume of somebody else.

LVM reserves names that begin with "snapshot" or "pvmove" and names with parts such as "_tmeta" (lvm(8), VALID
NAMES). A logical volume therefore begins with "v." (the host's) or "t." (a tenant's), and "_" becomes "+".
A tenant's name has neither "_" nor "+", so its end is the first "+".
"""

GROUP = "xoar"
POOL = "pool"
POOL_DEVICE = "xoar-pool-tpool"
"""The device mapper's name of the thin pool proper (LVM adds the layer -tpool)."""

_HOSTS, _TENANTS = "v.", "t."
_START = "abcdefghijklmnopqrstuvwxyz0123456789"
_REST = _START + "_.-"
_MAX = 64
_DEVICE_MAX = 127  # characters of a device mapper's name (DM_NAME_LEN, linux/dm-ioctl.h)


def check(untrusted_name: str) -> str:
    """The name itself. Raises ValueError if it is none (as names in messages, at most 64 characters)."""
    if not 1 <= len(untrusted_name) <= _MAX or untrusted_name[0] not in _START or untrusted_name.strip(_REST):
        raise ValueError(
            f"{untrusted_name[:_MAX]!a} is no name: up to {_MAX} lower-case letters and digits,"
            " after the first one also _ . -"
        )
    return untrusted_name


def owned(tenant: str, name: str) -> str:
    """The volume that a tenant ("": the host) calls so. Raises ValueError if it would be too long."""
    volume = f"{tenant}+{name}" if tenant else name
    if len(device(volume)) > _DEVICE_MAX:
        raise ValueError(f"{name!a} is too long a name, since each hyphen counts twice")
    return volume


def split(volume: str) -> tuple[str, str]:
    """The tenant that a volume belongs to ("": the host), and what it is called there."""
    tenant, plus, name = volume.partition("+")
    return (tenant, name) if plus else ("", volume)


def to_lv(volume: str) -> str:
    """The logical volume of a volume."""
    tenant, name = split(volume)
    lv = name.replace("_", "+")
    return f"{_TENANTS}{tenant}+{lv}" if tenant else f"{_HOSTS}{lv}"


def from_lv(lv: str) -> str | None:
    """The volume of a logical volume; None if it is not a volume's."""
    tenant, rest = "", lv[len(_HOSTS) :]
    if lv.startswith(_TENANTS):
        tenant, _, rest = rest.partition("+")
        if not tenant:
            return None
    elif not lv.startswith(_HOSTS):
        return None
    try:
        return owned(tenant, check(rest.replace("+", "_")))
    except ValueError:
        return None


def device(name: str) -> str:
    """The device mapper's name of a volume (hyphens in a logical volume's name are doubled)."""
    return f"{GROUP}-{to_lv(name).replace('-', '--')}"


def path(name: str) -> str:
    """The block device of a volume."""
    return f"/dev/mapper/{device(name)}"
