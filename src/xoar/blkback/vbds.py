"""Virtual block devices of guests: which volume each is to have, and who may have which.

The node of a device belongs to the Toolstack of the guest, a tenant's perhaps, and XenStore makes it when
Builder allows the device: its owner says whose volumes `params` speaks of, and nothing that is written does.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from xoar.blkback import dm
from xoar.blkback.claims import Claims, Vbd
from xoar.blkback.desks import line
from xoar.blkback.errors import AttachError, BlkBackError
from xoar.blkback.parties import Party
from xoar.blkback.volumes import Volume
from xoar.xenstore import tenants
from xoar.xenstore.errors import Refused
from xoar.xenstore.linux import Connection

VBDS = "backend/vbd"
LEAVES = ("params", "state", "online", "hotplug-status")
"""The nodes of a device whose changes count; the others come with `params`, or are its driver's."""

_CLOSED = "6"  # XenbusStateClosed, io/xenbus.h
_CLOSING = 30.0  # seconds: for the last user's requests to end before a volume has its next user
_VDEV_MAX = 0xFFFFFFFF


class Pool(Protocol):
    """What is asked of the volumes."""

    @property
    def table(self) -> Mapping[str, Volume]: ...

    def get(self, name: str) -> Volume: ...

    def status(self, name: str) -> dm.Status | None: ...


def vbd_of(untrusted_guest: str, untrusted_device: str) -> Vbd | None:
    """The device that two nodes are named by, None if they are not such numbers."""
    guest = tenants.domid_of(untrusted_guest)
    if guest is None or tenants.number(untrusted_device, _VDEV_MAX) is None:
        return None
    return Vbd(guest, untrusted_device)


class Vbds:
    """All devices. `party_of` gives the party of a Toolstack's domid, None if it has none; `busy` says
    what is being done with a volume so that nobody can have it now ("" if nothing is)."""

    def __init__(
        self, store: Connection, party_of: Callable[[int], Party | None], busy: Callable[[str], str]
    ) -> None:
        self.claims = Claims()
        self.changed = False
        """Whether a volume has got or lost a user; for who shows that to take back."""
        self._store = store
        self._party_of = party_of
        self._busy = busy
        self._waiting: dict[Vbd, float] = {}

    def all(self) -> list[Vbd]:
        """Those that have nodes, and those that had."""
        there = [
            vbd_of(guest, device)
            for guest in tenants.children(self._store, VBDS)
            for device in tenants.children(self._store, f"{VBDS}/{guest}")
        ]
        return list({*(vbd for vbd in there if vbd), *self.claims.vbds(), *self._waiting})

    def waiting(self) -> list[Vbd]:
        """Those that are to be looked at again soon."""
        return list(self._waiting)

    def adopt(self, pool: Pool) -> None:
        """Devices that this agent's predecessor attached keep their volumes."""
        numbers = {number(status): name for name in pool.table if (status := pool.status(name)) is not None}
        for vbd in self.all():
            volume = numbers.get(self._node(vbd, "physical-device"))
            party = self._party(vbd)
            # a tenant that was withdrawn keeps what it had, and has no name here any more
            if volume and (party is None or party.calls(volume) == self._node(vbd, "params")):
                with contextlib.suppress(AttachError):
                    self.claims.add(vbd, volume, self._node(vbd, "mode") != "r")

    def follow(self, vbd: Vbd, pool: Pool | None, failure: str) -> None:
        """Brings a device to where XenStore wants it; without volumes, `failure` says why there are none."""
        if not self._is_wanted(vbd):
            self._release(vbd)
            self._waiting.pop(vbd, None)
            return
        if vbd in self.claims or self._node(vbd, "hotplug-status"):
            return
        try:
            if pool is None or failure:
                raise AttachError(failure)
            status = self._claim(vbd, pool)
        except (BlkBackError, OSError) as error:
            self._waiting.pop(vbd, None)
            self._write(vbd, {"hotplug-error": line(error), "hotplug-status": "error"})
            return
        if status is not None:
            self._waiting.pop(vbd, None)
            self._write(vbd, {"physical-device": number(status), "hotplug-status": "connected"})

    def _is_wanted(self, vbd: Vbd) -> bool:
        # a guest that goes from one driver to the next (GRUB's, Linux's) closes the device and opens it again
        state = self._node(vbd, "state")
        if state == _CLOSED and self._node(vbd, "online") != "1":
            return False
        # requests take long on a busy host: whose state is there is there
        return bool(state and vbd in self.claims) or bool(self._node(vbd, "params"))

    def _party(self, vbd: Vbd) -> Party | None:
        owner = tenants.owner(self._store, _path(vbd))
        return None if owner is None else self._party_of(owner)

    def _volume(self, vbd: Vbd, name: str) -> str:
        """The volume that a device is to have. Raises RequestError, AttachError."""
        party = self._party(vbd)
        if party is None:
            raise AttachError("this driver domain is not delegated to the Toolstack of the guest")
        return party.volume(name)

    def _claim(self, vbd: Vbd, pool: Pool) -> dm.Status | None:
        """Gives a device its volume; None if that has to wait. Raises BlkBackError, OSError."""
        name = self._node(vbd, "params")
        volume = self._volume(vbd, name)
        pool.get(volume)
        busy = self._busy(volume)
        if busy:
            raise AttachError(f"volume {name} is busy: {busy}")
        for user in self.claims.vbds(volume):
            # who has gone may have gone before the event that says so
            if not self._is_wanted(user):
                self._release(user)
        writable = self._node(vbd, "mode") != "r"
        self.claims.check(volume, writable)
        status = pool.status(volume)
        if status is None:
            raise AttachError(f"volume {name} can't be activated")
        if status.open_count and not self.claims.users(volume):
            # the last user is gone from XenStore, but its requests have not all ended
            if time.monotonic() > self._waiting.setdefault(vbd, time.monotonic() + _CLOSING):
                raise AttachError(f"volume {name} is still open for its last user")
            return None
        self.claims.add(vbd, volume, writable)
        self.changed = True
        return status

    def _release(self, vbd: Vbd) -> None:
        if vbd in self.claims:
            self.claims.remove(vbd)
            self.changed = True

    def _node(self, vbd: Vbd, name: str) -> str:
        return tenants.text(self._store, f"{_path(vbd)}/{name}")

    def _write(self, vbd: Vbd, nodes: dict[str, str]) -> None:
        """Writes nodes of a device, in this order, unless it has gone meanwhile, or hides."""

        def body(transaction: int) -> None:
            self._store.read(f"{_path(vbd)}/params", transaction)
            for name, value in nodes.items():
                self._store.write(f"{_path(vbd)}/{name}", value, transaction)

        try:
            self._store.transaction(body)
        except Refused as error:
            print(f"blkback: vbd {vbd.guest}/{vbd.device} can't be answered: {error.name}", flush=True)
            self._release(vbd)


def number(status: dm.Status) -> str:
    """A device's number as xen-blkback reads it."""
    return f"{status.major:x}:{status.minor:x}"


def _path(vbd: Vbd) -> str:
    return f"{VBDS}/{vbd.guest}/{vbd.device}"
