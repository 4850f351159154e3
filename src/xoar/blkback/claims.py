"""Who uses which volume: one writer, or any number of readers. No I/O."""

from typing import NamedTuple

from xoar.blkback.errors import AttachError
from xoar.blkback.names import split


class Vbd(NamedTuple):
    """A virtual block device of a guest: XenStore's backend/vbd/<guest>/<device>."""

    guest: int
    device: str


class _Claim(NamedTuple):
    volume: str
    writable: bool


class Claims:
    """The volumes in use."""

    def __init__(self) -> None:
        self._claims: dict[Vbd, _Claim] = {}

    def __contains__(self, vbd: Vbd) -> bool:
        return vbd in self._claims

    def check(self, volume: str, writable: bool) -> None:
        """Raises AttachError if a volume can't have this user, too."""
        users = self.users(volume)
        if users and (writable or self.written(volume)):
            how = "for writing" if self.written(volume) else "for reading"
            guests = ", ".join(map(str, users))
            name = split(volume)[1]
            raise AttachError(
                f"volume {name} is in use {how} by domain {guests}; only with mode=r for all it is shared"
            )

    def add(self, vbd: Vbd, volume: str, writable: bool) -> None:
        """A vbd uses a volume from now on. Raises AttachError and changes nothing if that can't be."""
        self.check(volume, writable)
        self._claims[vbd] = _Claim(volume, writable)

    def remove(self, vbd: Vbd) -> None:
        """A vbd uses its volume no more, if it did."""
        self._claims.pop(vbd, None)

    def vbds(self, volume: str | None = None) -> list[Vbd]:
        """The vbds that use a volume; None: any."""
        return [vbd for vbd, claim in self._claims.items() if volume in (None, claim.volume)]

    def users(self, volume: str) -> list[int]:
        """The guests that use a volume, in order."""
        return sorted({vbd.guest for vbd in self.vbds(volume)})

    def written(self, volume: str) -> bool:
        """Whether a volume's user may write to it."""
        return any(claim.volume == volume and claim.writable for claim in self._claims.values())
