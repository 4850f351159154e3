"""The PCIBack shard: resets devices, claims them for driver domains, and serves these configuration space.

Command line: `ecam=<guest-physical address of the first bus>:<first bus>:<last bus>` (segment 0), and for
each device to be handed out `device=<driver>:<domid>:<bdf>`, bdf being messages' decimal number. All of them
are reset, so Builder names none whose driver domain runs. `withdrawn=<bdf>` are reset only.
"""

import nano
from xoar.messages.channel import Channel
from xoar.messages.renewal import CLIENT, Renewal
from xoar.pci import survey
from xoar.pci.config import Window
from xoar.shards.pciback.driver import Driver
from xoar.xen import boot, events, physdev, ring
from xoar.xen.guard import Guard
from xoar.xen.served import Served
from xoar.xenstore.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from xoar.pci.bars import Bar
    from xoar.pci.config import Views

_NS_PER_MS = 1_000_000
_PAGE = 4096
_MAX_TEXT = 256
_DEVICES_PAGE = 64


def _open_page(address: int) -> "Views":
    return {
        1: nano.memory(address, _PAGE),
        2: nano.memory(address, _PAGE // 2, "H"),
        4: nano.memory(address, _PAGE // 4, "I"),
    }


def _needed(key: str) -> str:
    value = boot.setting(key)
    if value is None:
        raise ValueError("the command line has no %s=" % key)
    return value


class Host:
    """What driver.Driver needs around it. `again`: events may have gone by, so look at everything."""

    def __init__(self) -> None:
        self.again = False
        self.domid = int(_needed("domid"))
        address, first, last = _needed("ecam").split(":")
        self.window = Window(_open_page, int(address), int(first), int(last))
        store, builder = boot.uses("xenstore"), boot.uses("builder")
        writer, reader = ring.xenstore_rings(store.page)
        self.store = Client(reader, writer, lambda: events.notify(store.port), self._wait)
        outgoing, incoming = ring.xenstore_rings(builder.page)
        self._builder = Channel(
            incoming,
            outgoing,
            lambda: events.notify(builder.port),
            "builder",
            "pciback",
            print,
            Renewal(builder.page, CLIENT),
        )
        self._renewals = 0
        self._last_id = 0
        # id of a message -> its kind and fields, and what it is about
        self._asked: "dict[int, tuple[str, dict[str, Any], str]]" = {}

    def now_ms(self) -> int:
        """Milliseconds since Xen's boot."""
        return events.now() // _NS_PER_MS

    def xen(self, domid: int, bdf: int) -> physdev.Function:
        """Xen's interrupts for a function of a domain."""
        return physdev.Function(domid, bdf)

    def connect(self, domid: int, gref: int, port: int) -> Served:
        """Maps a domain's page and binds its port. Raises OSError."""
        return Served(domid, gref, port)

    def claim(self, driver: str, bdf: int, windows: "list[Bar]") -> None:
        """Tells Builder that the device may be assigned."""
        bars = [(window.address, window.size) for window in windows]
        self._tell("claim", driver, bdf=bdf, bars=bars)

    def fault(self, driver: str, text: str) -> None:
        """Tells Builder that it can't be."""
        self.report("%s: %s" % (driver, text))
        self._tell("fault", driver, text=text[:_MAX_TEXT])

    def found(self, devices: "list[survey.Found]") -> None:
        """Tells Builder of all devices."""
        for start in range(0, max(len(devices), 1), _DEVICES_PAGE):
            end = start + _DEVICES_PAGE
            more = int(len(devices) > end)
            self._send("found", "the list of devices", start=start, more=more, devices=devices[start:end])

    def report(self, text: str) -> None:
        """Takes a line for Xen's console."""
        print("pciback: " + text)

    def turn(self) -> None:
        """Moves what can be moved on both links."""
        self.again = self.store.poll() or self.again
        for message in self._builder.receive():
            _, _, what = self._asked.pop(message.id, ("", {}, "?"))
            if message.kind == "error":
                self.report("Builder refuses %s: %s" % (what, message.fields.text))
        if self._builder.renewals != self._renewals:
            self._renewals = self._builder.renewals
            # whether Builder knew of them before it was restarted it does not know itself
            unanswered, self._asked = self._asked, {}
            for id in sorted(unanswered):
                kind, fields, what = unanswered[id]
                self._send(kind, what, **fields)
        self._builder.flush()
        self.again = self.again or self._builder.more

    def changes(self) -> "set[str]":
        """Whose frontend directories have changed: once each, however much a domain writes into its own."""
        found = set()
        event = self.store.take_event()
        while event is not None:
            found.add(event[1])
            event = self.store.take_event()
        # looking at them may bring more
        self.again = self.again or bool(found)
        return found

    def _tell(self, kind: str, driver: str, **fields: "Any") -> None:
        self._send(kind, "the device of %s" % driver, driver=driver, **fields)

    def _send(self, kind: str, what: str, **fields: "Any") -> None:
        self._last_id += 1
        if self._builder.send(kind, self._last_id, **fields):
            self._asked[self._last_id] = (kind, fields, what)
        else:
            self.report("no room to tell Builder of %s" % what)

    def _wait(self) -> None:
        self.again = True
        events.wait()


class _Survey:
    """The look at all devices, a step at a time."""

    def __init__(self, host: Host) -> None:
        withdrawn = [int(word) for word in boot.settings("withdrawn")]
        self.due_ms: "int | None" = host.now_ms()
        self._host = host
        self._steps: "Generator[int, None, None]" = survey.survey(
            host.window, withdrawn, lambda bdf: host.xen(host.domid, bdf), host.report, host.found
        )

    def advance(self) -> None:
        """Goes on, if it is time."""
        now = self._host.now_ms()
        if self.due_ms is None or now < self.due_ms:
            return
        self.due_ms = None  # also if what follows is a bug
        for wait in self._steps:
            self.due_ms = now + wait
            return


def main() -> None:
    """Serves until the domain is destroyed."""
    host = Host()
    looking, guarded = _Survey(host), Guard("pciback: survey")
    drivers: "dict[str, tuple[Driver, Guard]]" = {}
    for word in boot.settings("device"):
        name, domid, bdf = word.split(":")
        driver = Driver(host, name, int(domid), int(bdf))
        drivers[name] = (driver, Guard("pciback: " + name))
        host.store.watch(driver.frontend, name)
    boot.ready()
    print("pciback: ready, %d devices" % len(drivers))
    while True:
        host.again = False
        host.turn()
        for name in host.changes():
            driver, guard = drivers[name]
            guard.call(driver.changed)
        guarded.call(looking.advance)
        due = [looking.due_ms * _NS_PER_MS] if looking.due_ms is not None else []
        for driver, guard in drivers.values():
            guard.call(driver.serve)
            guard.call(driver.advance)
            if driver.due_ms is not None:
                due.append(driver.due_ms * _NS_PER_MS)
        events.wait(events.now() if host.again else min(due) if due else None)
