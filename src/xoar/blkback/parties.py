"""Whom BlkBack serves, and what each may have: the host, and the tenants that it is delegated to.

All are served by the same code. What differs is here: what a volume's name begins with, how much there may
be, what else may be cloned, and which requests are left to the host's operator.
"""

import errno
from collections.abc import Mapping
from typing import NamedTuple

from xoar.blkback import names
from xoar.blkback.errors import RequestError
from xoar.blkback.layout import EXTENT
from xoar.blkback.requests import SIZE_MAX, Request
from xoar.blkback.volumes import Volume
from xoar.xenstore import tenants
from xoar.xenstore.linux import Connection
from xoar.xenstore.paths import name_of

_EXTENT_KIB = EXTENT >> 10


class Quota(NamedTuple):
    """What the volumes of a party may have together, and how many there may be."""

    size_kib: int
    volumes: int


class Party(NamedTuple):
    """`tenant`: its name; `base`: what its nodes begin with; both are empty for the host. `images`: volumes
    of the host that it may clone; `left_out`: requests that are not for it; `waiting`: how many may wait."""

    tenant: str = ""
    base: str = ""
    quota: Quota | None = None
    images: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    waiting: int = 1000

    def volume(self, name: str) -> str:
        """The volume that this party calls so, whether there is one or not. Raises RequestError(EINVAL)."""
        try:
            return names.owned(self.tenant, names.check(name))
        except ValueError as error:
            raise RequestError(errno.EINVAL, str(error)) from error

    def calls(self, volume: str) -> str:
        """What this party calls a volume; empty if it is not its own."""
        tenant, name = names.split(volume)
        return name if tenant == self.tenant else ""

    def own(self, table: Mapping[str, Volume]) -> dict[str, Volume]:
        """Those of some volumes that are its own."""
        return {volume: facts for volume, facts in table.items() if self.calls(volume)}

    def admit(self, request: Request, table: Mapping[str, Volume]) -> Request:
        """A request with volumes in place of names. Raises RequestError if this party can't have that."""
        if request.action in self.left_out:
            raise RequestError(errno.EOPNOTSUPP, f"{request.action} is what the host's operator does")
        admitted = request._replace(name=self.volume(request.name))
        if request.source:
            source = self.volume(request.source)
            if source not in table and request.source in self.images:
                source = request.source
            admitted = admitted._replace(source=source)
        if self.quota is not None:
            self._check(self.quota, admitted, table)
        return admitted

    def _check(self, quota: Quota, request: Request, table: Mapping[str, Volume]) -> None:
        own = self.own(table)
        if request.action in ("create", "clone") and len(own) >= quota.volumes:
            raise RequestError(
                errno.EDQUOT, f"the quota is {quota.volumes} volumes, and there are {len(own)} already"
            )
        used, asked = sum(volume.size_kib for volume in own.values()), _growth(request, table)
        if asked > 0 and used + asked > quota.size_kib:
            raise RequestError(
                errno.EDQUOT,
                f"the quota is {quota.size_kib} KiB: volumes have {used}, and {asked} more are asked for",
            )


HOST = Party()


def tenant(store: Connection, domid: int) -> Party | None:
    """The tenant whose Toolstack that is; None if it has no nodes here, or they are not whole."""
    name, base = tenants.name(store, domid), tenants.base(domid)
    if not name:
        return None
    size = tenants.number(tenants.text(store, f"{base}/volumes_kib"), SIZE_MAX) or 0
    images = frozenset(map(name_of, tenants.children(store, f"{base}/images")))
    return Party(name, f"{base}/", Quota(size, 64), images, frozenset(("import", "export")), 16)


def _growth(request: Request, table: Mapping[str, Volume]) -> int:
    """By how many KiB a request makes volumes larger."""
    if request.action == "clone":
        return table[request.source].size_kib if request.source in table else 0
    size = -(-request.size // _EXTENT_KIB) * _EXTENT_KIB
    return size - table[request.name].size_kib if request.name in table else size
