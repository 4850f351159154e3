"""A guest's XenStore records: paths, values and owners as libxl writes them, so that Xen's tools know them.

Sources: libxl__domain_make and libxl__build_post in Xen's tools/libs/light (libxl_create.c, libxl_dom.c),
libxl__device_console_add in libxl_console.c, docs/misc/xenstore-paths.pandoc. Where libxl has domain 0 as the
owner of what the guest may only read, the Toolstack is.

No transaction: the guest is paused and its paths are new, so nobody can see half of them and rely on it, and
a failure takes the whole subtree back. The requests of a batch are sent without waiting for each other.
"""

from xoar.xenstore import wire
from xoar.xenstore.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Store(Protocol):
        """What is needed of xoar.xenstore.client.Client."""

        def request(self, kind: int, payload: bytes, transaction: int = 0) -> int:
            """Queues a request and returns its number."""

        def take_reply(self, request: int) -> "bytes | None":
            """The reply, or None if it has not come yet. Raises Refused."""


_CONSOLE_LIMIT = 1048576
# what the guest itself writes to
_GUEST_OWNED = (
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
)


class Batch:
    """Requests that are answered in any order; `poll` says when all are."""

    def __init__(self, store: "Store") -> None:
        self.refused = ""
        self._store = store
        self._waiting: "list[tuple[int, str]]" = []
        self._removals: "list[int]" = []

    def add(self, kind: int, path: str, *words: str) -> None:
        """Sends a request about `path`; the words end with a zero byte each, except WRITE's value."""
        payload = path.encode() + b"\0"
        for word in words:
            payload += word.encode() + (b"" if kind == wire.WRITE else b"\0")
        request = self._store.request(kind, payload)
        self._waiting.append((request, path))
        if kind == wire.RM:
            self._removals.append(request)

    def poll(self) -> bool:
        """Takes the replies that have come; True once none is missing. `refused` then says what failed."""
        left = []
        for request, path in self._waiting:
            try:
                if self._store.take_reply(request) is None:
                    left.append((request, path))
            except Refused as error:
                if error.name == "ENOENT" and request in self._removals:
                    continue
                self.refused = self.refused or "XenStore refused %s: %s" % (path, error.name)
        self._waiting = left
        return not left


def domain_path(domid: int) -> str:
    """The guest's subtree."""
    return "/local/domain/%d" % domid


def uuid_text(uuid: bytes) -> str:
    """The usual form, 8-4-4-4-12 hexadecimal digits."""
    digits = "".join(["%02x" % byte for byte in uuid])
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def vm_path(uuid: bytes) -> str:
    """The subtree that keeps its name when the guest gets a new domid."""
    return "/vm/%s" % uuid_text(uuid)


def create(store: "Store", owner: int, config: "Any", built: "Any") -> Batch:
    """Writes all records of a guest; `config` are the fields of guest_create, `built` Builder's answer."""
    batch = Batch(store)
    home = domain_path(built.domid)
    vm = vm_path(config.uuid)
    for path in (home, vm):
        # children inherit this: the Toolstack owns, the guest reads
        batch.add(wire.RM, path)
        batch.add(wire.MKDIR, path)
        batch.add(wire.SET_PERMS, path, "n%d" % owner, "r%d" % built.domid)
    for name in _GUEST_OWNED:
        batch.add(wire.MKDIR, "%s/%s" % (home, name))
        batch.add(wire.SET_PERMS, "%s/%s" % (home, name), "n%d" % built.domid)
    batch.add(wire.WRITE, vm + "/uuid", uuid_text(config.uuid))
    batch.add(wire.WRITE, vm + "/name", config.name)
    for name, value in _values(config, built, vm):
        batch.add(wire.WRITE, "%s/%s" % (home, name), value)
    return batch


def _values(config: "Any", built: "Any", vm: str) -> "list[tuple[str, str]]":
    values = [
        ("vm", vm),
        ("name", config.name),
        ("domid", "%d" % built.domid),
        ("memory/static-max", "%d" % config.memory_kib),
        ("memory/target", "%d" % config.memory_kib),
        ("control/platform-feature-multiprocessor-suspend", "1"),
        ("control/platform-feature-xs_reset_watches", "1"),
        ("store/port", "%d" % built.store_port),
        ("store/ring-ref", "%d" % built.store_gfn),
        ("console/port", "%d" % built.console_port),
        ("console/ring-ref", "%d" % built.console_gfn),
        ("console/limit", "%d" % _CONSOLE_LIMIT),
        ("console/type", "xenconsoled"),
    ]
    for vcpu in range(config.vcpus):
        values.append(("cpu/%d/availability" % vcpu, "online"))
    return values


def remove(store: "Store", uuid: bytes, domid: int) -> Batch:
    """Removes all records of a guest; what is not there does not matter."""
    batch = Batch(store)
    batch.add(wire.RM, domain_path(domid))
    batch.add(wire.RM, vm_path(uuid))
    return batch


def ask_to_stop(store: "Store", domid: int, how: str) -> Batch:
    """Asks the guest's kernel for "poweroff" or "reboot" (control/shutdown in xenstore-paths.pandoc)."""
    batch = Batch(store)
    batch.add(wire.WRITE, domain_path(domid) + "/control/shutdown", how)
    return batch
