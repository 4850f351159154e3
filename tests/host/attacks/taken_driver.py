"""In place of a driver domain's agent: root tries every operation. Its console shows what it reached."""

import os
import time
import traceback

from linux_machine import Machine
from operations import Sweep, present

from xoar.xenstore import linux

_PCIBACK, _FIRST_GUEST = 7, 32
_OWN = "/sys/bus/pci/devices/0000:00:00.0"
_IN_USE = (_OWN + "/net", "/sys/class/block/nvme0n1")  # what its driver makes once it has found the device
_SETTLING = 15  # seconds: the guest runs, and all driver domains have their devices
_DEVICES = (0x0100, 0x0200, 0x0000, 0x0008)  # NetBack's, BlkBack's, and two that nobody was given
# where the emulated machine has the registers of PCI devices, APICs, the IOMMU; its configuration space
_REGISTERS = (range(0xFE000, 0xFF000), range(0xB0000, 0xB0010))


def attack():
    os.spawnv(os.P_WAIT, "/sbin/modprobe", ["modprobe", "xen-privcmd", "unrestricted=1"])
    machine = Machine()
    while not any(map(os.path.exists, _IN_USE)) or not present(machine, [_FIRST_GUEST]):
        time.sleep(0.5)
    time.sleep(_SETTLING)
    own = own_domid()
    # PCIBack first, which does not stay
    victims = sorted(
        [domid for domid in present(machine) if domid != own], key=lambda domid: domid != _PCIBACK
    )
    Sweep(machine, say, victims, _DEVICES, pv=True).run()
    say("mine " + " ".join([f"{frame:x}" for frame in own_registers()]))
    say("mapped " + " ".join([f"{frame:x}" for frames in _REGISTERS for frame in machine.mappable(frames)]))
    say("sweep done: " + " ".join(map(str, victims)))


def own_registers():
    """Page frames of its device's memory: lines of first, last, flags, of which 0x200 means memory."""
    frames = []
    with open(_OWN + "/resource") as lines:
        for line in lines:
            first, last, flags = (int(word, 16) for word in line.split())
            if flags & 0x200:
                frames += range(first >> 12, (last >> 12) + 1)
    return sorted(frames)


def own_domid():
    with linux.connect(linux.DEVICE) as store:
        return int(store.read("domid"))


def say(line):
    print(line, flush=True)


def main():
    try:
        attack()
    except Exception:
        traceback.print_exc()
        say("sweep failed")
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
