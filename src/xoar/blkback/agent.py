"""BlkBack's agent: follows XenStore, attaches volumes to guests, and has requests done one after the other.

The main loop owns XenStore and decides who may use what; it runs no program. A thread does the request that
is current, so that an import holds nobody up. docs/devices.md has the nodes.
"""

import contextlib
import errno
import os
import select
import threading
import time
import traceback
from collections.abc import Callable

from xoar.blkback import disks, dm, transfer
from xoar.blkback.claims import Claims, Vbd
from xoar.blkback.errors import AttachError, BlkBackError, DiskError, RequestError
from xoar.blkback.requests import Request, parse
from xoar.blkback.volumes import Volume, Volumes
from xoar.xenstore.errors import Refused
from xoar.xenstore.linux import DEVICE, Connection, connect
from xoar.xenstore.paths import name_of, node_of

_VBDS = "backend/vbd"
_REQUESTS = "requests"
_REPLIES = "service/replies"
_VOLUMES = "service/volumes"
_CLOSED = "6"  # XenbusStateClosed, io/xenbus.h
_TURN = 1.0  # seconds
_REFRESH = 3.0  # seconds between looks at how full the pool is
_PATIENCE = 20.0  # seconds: for the controller's disks to appear
_CLOSING = 30.0  # seconds: for the last user's requests to end before a volume has its next user
_TEXT_MAX = 128


def perform(volumes: Volumes, request: Request, progress: transfer.Progress) -> str:
    """Does a request; the words of the reply. Raises RequestError, DiskError, OSError."""
    if request.action == "create":
        volumes.create(request.name, request.size)
    elif request.action == "clone":
        volumes.clone(request.source, request.name)
    elif request.action == "grow":
        volumes.grow(request.name, request.size)
    elif request.action == "delete":
        volumes.delete(request.name)
    elif request.action == "import":
        transfer.import_image(volumes, request, progress)
    else:
        return transfer.export_image(volumes, request, progress)
    return ""


class Job:
    """A request that a thread does. `answer` is empty until it is done; then `wake` is called."""

    def __init__(self, number: str, request: Request, volumes: Volumes, wake: Callable[[], object]) -> None:
        self.number = number
        self.request = request
        self.percent = 0
        self.answer = ""
        self._volumes = volumes
        self._wake = wake
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            answer = f"ok {perform(self._volumes, self.request, self._progress)}".rstrip()
        except Exception as error:
            answer = _refusal(error)
        self.answer = answer
        self._wake()

    def _progress(self, percent: int) -> None:
        self.percent = percent


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
        self._claims = Claims()
        self._waiting: dict[Vbd, float] = {}
        self._queue: list[str] = []
        self._known: set[str] = set()
        self._job: Job | None = None
        self._shown: dict[str, str] = {}
        self._refreshed = 0.0  # when pool and volumes were shown; 0 makes the next turn do it

    def start(self) -> None:
        """Takes over what is in XenStore already, says how it stands, and watches from then on."""
        self._store.rm(_VOLUMES)
        for vbd in self._vbds():
            self._adopt(vbd)
        for number in self._store.children(_REQUESTS):
            reply = self._store.text(f"{_REPLIES}/{number}")
            if reply is not None:
                self._known.add(number)
                if reply.startswith("progress"):
                    self._reply(number, f"error {errno.EINTR} interrupted: BlkBack was restarted")
        self._publish()
        if self._failure:
            self._fail(self._failure)
        else:
            self._show("service/state", "ready")
        self._store.watch(_VBDS, "vbd")
        self._store.watch(_REQUESTS, "requests")

    def event(self, path: str, token: str) -> None:
        """A watch has fired."""
        if token == "requests":
            self._find_requests()
            return
        words = path.rpartition(_VBDS)[2].split("/")[1:3]
        if len(words) == 2 and words[0].isdigit():
            self._follow(Vbd(int(words[0]), words[1]))
            return
        for vbd in {*self._vbds(), *self._claims.vbds(), *self._waiting}:
            self._follow(vbd)

    def turn(self) -> None:
        """Does what is due; at least once a second, and whenever `wake` was called."""
        for vbd in list(self._waiting):
            self._follow(vbd)
        job = self._job
        if job is not None and job.answer:
            self._job = None
            self._publish()
            self._reply(job.number, job.answer)
        elif job is not None:
            self._show(f"{_REPLIES}/{job.number}", f"progress {job.percent}")
        if time.monotonic() >= self._refreshed + _REFRESH:
            self._publish()
        while self._queue and self._job is None:
            self._begin(self._queue.pop(0))

    # virtual block devices

    def _vbds(self) -> list[Vbd]:
        return [
            Vbd(int(guest), device)
            for guest in self._store.children(_VBDS)
            if guest.isdigit()
            for device in self._store.children(f"{_VBDS}/{guest}")
        ]

    def _node(self, vbd: Vbd, name: str) -> str:
        return self._store.text(f"{_VBDS}/{vbd.guest}/{vbd.device}/{name}") or ""

    def _adopt(self, vbd: Vbd) -> None:
        """A vbd that this agent's predecessor attached keeps its volume."""
        volume = self._node(vbd, "params")
        if self._volumes is None or volume not in self._volumes.table:
            return
        status = self._volumes.status(volume)
        if status is not None and self._node(vbd, "physical-device") == _number(status):
            with contextlib.suppress(AttachError):
                self._claims.add(vbd, volume, self._node(vbd, "mode") != "r")

    def _wanted(self, vbd: Vbd) -> str:
        """The volume that a vbd is to have; empty if there is no such vbd any more."""
        # a guest that goes from one driver to the next (GRUB's, Linux's) closes the device and opens it again
        if self._node(vbd, "state") == _CLOSED and self._node(vbd, "online") != "1":
            return ""
        return self._node(vbd, "params")

    def _follow(self, vbd: Vbd) -> None:
        """Brings a vbd to where XenStore wants it."""
        volume = self._wanted(vbd)
        if not volume:
            self._release(vbd)
            self._waiting.pop(vbd, None)
            return
        if vbd in self._claims or self._node(vbd, "hotplug-status"):
            return
        try:
            status = self._claim(vbd, volume)
        except (BlkBackError, OSError) as error:
            self._waiting.pop(vbd, None)
            print(f"blkback: vbd {vbd.guest}/{vbd.device}: {error}", flush=True)
            self._write(vbd, {"hotplug-error": _line(error), "hotplug-status": "error"})
            return
        if status is not None:
            self._waiting.pop(vbd, None)
            self._write(vbd, {"physical-device": _number(status), "hotplug-status": "connected"})

    def _claim(self, vbd: Vbd, volume: str) -> dm.Status | None:
        """Gives a volume to a vbd; None if that has to wait. Raises BlkBackError."""
        if self._volumes is None or self._failure:
            raise AttachError(self._failure)
        self._volumes.get(volume)
        job = self._job
        if job is not None and job.request.name == volume and job.request.action in ("delete", "export"):
            raise AttachError(f"volume {volume} is busy: {job.request.action}")
        for user in self._claims.vbds():  # who has gone may have gone before the event that says so
            if not self._wanted(user):
                self._release(user)
        writable = self._node(vbd, "mode") != "r"
        self._claims.check(volume, writable)
        status = self._volumes.status(volume)
        if status is None:
            raise AttachError(f"volume {volume} can't be activated")
        if status.open_count and not self._claims.users(volume):
            # the last user is gone from XenStore, but its requests have not all ended
            if time.monotonic() > self._waiting.setdefault(vbd, time.monotonic() + _CLOSING):
                raise AttachError(f"volume {volume} is still open for its last user")
            return None
        self._claims.add(vbd, volume, writable)
        self._refreshed = 0.0
        return status

    def _release(self, vbd: Vbd) -> None:
        if vbd in self._claims:
            self._claims.remove(vbd)
            self._refreshed = 0.0

    def _write(self, vbd: Vbd, nodes: dict[str, str]) -> None:
        """Writes nodes of a vbd, in this order, unless it has gone meanwhile."""
        base = f"{_VBDS}/{vbd.guest}/{vbd.device}"

        def body(transaction: int) -> None:
            self._store.read(f"{base}/params", transaction)
            for name, value in nodes.items():
                self._store.write(f"{base}/{name}", value, transaction)

        try:
            self._store.transaction(body)
        except Refused as error:
            if error.name != "ENOENT":
                raise
            self._release(vbd)

    # requests

    def _find_requests(self) -> None:
        numbers = self._store.children(_REQUESTS)
        for number in self._store.children(_REPLIES):
            if number not in numbers and not (self._job and self._job.number == number):
                self._store.rm(f"{_REPLIES}/{number}")
                self._shown.pop(f"{_REPLIES}/{number}", None)
        self._known.intersection_update(numbers)
        # numbers that count up sort by length first
        for number in sorted(set(numbers) - self._known, key=lambda number: (len(number), number)):
            self._known.add(number)
            self._queue.append(number)

    def _begin(self, number: str) -> None:
        line = self._store.text(f"{_REQUESTS}/{number}")
        if line is None:
            return
        print(f"blkback: request {number}: {_line(line)}", flush=True)
        try:
            if self._volumes is None or self._failure:
                raise RequestError(errno.EIO, self._failure)
            request = parse(line)
            self._check_free(request)
        except RequestError as error:
            self._reply(number, _refusal(error))
            return
        self._show(f"{_REPLIES}/{number}", "progress 0")
        self._job = Job(number, request, self._volumes, self._wake)

    def _check_free(self, request: Request) -> None:
        users = ", ".join(map(str, self._claims.users(request.name)))
        if request.action == "delete" and users:
            raise RequestError(errno.EBUSY, f"volume {request.name} is in use by domain {users}")
        if request.action == "export" and self._claims.written(request.name):
            raise RequestError(
                errno.EBUSY,
                f"volume {request.name} is in use by domain {users}: clone it and export the clone",
            )

    def _reply(self, number: str, answer: str) -> None:
        print(f"blkback: request {number}: {answer}", flush=True)
        self._show(f"{_REPLIES}/{number}", answer)

    # what the agent says

    def _publish(self) -> None:
        """Shows pool and volumes; a data disk that has gone or failed is found here."""
        self._refreshed = time.monotonic()
        if self._volumes is None:
            return
        try:
            pool = None if self._failure else self._volumes.pool()
        except (DiskError, OSError) as error:
            self._fail(str(error))
            pool = None
        if pool is not None:
            self._show("service/pool", f"size_kib={pool.size_kib} used_kib={pool.used_kib}")
        table = self._volumes.table
        for name, volume in table.items():
            status = None if self._failure else self._volumes.status(name)
            if status is None and self._job is not None and self._job.request.name == name:
                continue  # on its way in or out
            self._show(f"{_VOLUMES}/{node_of(name)}", self._words(name, volume, status))
        for path in [path for path in self._shown if path.startswith(f"{_VOLUMES}/")]:
            if name_of(path[len(_VOLUMES) + 1 :]) not in table:
                self._store.rm(path)
                del self._shown[path]

    def _words(self, name: str, volume: Volume, status: dm.Status | None) -> str:
        used = dm.thin_used(status.text) if status else None
        state = "importing" if volume.unfinished else "bad" if used is None else "ok"
        users = ",".join(map(str, self._claims.users(name)))
        return (
            f"size_kib={volume.size_kib} used_kib={used or 0} origin={volume.origin or '-'}"
            f" users={users or '-'} state={state}"
        )

    def _fail(self, why: str) -> None:
        self._failure = why
        print(f"blkback: {why}", flush=True)
        self._show("service/note", _line(why))
        self._show("service/state", "failed")

    def _show(self, path: str, value: str) -> None:
        if self._shown.get(path) != value:
            self._store.write(path, value)
            self._shown[path] = value


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
            while (event := store.next_event(0)) is not None:
                agent.event(*event)
            agent.turn()
            ready, _, _ = select.select([store.fileno(), wake], [], [], _TURN)
            if wake in ready:
                os.eventfd_read(wake)


def _number(status: dm.Status) -> str:
    return f"{status.major:x}:{status.minor:x}"


def _refusal(error: Exception) -> str:
    number, text = errno.EIO, str(error)
    if isinstance(error, RequestError):
        number = error.number
    elif isinstance(error, OSError):
        number, text = error.errno or number, error.strerror or text
    elif not isinstance(error, BlkBackError):
        traceback.print_exception(error)
    return f"error {number} {_line(text)}"


def _line(text: object) -> str:
    """One line of printable ASCII."""
    words = "".join(letter if " " <= letter <= "~" else "?" for letter in str(text))
    return words[:_TEXT_MAX]
