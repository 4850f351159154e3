"""Volumes: what BlkBack's agents say of them, and requests that change them (docs/devices.md).

An agent is the authority on its volumes; the Toolstack passes requests on and answers back.
"""

from xoar.messages.errors import EBUSY, EINVAL, EIO, ENOENT
from xoar.toolstack import service
from xoar.toolstack.driver import BLKBACK
from xoar.toolstack.store import Batch
from xoar.xenstore import wire
from xoar.xenstore.paths import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xoar.toolstack.agents import Agents
    from xoar.toolstack.driver import Driver
    from xoar.toolstack.guest import Request
    from xoar.toolstack.store import StoreLink

MAX_VOLUMES = 256
"""Of one driver domain; what it says of further ones is not kept."""

MAX_REQUESTS = 16
"""Of one driver domain, unanswered."""

_PER_PAGE = 16
_MAX_POOLS = 8


class Change:
    """A request to a driver domain that waits for its reply."""

    def __init__(self, driver: "Driver", request: "Request") -> None:
        self.driver = driver
        self.request = request
        self.percent = 0


class Volumes:
    """All volumes and all requests about them."""

    def __init__(self, store: "StoreLink", drivers: "Agents") -> None:
        self._store = store
        self._drivers = drivers
        self.last = 0
        """The number of the last request, which no later one has."""
        self._changes: "dict[int, Change]" = {}
        self._volumes: "dict[str, dict[str, Any]]" = {}
        self._pools: "dict[str, Any]" = {}
        drivers.lost.append(self._lost)
        drivers.listeners["volumes"] = self._hear_volume
        drivers.listeners["pool"] = self._hear_pool
        drivers.listeners["replies"] = self._hear_reply

    @property
    def idle(self) -> bool:
        """Whether no driver domain has anything to do for an operator."""
        return not self._changes

    # operators' requests

    def change(self, fields: "Any", request: "Request") -> None:
        """Passes a volume_change on; answered when the agent has replied."""
        driver = self._driver(fields.driver, request)
        if driver is None:
            return
        line = command(fields)
        if not line:
            text = "volume %s: %s needs %s" % (fields.name, fields.action, _NEEDS[fields.action])
            request.refuse(EINVAL, text)
            return
        if len(self._of(driver)) >= MAX_REQUESTS:
            request.refuse(EBUSY, "%s has %d requests to do, the most allowed" % (driver.name, MAX_REQUESTS))
            return
        self.last += 1
        number = self.last
        self._changes[number] = Change(driver, request)
        batch = Batch(self._store)
        batch.add(wire.WRITE, _request_path(driver, number), line)

        def written(refused: str) -> None:
            if refused and number in self._changes:
                self._changes.pop(number).request.refuse(EIO, refused)

        self._store.run(batch, written)

    def progress(self, name: str, request: "Request") -> None:
        """Answers volume_progress: of the oldest request that is unanswered."""
        driver = self._driver(name, request)
        if driver is not None:
            changes = self._of(driver)
            request.answer("progress", percent=max([change.percent for change in changes] or [0]))

    def page(self, start: int, request: "Request") -> None:
        """Answers volume_list; the pools come with every page."""
        volumes = []
        for driver in self._drivers.all:
            known = self._volumes.get(driver.name, {})
            volumes += [known[name] for name in sorted(known)]
        end = start + _PER_PAGE
        pools = [self._pools[name] for name in sorted(self._pools)][:_MAX_POOLS]
        request.answer("volumes", more=int(len(volumes) > end), volumes=volumes[start:end], pools=pools)

    def _driver(self, name: str, request: "Request") -> "Driver | None":
        driver = self._drivers.find(name)
        if driver is None or driver.kind != BLKBACK:
            request.refuse(ENOENT, "there is no %s %s" % (BLKBACK, name))
            return None
        if driver.trouble:
            request.refuse(EBUSY, driver.trouble)
            return None
        return driver

    def _of(self, driver: "Driver") -> "list[Change]":
        return [change for change in self._changes.values() if change.driver is driver]

    # driver domains

    def _lost(self, driver: "Driver") -> None:
        self._volumes[driver.name] = {}
        self._pools.pop(driver.name, None)
        for number in list(self._changes):
            if self._changes[number].driver is driver:
                text = "driver domain %s ended before it replied" % driver.name
                self._changes.pop(number).request.refuse(EIO, text)

    def _hear_volume(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        known = self._volumes.setdefault(driver.name, {})
        if len(words) != 1:
            if not words and untrusted_value is None:
                known.clear()
            return
        name = name_of(words[0])
        volume = service.volume(driver.name, name, untrusted_value)
        if volume is None:
            known.pop(name, None)
        elif name in known or len(known) < MAX_VOLUMES:
            known[name] = volume

    def _hear_pool(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        pool = service.pool(driver.name, untrusted_value)
        if not words and pool is not None:
            self._pools[driver.name] = pool

    def _hear_reply(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        number = service.number(words[0].encode(), self.last) if len(words) == 1 else None
        change = self._changes.get(number or 0)
        reply = service.reply(untrusted_value)
        if change is None or change.driver is not driver or reply is None:
            return
        if reply.verb == "progress":
            change.percent = reply.percent
            return
        del self._changes[number or 0]
        batch = Batch(self._store)
        batch.add(wire.RM, _request_path(driver, number or 0))
        self._store.run(batch, lambda refused: None)
        if reply.verb == "ok":
            change.request.answer("volume_changed", length=reply.length, sha256=reply.sha256)
        else:
            change.request.refuse(reply.errno, reply.text)


_NEEDS = {
    "create": "a size",
    "clone": "a source",
    "grow": "a size",
    "delete": "a name",
    "import": "a length and a size",
    "export": "room for it (its length)",
}


def command(fields: "Any") -> str:
    """The line of a request to BlkBack for the fields of a volume_change; "" if something is missing."""
    action, name = fields.action, fields.name
    if action in ("create", "grow"):
        return "%s %s %d" % (action, name, fields.size_kib) if fields.size_kib else ""
    if action == "clone":
        return "clone %s %s" % (fields.source, name) if service.is_name(fields.source) else ""
    if action == "delete":
        return "delete %s" % name
    if not fields.length:
        return ""
    if action == "export":
        return "export %s %d %d" % (name, fields.offset, fields.length)
    if not fields.size_kib:
        return ""
    digest = "".join(["%02x" % byte for byte in fields.sha256])
    words = (name, fields.format, fields.offset, fields.length, fields.size_kib, digest)
    return "import %s %s %d %d %d %s" % words


def _request_path(driver: "Driver", number: int) -> str:
    return "%s/%d" % (driver.requests, number)
