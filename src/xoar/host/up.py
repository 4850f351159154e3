"""Starting a host: everything built, Bootstrapper's module packed, the keeper started; and ending it."""

from __future__ import annotations

from collections.abc import Mapping

from xoar.builder import library
from xoar.host import apt, assembly, bundle, bzimage, disks, emulator, keeper, pci, tenants
from xoar.host.build import driver, grub, guest
from xoar.host.config import Config, Image, check_files
from xoar.host.devices import BLKBACK
from xoar.host.errors import HostError
from xoar.host.progress import Reporter
from xoar.host.state import Host, Record

START_TIMEOUT = 120.0  # seconds from the emulator's start to Console's first answer
_BUILTIN = {
    "debian": guest.debian,
    "tiny": guest.tiny,
    "debian-xentools": guest.debian_xentools,
}
_DRIVERS = {"netback": driver.netback, "blkback": driver.blkback}
_FAILURES = (
    r"\(XEN\) Panic on CPU",
    r"\(XEN\) Hardware Dom0 (crashed|shutdown|halted)",
)


def up(config: Config, show: Reporter) -> Record:
    """Starts the host of a configuration and waits until it serves. Raises HostError.

    Guests are not started: that is the Toolstack's work, on request.
    """
    check_files(config)
    host = Host(config.host.name)
    if host.alive():
        raise HostError(f"host {host.name} is running already", hint="Stop it with: xoar down")
    launch = prepare(config, show)
    with show.step(f"starting host {host.name}"):
        keeper.launch(host, launch)
        return keeper.wait_running(host, START_TIMEOUT)


def down(name: str, erase: bool = False) -> bool:
    """Ends a host, with `erase` also its disks; whether there was one."""
    return Host(name).stop(erase=erase)


def prepare(
    config: Config,
    show: Reporter,
    replaced: Mapping[str, assembly.Replacement] | None = None,
    under_test: bool = False,
) -> emulator.Launch:
    """Builds what the host boots. Raises HostError.

    For tests: `replaced` are shards that get code of theirs, `under_test` gives them Xen's debug keys and
    QEMU's monitor.
    """
    system = apt.Apt(show)
    entries: list[bundle.Entry] = []
    for image in config.images.values():
        entries += image_entries(image, system, show)
    if any(wanted.kind == BLKBACK for wanted in config.drivers.values()):
        entries.append(bundle.Entry("grub", library.KERNEL, grub.grub(system, show).read_bytes()))
    hypervisor = assembly.hypervisor(system, show, config.host.xen_source)
    entries += driver_entries(config, system, show)
    drivers = tuple(config.drivers.values())
    keyed = tenants.keyed(config.tenants.values(), config.host.name)
    made = assembly.assemble(system, show, entries, hypervisor, replaced, drivers, keyed)
    machine = emulator.Machine(
        xen=str(made.xen.image),
        kernel=str(made.bootstrapper),
        modules=[str(made.bundle), str(made.policy)],
        xen_arguments=f"dom0_mem={made.bootstrapper_kib}K hwdom-may-end",
        memory_mib=config.host.memory_mib,
        cpus=config.host.cpus,
        devices=emulated_devices(config),
        under_test=under_test,
    )
    return emulator.Launch(machine, emulator.find(system, show), made.xen.version, _FAILURES)


def driver_entries(config: Config, system: apt.Apt, show: Reporter) -> list[bundle.Entry]:
    """The images of the kinds of driver domains that a configuration has."""
    entries = []
    for kind in sorted({wanted.kind for wanted in config.drivers.values()}):
        files = _DRIVERS[kind](system, show)
        entries.append(bundle.Entry(kind, library.LINUX, files.kernel.read_bytes()))
        entries.append(bundle.Entry(kind, library.ROOTFS, files.rootfs.read_bytes()))
    return entries


def emulated_devices(config: Config) -> list[pci.Device]:
    """The devices of the emulated machine, one for each driver domain, in their order."""
    files = {found.driver: found for found in disks.disks(Host(config.host.name), config)}
    found = []
    for wanted in config.drivers.values():
        _, *paths = files.get(wanted.name, (wanted.name,))
        found.append(pci.Device(wanted.name, wanted.model, *map(str, paths)))
    return found


def image_entries(image: Image, system: apt.Apt, show: Reporter) -> list[bundle.Entry]:
    """What an image of the configuration adds to the library; one of a disk adds nothing."""
    if image.is_disk:
        return []
    if image.builtin:
        make = _BUILTIN[image.builtin]
        files = make(system, show)
        kernel, ramdisk = files.kernel.read_bytes(), files.initramfs.read_bytes()
    else:
        assert image.kernel is not None
        kernel = image.kernel.read_bytes()
        if not kernel.startswith(b"\x7fELF"):
            kernel = bzimage.vmlinux(kernel)
        ramdisk = image.initramfs.read_bytes() if image.initramfs else b""
    entries = [bundle.Entry(image.name, library.KERNEL, kernel)]
    if ramdisk:
        entries.append(bundle.Entry(image.name, library.RAMDISK, ramdisk))
    return entries
