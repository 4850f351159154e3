"""The stock host with devices: domain 0 has the network card, the disk controller, a bridge, and the pool.

What Debian's hotplug scripts do (/etc/xen/scripts of xen-utils-common: block, vif-bridge) two scripts of a
few lines do here, and LVM runs without udev and without a check of the pool: in stock's favour.
"""

from __future__ import annotations

from xoar.host import apt, cpio
from xoar.host.bench import prepared as made
from xoar.host.bench import stock
from xoar.host.build import grub
from xoar.host.progress import Reporter
from xoar.host.values import format_mac

_DRIVERS = ("crc32c_generic", "dm-thin-pool", "nvme", "e1000e", "bridge", "xen-blkback", "xen-netback")
_APPLETS = "brctl ip stat"
_CONFIGURATION = (
    'devices { filter = ["a|^/dev/nvme0n1$|", "r|.*|"] external_device_info_source = "none"'
    ' obtain_device_list_from_udev = 0 } global { thin_check_executable = "" use_lvmpolld = 0'
    " event_activation = 0 } activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }"
    " backup { backup = 0 archive = 0 }"
)
_DEVICES = f"""
until [ -e /dev/nvme0n1 ] && [ -e /sys/class/net/eth0 ]; do sleep 0.05; done
brctl addbr xenbr0
brctl addif xenbr0 eth0
ip link set eth0 up
ip link set xenbr0 up
export LVM_SUPPRESS_FD_WARNINGS=1
lvm vgchange --quiet -ay --config '{_CONFIGURATION}' {made.GROUP} >/run/lvm.log 2>&1 || {{
    cat /run/lvm.log
    fail lvm
}}
"""
_BLOCK = """#!/bin/sh
export PATH=/usr/bin:/bin
[ "$1" = add ] || exit 0
numbers=$(stat -L -c '%t:%T' "$(xenstore-read $XENBUS_PATH/params)")
xenstore-write $XENBUS_PATH/physical-device $numbers $XENBUS_PATH/hotplug-status connected
"""
_VIF = """#!/bin/sh
export PATH=/usr/bin:/bin
[ "$1" = online ] || exit 0
brctl addif xenbr0 $vif
ip link set $vif up
xenstore-write $XENBUS_PATH/hotplug-status connected
"""


def build(prepared: made.Prepared, system: apt.Apt, show: Reporter) -> stock.Stock:
    """The stock host for the prepared guest. Raises HostError."""
    found = stock.debian(system, show, ("lvm2",), ("sbin/lvm", "usr/bin/xenstore-write"), _DRIVERS)
    entries = [
        cpio.file("etc/xen/guest.cfg", _settings(prepared).encode()),
        cpio.file("etc/xen/scripts/block", _BLOCK.encode(), 0o755),
        cpio.file("etc/xen/scripts/vif", _VIF.encode(), 0o755),
        cpio.file("boot/grub", grub.grub(system, show).read_bytes()),
    ]
    init = stock.START + _DEVICES + stock.SHOW.replace("NAME", made.GUEST.name)
    return stock.assemble(system, show, found, init, entries, _APPLETS)


def _settings(prepared: made.Prepared) -> str:
    """The guest in xl.cfg(5)'s words; its last disk is cloud-init's."""
    guest = made.GUEST
    (nic,) = guest.nics
    devices = made.devices_of(prepared)
    disks = [
        f'"format=raw,vdev=xvd{letter},access={"ro" if device == devices[-1] else "rw"},target={device}"'
        for letter, device in zip("abcdefgh", devices, strict=False)
    ]
    return (
        f'name = "{guest.name}"\ntype = "pvh"\nkernel = "/boot/grub"\n'
        f"memory = {guest.memory_kib >> 10}\nvcpus = {guest.vcpus}\n"
        f"disk = [{', '.join(disks)}]\n"
        f'vif = ["mac={format_mac(nic.mac or b"")},script=/etc/xen/scripts/vif"]\n'
    )
