"""A domain's XenStore records: paths, values and owners as libxl writes them, so that Xen's tools know them.

Sources: libxl__domain_make and libxl__build_post in Xen's tools/libs/light (libxl_create.c, libxl_dom.c),
libxl__device_console_add in libxl_console.c, docs/misc/xenstore-paths.pandoc. Where libxl has domain 0 as the
owner, the Toolstack is: it needs no privilege in XenStore to manage its guests. XenStore makes the top of a
domain's records, empty, when Builder introduces the domain, and of a guest's those that the guest itself
writes to: they are the Toolstack's, too, and the guest has the right to write.

No transaction: the guest is paused and its paths are new, so nobody can see half of them and rely on it, and
a failure takes the whole subtree back. The requests of a batch are sent without waiting for each other.
"""

from xoar.toolstack.store import Batch
from xoar.xenstore import paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.toolstack.driver import Driver
    from xoar.toolstack.store import StoreLink

_CONSOLE_LIMIT = 1048576
# what a driver domain says, and where its backends are
_DRIVER_WRITTEN = (b"service", b"backend")


def domain_path(domid: int) -> str:
    """The guest's subtree."""
    return "/local/domain/%d" % domid


def vm_path(uuid: bytes) -> str:
    """The subtree that keeps its name when the guest gets a new domid."""
    return paths.vm(uuid).decode()


def create(store: "StoreLink", config: "Any", built: "Any") -> Batch:
    """Writes all records of a guest; `config` are the fields of guest_create, `built` Builder's answer."""
    batch = Batch(store)
    home = domain_path(built.domid)
    vm = vm_path(config.uuid)
    batch.write(vm, (("uuid", vm[len("/vm/") :]), ("name", config.name)))
    batch.write(
        home,
        (
            ("vm", vm),
            ("memory/static-max", "%d" % config.memory_kib),
            ("memory/target", "%d" % config.memory_kib),
        ),
    )
    _identity(batch, home, config.name, built.domid)
    _rings(batch, home, built)
    for vcpu in range(config.vcpus):
        batch.add(wire.WRITE, "%s/cpu/%d/availability" % (home, vcpu), "online")
    return batch


def driver_domain(batch: Batch, owner: int, driver: "Driver", pciback: int, built: "Any") -> None:
    """Writes a driver domain's records (docs/devices.md); `built` is Builder's answer.

    PCIBack must exist: XenStore keeps no permissions for domains that do not.
    """
    home = domain_path(driver.domid)
    # its Linux is to find what a guest's finds
    for name in [name for name, writes in paths.OF_A_GUEST if writes] + list(_DRIVER_WRITTEN):
        batch.make("%s/%s" % (home, str(name, "ascii")), owner, driver.domid)
    for table in ("networks", "requests"):
        batch.add(wire.MKDIR, "%s/%s" % (home, table))
    _identity(batch, home, driver.name, driver.domid)
    _rings(batch, home, built)
    frontend = home + "/device/pci/0"
    batch.make(frontend, owner, driver.domid, pciback)
    backend = "%s/backend/pci/%d/0" % (domain_path(pciback), driver.domid)
    batch.write(frontend, (("backend", backend), ("backend-id", "%d" % pciback), ("state", "1")))


def pciback(batch: Batch, owner: int, domid: int) -> None:
    """Writes PCIBack's records."""
    batch.make(domain_path(domid) + "/backend", owner, domid)
    shard(batch, domid, "pciback")


def shard(batch: Batch, domid: int, name: str) -> None:
    """Writes what each shard has that is built on request."""
    _identity(batch, domain_path(domid), name, domid)


def _identity(batch: Batch, home: str, name: str, domid: int) -> None:
    batch.write(home, (("name", name), ("domid", "%d" % domid)))


def _rings(batch: Batch, home: str, built: "Any") -> None:
    batch.write(
        home,
        (
            ("control/platform-feature-multiprocessor-suspend", "1"),
            ("control/platform-feature-xs_reset_watches", "1"),
            ("store/port", "%d" % built.store_port),
            ("store/ring-ref", "%d" % built.store_gfn),
            ("console/port", "%d" % built.console_port),
            ("console/ring-ref", "%d" % built.console_gfn),
            ("console/limit", "%d" % _CONSOLE_LIMIT),
            ("console/type", "xenconsoled"),
        ),
    )


def remove(store: "StoreLink", uuid: bytes, domid: int) -> Batch:
    """Removes all records of a guest; what is not there does not matter."""
    batch = Batch(store)
    batch.add(wire.RM, domain_path(domid))
    batch.add(wire.RM, vm_path(uuid))
    return batch


def ask_to_stop(store: "StoreLink", domid: int, how: str) -> Batch:
    """Asks the guest's kernel for "poweroff" or "reboot" (control/shutdown in xenstore-paths.pandoc)."""
    batch = Batch(store)
    batch.add(wire.WRITE, domain_path(domid) + "/control/shutdown", how)
    return batch
