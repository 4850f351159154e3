"""Domains of a few pages whose memory, events and vCPU are byte arrays; Xen's log of pages written."""

from __future__ import annotations

from xoar.abi import xen as abi
from xoar.microreboot.snapshot import PAGE


class FakeDomain:
    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.memory = bytearray((frames + 1) * PAGE)  # shared info is the last page
        self.context = bytearray(b"at the start")
        self.paused = 0
        self.logged = False
        self.dirty: set[int] = set()
        self.reason: int | None = None
        self.gone = False

    def write(self, address: int, data: bytes, *, by_grant: bool = False) -> None:
        """The domain writes; or somebody else does, in a page that it granted."""
        self.memory[address : address + len(data)] = data
        if not by_grant:
            self.dirty |= set(range(address // PAGE, (address + len(data) - 1) // PAGE + 1))

    def page(self, frame: int) -> bytes:
        return bytes(self.memory[frame * PAGE : (frame + 1) * PAGE])

    def word(self, frame: int) -> int:
        return int.from_bytes(self.page(frame)[:4], "little")

    def events(self) -> bytes:
        base = self.frames * PAGE
        return b"".join(
            bytes(self.memory[base + offset : base + offset + size])
            for offset, size in abi.shared_info.fields.values()
        )


class FakeMachine:
    """`room_pages`: how many pages there are for copies."""

    def __init__(self, domains: dict[int, FakeDomain], room_pages: int = 1000) -> None:
        self.domains = domains
        self.room_pages = room_pages
        self.time = 0
        self.notified: list[int] = []

    def _paused(self, domid: int) -> FakeDomain:
        domain = self.domains[domid]
        assert domain.paused, "a running domain was changed"
        return domain

    def map_all(self, domid: int, count: int) -> memoryview:
        assert count == self.domains[domid].frames + 1
        return memoryview(self.domains[domid].memory)

    def room(self, count: int) -> memoryview:
        if count > self.room_pages:
            raise OSError(12, "no memory left")
        self.room_pages -= count
        return memoryview(bytearray(count * PAGE))

    def buffer(self, length: int) -> tuple[memoryview, memoryview]:
        view = memoryview(bytearray(length))
        return view, view.cast("I")

    def pause(self, domid: int) -> None:
        if self.domains[domid].gone:
            raise OSError(3, f"domain {domid} is gone")
        self.domains[domid].paused += 1

    def unpause(self, domid: int) -> None:
        self.domains[domid].paused -= 1

    def resume(self, domid: int) -> None:
        assert self._paused(domid).reason is not None
        self.domains[domid].reason = None

    def ended(self, domid: int) -> int | None:
        return self.domains[domid].reason

    def context(self, domid: int) -> bytearray:
        return bytearray(self._paused(domid).context)

    def set_context(self, domid: int, state: bytearray) -> None:
        self._paused(domid).context = bytearray(state)

    def log_dirty(self, domid: int) -> None:
        domain = self._paused(domid)
        domain.logged = True
        domain.dirty.clear()

    def take_dirty(self, domid: int, bitmap: memoryview, pages: int) -> None:
        domain = self._paused(domid)
        assert domain.logged
        for index in range(len(bitmap)):
            bitmap[index] = sum(1 << bit for bit in range(8) if index * 8 + bit in domain.dirty)
        domain.dirty.clear()

    def notify(self, port: int) -> None:
        self.notified.append(port)

    def now(self) -> int:
        self.time += 1000
        return self.time
