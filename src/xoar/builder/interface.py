"""What Builder's service needs of Xen, for mypy: machine.py does it, and a test has one of its own."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from xoar.builder.library import Image
    from xoar.messages.channel import Channel

    class Machine(Protocol):
        """Hypercalls; each may raise OSError, what builds raises BuildError and MemoryError, too."""

        def build(
            self,
            domid: int,
            uuid: bytes,
            kernel: Image,
            ramdisk: "Image | None",
            command_line: str,
            memory_kib: int,
            vcpus: int,
        ) -> "dict[int, tuple[int, int]]": ...
        def build_shard(
            self,
            shard: Any,
            words: "list[str]",
            image: Image,
            links: "list[tuple[str, int, int]]",
            with_ecam: bool,
        ) -> "dict[int, tuple[int, int]]": ...
        def build_driver(
            self, driver: Any, bdf: int, kernel: Image, rootfs: Image, bars: "list[tuple[int, int]]"
        ) -> "dict[int, tuple[int, int]]": ...
        def open(
            self, domid: int, gref: int, port: int, name: str, report: "Callable[[str], None]"
        ) -> Channel: ...
        def close(self, domid: int) -> None: ...
        def unpause(self, domid: int) -> None: ...
        def destroy(self, domid: int) -> None: ...
        def domains(self) -> "list[Any]": ...
        def label(self, sid: int) -> str: ...
        def memory_kib(self) -> "tuple[int, int]": ...
        def switch(self, boolean: str, on: bool) -> None: ...
        def version(self) -> str: ...
        def now(self) -> int: ...
