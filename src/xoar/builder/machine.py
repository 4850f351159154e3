"""What Builder's service does to Xen: whole domains built, and the hypervisor's answers."""

import nano
from xoar.builder import construct, driver, start
from xoar.messages.channel import Channel
from xoar.messages.renewal import SERVER, Renewal
from xoar.xen import control, devices, memory
from xoar.xen.ring import xenstore_rings
from xoar.xen.served import Reached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.builder.library import Image

_MAP_FRAMES = 1  # a guest's records of grants that it has mapped itself
_ECAM_AT = 0xC0000000  # where PCIBack finds configuration space: above its RAM, in nano's 4 GiB
_BUS = 0x100000  # bytes of configuration space of one bus

# Linux in driver domains. Bounce buffers of 4 MiB, for what is not contiguous in machine memory. Locked down:
# not even root can change the kernel; without tracing, which goes with that, and without accounts of kernel
# memory it needs 13 MiB less.
DRIVER_COMMAND_LINE = (
    "console=hvc0 quiet iommu=soft swiotlb=2048 lockdown=confidentiality cgroup.memory=nokmem"
)


class Machine:
    """`guest_label`: the security context of guests. `links`: (server's domid, grant reference) of each
    link that a guest or driver domain opens. `ecam`: address, first and last bus of configuration space."""

    def __init__(self, guest_label: str, links: "list[tuple[int, int]]", ecam: "list[int]") -> None:
        self._guest_label = guest_label
        self._links = links
        self._ecam = ecam
        self._labels: "dict[int, str]" = {}
        self._version = ""
        self._opened: "dict[int, Reached]" = {}

    def build(
        self,
        domid: int,
        uuid: bytes,
        kernel: "Image",
        ramdisk: "Image | None",
        command_line: str,
        memory_kib: int,
        vcpus: int,
    ) -> "dict[int, tuple[int, int]]":
        """Builds a guest and leaves it paused; (frame, port) of the link with each grant reference.

        If this raises (OSError, BuildError, MemoryError), the domain may exist: destroy it.
        """
        construct.create(domid, uuid, self._guest_label, memory_kib, vcpus, _MAP_FRAMES)
        ports = construct.connect(domid, [(gref, server) for server, gref in self._links])
        construct.tell_of_links(domid, ports)
        construct.load(domid, kernel, ramdisk, command_line, memory_kib, vcpus)
        memory.set_map(domid, start.memory_map(memory_kib))  # GRUB asks Xen instead of reading its start info
        return {gref: (start.link_frame(gref), ports[gref]) for gref in ports}

    def build_shard(
        self,
        shard: "Any",
        words: "list[str]",
        image: "Image",
        links: "list[tuple[str, int, int]]",
        with_ecam: bool,
    ) -> "dict[int, tuple[int, int]]":
        """Builds a nano shard; `words` are for its command line, `links` are (server, its domid, grant
        reference), `with_ecam` gives it configuration space.

        Result and errors as those of `build`.
        """
        construct.create(
            shard.domid,
            shard.domid.to_bytes(16, "big"),
            shard.label,
            shard.memory_kib,
            shard.vcpus,
            _MAP_FRAMES,
        )
        ports = construct.connect(shard.domid, [(gref, domid) for _, domid, gref in links])
        words = ["name=" + shard.name, "domid=%d" % shard.domid] + words
        for server, _, gref in links:
            words.append("uses=%s:%d:%d" % (server, start.link_frame(gref), ports[gref]))
        if with_ecam and self._ecam:
            address, first, last = self._ecam
            words.append("ecam=%d:%d:%d" % (_ECAM_AT, first, last))
            devices.permit_memory(shard.domid, address, (last - first + 1) * _BUS)
            devices.map_memory(shard.domid, _ECAM_AT, address, (last - first + 1) * _BUS)
        construct.load(shard.domid, image, None, " ".join(words), shard.memory_kib, shard.vcpus)
        return {gref: (start.link_frame(gref), ports[gref]) for gref in ports}

    def build_driver(
        self, wanted: "Any", bdf: int, kernel: "Image", rootfs: "Image", bars: "list[tuple[int, int]]"
    ) -> "dict[int, tuple[int, int]]":
        """Builds a driver domain and gives it the device `bdf`, whose memory is `bars`, (address, size) each.

        Result and errors as those of `build`.
        """
        rings = driver.build(
            wanted.domid,
            wanted.domid.to_bytes(16, "big"),
            wanted.label,
            kernel,
            rootfs,
            "%s xoar.driver=%s" % (DRIVER_COMMAND_LINE, wanted.name),
            wanted.memory_kib,
            [(gref, server) for server, gref in self._links],
        )
        for address, size in bars:
            devices.permit_memory(wanted.domid, address, size)
        devices.assign(wanted.domid, bdf)
        return rings

    def open(self, domid: int, gref: int, port: int, name: str, report: "Callable[[str], None]") -> Channel:
        """Builder's end of a link that a shard which it has built opened to it; `report` is told of refused
        messages.

        It maps the page by its right to, not by the grant: after a rollback a grant's mapping would still be
        somewhere.
        """
        link = self._opened[domid] = Reached(domid, start.link_frame(gref), port)
        incoming, outgoing = xenstore_rings(link.page)
        renewal = Renewal(link.page, SERVER)
        return Channel(incoming, outgoing, link.notify, name, "builder", report, renewal)

    def close(self, domid: int) -> None:
        """Gives the page and the port of `open` back."""
        self._opened.pop(domid).close()

    def unpause(self, domid: int) -> None:
        control.unpause(domid)

    def destroy(self, domid: int) -> None:
        control.destroy(domid)

    def domains(self) -> "list[control.DomainInfo]":
        return control.domains()

    def label(self, sid: int) -> str:
        if sid not in self._labels:
            self._labels[sid] = control.sid_to_label(sid)
        return self._labels[sid]

    def memory_kib(self) -> "tuple[int, int]":
        return control.memory_kib()

    def switch(self, boolean: str, on: bool) -> None:
        control.set_boolean(boolean, on)

    def version(self) -> str:
        if not self._version:
            self._version = control.version()
        return self._version

    def now(self) -> int:
        return nano.now()
