"""What Builder's service does to Xen: whole guests built, and the hypervisor's answers."""

import nano
from xoar.builder import construct, start
from xoar.xen import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.builder.library import Image

_MAP_FRAMES = 1  # a guest's records of grants that it has mapped itself


class Machine:
    """`guest_label`: the security context of guests. `links`: (server's domid, grant reference) of each
    link that a guest opens."""

    def __init__(self, guest_label: str, links: "list[tuple[int, int]]") -> None:
        self._guest_label = guest_label
        self._links = links
        self._labels: "dict[int, str]" = {}
        self._version = ""

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
        construct.load(domid, kernel, ramdisk, command_line, memory_kib, vcpus)
        return {gref: (start.link_frame(gref), ports[gref]) for gref in ports}

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

    def version(self) -> str:
        if not self._version:
            self._version = control.version()
        return self._version

    def now(self) -> int:
        return nano.now()
