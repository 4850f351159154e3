"""BlkBack's agent: follows XenStore, attaches volumes to guests, and has requests done one after the other.

The main loop owns XenStore and decides who may use what; it runs no program. A thread does the request that
is current. The host and each tenant have a desk of their own (desks.py), and are served in turn, so that one
who asks for ever does not keep the others waiting; events are only noted when they come, so that one who
makes many does not, either. docs/devices.md has the nodes.
"""

import errno
import os
import select
import time
from collections.abc import Callable

from xoar.blkback import disks, dm
from xoar.blkback.claims import Vbd
from xoar.blkback.desks import Desk, line, refusal
from xoar.blkback.errors import BlkBackError, DiskError, RequestError
from xoar.blkback.jobs import Job
from xoar.blkback.names import split
from xoar.blkback.parties import HOST, Party, tenant
from xoar.blkback.requests import Request
from xoar.blkback.vbds import LEAVES, VBDS, Vbds, vbd_of
from xoar.blkback.volumes import Volume, Volumes
from xoar.xenstore import tenants
from xoar.xenstore.linux import DEVICE, Connection, connect

_REQUESTS = "requests"
_EVENTS = 1000  # that are noted before there is a turn
_TURN = 1.0  # seconds
_REFRESH = 3.0  # seconds between looks at the volumes
_MEASURES = 30.0  # seconds that what they take is shown for: under load it changes with each look
_PATIENCE = 60.0  # seconds: for the controller's disks to appear


class Agent:
    """The agent once it knows whether there are volumes: if not, `failure` says why, and everything that is
    asked for is refused with it. `wake` is called by another thread: `turn` has something to do."""

    def __init__(
        self, store: Connection, volumes: Volumes | None, failure: str, wake: Callable[[], object]
    ) -> None:
        self._store = store
        self._volumes = volumes
        self._failure = failure
        self._wake = wake
        self._host = Desk(store, HOST)
        self._tenants: dict[int, Desk] = {}
        self._turns: list[Desk] = [self._host]  # who waited longest first
        self._vbds = Vbds(store, self._party_of, self._being_done)
        self._job: Job | None = None
        self._refreshed = 0.0  # when pool and volumes were shown; 0 makes the next turn do it
        self._measured = 0.0
        self._used: dict[str, int] = {}  # KiB that each volume took when it was measured, and "" the pool
        # what events have told since the last turn
        self._all_tenants = self._all_vbds = False
        self._changed_tenants: set[int] = set()
        self._changed_vbds: set[Vbd] = set()

    def start(self) -> None:
        """Takes over what is in XenStore already, says how it stands, and watches from then on."""
        self._host.open()
        for domid in tenants.found(self._store):
            self._read_tenant(domid)
        if self._volumes is not None:
            self._vbds.adopt(self._volumes)
        self._publish()
        if self._failure:
            print(f"blkback: {self._failure}", flush=True)
        self._say_state()
        self._store.watch(tenants.TENANTS, tenants.TENANTS)
        self._store.watch(VBDS, VBDS)
        self._store.watch(_REQUESTS, _REQUESTS)

    def event(self, path: str, token: str) -> None:
        """Notes that a watch has fired."""
        words = path.removeprefix(token).split("/")[1:]
        if token == _REQUESTS:
            self._host.dirty = True
        elif token == VBDS:
            vbd = vbd_of(words[0], words[1]) if len(words) > 1 else None
            if len(words) < 2:
                self._all_vbds = True
            elif vbd is not None and (len(words) == 2 or words[2] in LEAVES):
                self._changed_vbds.add(vbd)
        elif not words:
            self._all_tenants = True
        else:
            self._note_tenant(words)

    def turn(self) -> None:
        """Does what is due; at least once a second, and whenever `wake` was called."""
        self._follow_tenants()
        self._follow_vbds()
        for desk in self._desks():
            if desk.dirty:
                desk.look()
        self._follow_job()
        if self._vbds.changed or time.monotonic() >= self._refreshed + _REFRESH:
            self._publish()
        self._say_state()
        self._begin()

    @property
    def busy(self) -> bool:
        """Whether there is something to do for the next turn already."""
        return self._job is None and any(desk.waiting for desk in self._desks())

    # whom it serves

    def _desks(self) -> list[Desk]:
        return [self._host, *self._tenants.values()]

    def _party_of(self, domid: int) -> Party | None:
        """Whom a Toolstack speaks for."""
        if domid == tenants.owner(self._store, tenants.SERVICE):
            return HOST
        desk = self._tenants.get(domid)
        return None if desk is None else desk.party

    def _note_tenant(self, words: list[str]) -> None:
        domid = tenants.domid_of(words[0])
        if domid is None:
            return
        if words[1:2] == [_REQUESTS] and len(words) > 2:
            if domid in self._tenants:
                self._tenants[domid].dirty = True
        elif words[1:2] != [tenants.SERVICE] or len(words) == 2:
            self._changed_tenants.add(domid)

    def _follow_tenants(self) -> None:
        changed, self._changed_tenants = self._changed_tenants, set()
        if self._all_tenants:
            self._all_tenants = False
            changed.update(self._tenants, tenants.found(self._store))
        for domid in sorted(changed):
            self._read_tenant(domid)

    def _read_tenant(self, domid: int) -> None:
        """Opens and closes the desk of a tenant as its nodes say."""
        party, desk = tenant(self._store, domid), self._tenants.get(domid)
        if desk is not None and (party is None or party.tenant != desk.party.tenant or desk.wiped):
            self._turns.remove(desk)
            del self._tenants[domid]
            desk = None
        if party is None:
            return
        if desk is None:
            desk = self._tenants[domid] = Desk(self._store, party)
            self._turns.append(desk)
            desk.open()
        desk.party = party
        desk.dirty = True
        desk.try_again()
        self._refreshed = 0.0

    # devices

    def _follow_vbds(self) -> None:
        changed, self._changed_vbds = self._changed_vbds, set()
        if self._all_vbds:
            self._all_vbds = False
            changed.update(self._vbds.all())
        for vbd in sorted(changed.union(self._vbds.waiting())):
            self._vbds.follow(vbd, self._volumes, self._failure)

    def _being_done(self, volume: str) -> str:
        job = self._job
        if job is not None and job.request.name == volume and job.request.action in ("delete", "export"):
            return job.request.action
        return ""

    # requests

    def _follow_job(self) -> None:
        job = self._job
        if job is None:
            return
        if job.answer:
            self._job = None
            self._used = {}
            self._publish()
            print(f"blkback: {job.desk.title}: request {job.number}: {job.answer}", flush=True)
        # a desk that was closed meanwhile, or closed and opened again, is not told
        if job.desk in self._turns:
            job.desk.reply(job.number, job.answer or f"progress {job.percent}")

    def _begin(self) -> None:
        """Begins one of the requests that wait, of who was served longest ago."""
        desk = next((desk for desk in self._turns if desk.waiting), None)
        if self._job is not None or desk is None:
            return
        self._turns.remove(desk)
        self._turns.append(desk)
        number = desk.waiting.pop(0)
        try:
            if self._volumes is None or self._failure:
                raise RequestError(errno.EIO, self._failure)
            request = desk.read(number)
            admitted = desk.party.admit(request, self._volumes.table)
            self._check_free(admitted, request.name)
        except RequestError as error:
            desk.reply(number, refusal(error))
            return
        print(f"blkback: {desk.title}: request {number}: {request.action} {request.name}", flush=True)
        desk.reply(number, "progress 0")
        self._job = Job(desk, number, admitted, self._volumes, self._wake)

    def _check_free(self, request: Request, name: str) -> None:
        claims = self._vbds.claims
        users = ", ".join(map(str, claims.users(request.name)))
        if request.action == "delete" and users:
            raise RequestError(errno.EBUSY, f"volume {name} is in use by domain {users}")
        if request.action == "export" and claims.written(request.name):
            raise RequestError(
                errno.EBUSY, f"volume {name} is in use by domain {users}: clone it and export the clone"
            )

    # what the agent says

    def _publish(self) -> None:
        """Shows pool and volumes; a data disk that has gone or failed is found here."""
        self._refreshed = time.monotonic()
        self._vbds.changed = False
        if self._volumes is None:
            return
        try:
            pool = None if self._failure else self._volumes.pool()
        except (DiskError, OSError) as error:
            self._failure, pool = str(error), None
            print(f"blkback: {error}", flush=True)
        if pool is not None:
            if self._refreshed >= self._measured + _MEASURES:
                self._measured, self._used = self._refreshed, {}
            used = self._used.setdefault("", pool.used_kib)
            self._host.show("pool", f"size_kib={pool.size_kib} used_kib={used}")
        table = self._volumes.table
        states = {name: None if self._failure else self._volumes.status(name) for name in table}
        for desk in self._desks():
            self._show_volumes(desk, table, states)
        self._show_tenants(table, states)

    def _show_volumes(
        self, desk: Desk, table: dict[str, Volume], states: dict[str, dm.Status | None]
    ) -> None:
        party, job = desk.party, self._job
        said, kept = {}, []
        for volume, facts in party.own(table).items():
            if states[volume] is None and job is not None and job.request.name == volume:
                kept.append(party.calls(volume))  # on its way in or out
            else:
                origin = party.calls(facts.origin) if facts.origin else ""
                said[party.calls(volume)] = self._words(volume, facts, origin, states[volume])
        desk.show_table("volumes", said, kept)
        if party.quota is not None:
            used = sum(facts.size_kib for facts in party.own(table).values())
            desk.show("pool", f"size_kib={party.quota.size_kib} used_kib={used}")

    def _show_tenants(self, table: dict[str, Volume], states: dict[str, dm.Status | None]) -> None:
        """What each tenant's volumes take, for the host's operators; also of tenants withdrawn."""
        sums = {desk.party.tenant: (0, 0, 0) for desk in self._tenants.values()}
        for volume, facts in table.items():
            owner, _ = split(volume)
            if owner:
                count, size, used = sums.get(owner, (0, 0, 0))
                taken = self._used_kib(volume, states[volume]) or 0
                sums[owner] = (count + 1, size + facts.size_kib, used + taken)
        said = {
            owner: f"volumes={count} size_kib={size} used_kib={used}"
            for owner, (count, size, used) in sums.items()
        }
        self._host.show_table(tenants.TENANTS, said, [])

    def _words(self, volume: str, facts: Volume, origin: str, status: dm.Status | None) -> str:
        used = self._used_kib(volume, status)
        state = "importing" if facts.unfinished else "bad" if used is None else "ok"
        users = ",".join(map(str, self._vbds.claims.users(volume)))
        return (
            f"size_kib={facts.size_kib} used_kib={used or 0} origin={origin or '-'}"
            f" users={users or '-'} state={state}"
        )

    def _used_kib(self, volume: str, status: dm.Status | None) -> int | None:
        """What a volume takes of the pool; None if it is not usable."""
        used = dm.thin_used(status.text) if status else None
        return None if used is None else self._used.setdefault(volume, used)

    def _say_state(self) -> None:
        """Comes after all else that is to be said: who hears "ready" serves."""
        for desk in self._desks():
            if self._failure:
                desk.show("note", line(self._failure))
            desk.show("state", "failed" if self._failure else "ready")


def open_volumes() -> Volumes:
    """The volumes of this controller's data disk; waits for the disk. Raises DiskError."""
    disk, seen = disks.data_disk(_PATIENCE)
    print(f"blkback: data disk {disk.name}; {disks.tell(seen)}", flush=True)
    return Volumes.open(disk, seen[disk] == "blank")


def serve(path: str = DEVICE) -> None:
    """Serves for ever. `path` is XenStore's device, or a socket. Raises what connect and Connection raise."""
    wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with connect(path) as store:
        store.write("service/state", "starting")
        volumes, failure = None, ""
        try:
            volumes = open_volumes()
        except (BlkBackError, OSError) as error:
            failure = str(error)
        agent = Agent(store, volumes, failure, lambda: os.eventfd_write(wake, 1))
        agent.start()
        while True:
            for _ in range(_EVENTS):
                event = store.next_event(0)
                if event is None:
                    break
                agent.event(*event)
            agent.turn()
            # an event may have come along with a reply
            patience = 0 if agent.busy or store.has_event() else _TURN
            ready, _, _ = select.select([store.fileno(), wake], [], [], patience)
            if wake in ready:
                os.eventfd_read(wake)
