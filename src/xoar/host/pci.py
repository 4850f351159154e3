"""The emulated machine's PCI devices, one per driver domain, as QEMU's command line.

Each device sits behind a root port of its own, as xoar.privilege.pci.emulated_bdf has it: so it can be reset
by itself, and pulled out and plugged in while the host runs. An emulated IOMMU confines their DMA.
"""

from __future__ import annotations

import zlib

import msgspec

NETWORK = ("e1000e", "virtio-net")
STORAGE = ("nvme", "ahci")
_FIRST_SLOT = 2  # of the root ports on bus 0


class Device(msgspec.Struct, frozen=True):
    """The device of driver domain `name`; a storage controller has two disks, `data` and `exchange`."""

    name: str
    model: str
    data: str = ""
    exchange: str = ""


def machine(devices: list[Device]) -> list[str]:
    """The words that choose a machine: with devices, one that has PCI Express and an IOMMU."""
    if not devices:
        return []
    return ["-machine", "q35,kernel-irqchip=split", "-device", "intel-iommu,intremap=on"]


def arguments(devices: list[Device]) -> list[str]:
    """The words for all devices, in their order."""
    words = []
    for index, device in enumerate(devices):
        slot = f"chassis={index + 1},slot={index + 1},bus=pcie.0,addr={index + _FIRST_SLOT:#x}"
        words += ["-device", f"pcie-root-port,id=port{index},{slot}"]
        words += (_network if device.model in NETWORK else _storage)(device, f"port{index}")
    return words


def _network(device: Device, bus: str) -> list[str]:
    # QEMU's own default address would be the same for the cards of all hosts
    mac = zlib.crc32(device.name.encode()) & 0xFFFFFF
    address = "52:54:00:" + ":".join(f"{mac >> shift & 0xFF:02x}" for shift in (16, 8, 0))
    model = {
        "e1000e": "e1000e",
        # iommu_platform: without it virtio devices pass by the IOMMU
        "virtio-net": "virtio-net-pci,disable-legacy=on,iommu_platform=on",
    }[device.model]
    return [
        "-netdev", f"user,id={device.name}",
        # nobody boots from a card; its ROM is in a package of its own, which a machine may lack
        "-device", f"{model},id={device.name}-card,bus={bus},netdev={device.name},mac={address},romfile=",
    ]  # fmt: skip


def _storage(device: Device, bus: str) -> list[str]:
    controller = f"{device.name}-controller"
    words = []
    for disk, path in (("data", device.data), ("exchange", device.exchange)):
        name = path.replace(",", ",,")
        words += ["-drive", f"if=none,id={device.name}-{disk},file={name},format=raw,discard=unmap"]
    if device.model == "nvme":
        words += ["-device", f"nvme,id={controller},bus={bus},serial={device.name}"]
        for number, disk in enumerate(("data", "exchange"), 1):
            words += ["-device", f"nvme-ns,bus={controller},nsid={number},drive={device.name}-{disk}"]
    else:
        words += ["-device", f"ich9-ahci,id={controller},bus={bus}"]
        for number, disk in enumerate(("data", "exchange")):
            words += ["-device", f"ide-hd,bus={controller}.{number},drive={device.name}-{disk}"]
    return words
