"""The two hosts that are compared, built: same machine, same guest, same kernel and initramfs in it."""

from __future__ import annotations

from dataclasses import dataclass

from xoar.host import apt, up
from xoar.host.bench import hosts, stock
from xoar.host.build import guest
from xoar.host.config import Config, Guest, Image
from xoar.host.emulator import Launch
from xoar.host.progress import Reporter

XOAR = "bench-xoar"
STOCK = "bench-stock"

CONFIG = Config(images={"debian": Image("debian", builtin="debian")})
GUEST = Guest("debian", "debian")  # what xoar.toml has by default


@dataclass(frozen=True)
class Pair:
    """`xoar` starts a Xoar host, `stock` can start the other; `guest_kernel` is what the guest boots."""

    xoar: Launch
    stock: stock.Stock
    guest_kernel: str

    def facts(self) -> dict[str, str]:
        """What is compared, in words."""
        machine = self.xoar.machine
        return {
            "emulator": f"QEMU {self.xoar.qemu.version}, software emulation (TCG), "
            f"{machine.cpus} CPUs, {machine.memory_mib} MiB",
            "xoar": f"Xen {self.xoar.xen_version}",
            "stock": f"Xen {self.stock.xen_version}, domain 0: Linux {self.stock.kernel_version}, "
            f"{stock.MEMORY_MIB} MiB",
            "guest": f"PVH, {GUEST.vcpus} vCPU, {GUEST.memory_kib >> 10} MiB, {self.guest_kernel}",
        }


def prepare(show: Reporter) -> Pair:
    """Builds what is not in the cache. Raises HostError."""
    system = apt.Apt(show)
    images = guest.debian(system, show)
    return Pair(
        up.prepare(CONFIG, show),
        stock.build(system, show, images, CONFIG, GUEST, hosts.PAUSE),
        (guest.kernel(system, show) / "version").read_text().strip(),
    )
