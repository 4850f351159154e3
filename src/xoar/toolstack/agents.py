"""What the agents of driver domains say to this Toolstack, and of the back ends of its guests.

Others take part by entering functions here: `lost` is told that a driver domain is no more, with all that
it said, `listeners` get what it says, by the first word below `Driver.said`.
"""

from xoar.messages.records import DRIVER
from xoar.toolstack import records, service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.toolstack.driver import Driver
    from xoar.toolstack.guest import Request
    from xoar.toolstack.store import StoreLink

    Listener = Callable[[Driver, list[str], "bytes | None"], None]

_PER_PAGE = 16
_PARTS: "dict[str, tuple[int, ...]]" = {
    "note": (),
    "pool": (),
    "networks": (64,),
    "volumes": (256,),
    "addresses": (256, 32),
}
"""What an agent says besides its state, and how many nodes of each level below are looked at."""
_BACKEND_LEAVES = ("state", "hotplug-status")


class Agents:
    """The driver domains that this Toolstack's guests can have devices of; for `clock` see Waits."""

    def __init__(self, store: "StoreLink", clock: "Callable[[], int]") -> None:
        self.all: "list[Driver]" = []
        self.lost: "list[Callable[[Driver], None]]" = []
        self.listeners: "dict[str, Listener]" = {"state": self._hear_state, "note": self._hear_note}
        self._store = store
        self._clock = clock

    def find(self, name: str) -> "Driver | None":
        """The driver domain of that name."""
        for driver in self.all:
            if driver.name == name:
                return driver
        return None

    def recall(self, name: str, kind: str, domid: int) -> "Driver | None":
        """The driver domain that a device of the last life was one of."""
        raise NotImplementedError

    def page(self, start: int, request: "Request") -> None:
        """Answers driver_list."""
        now, end = self._clock(), start + _PER_PAGE
        page = [
            DRIVER.value(
                driver.name,
                driver.kind,
                driver.domid,
                driver.device,
                driver.state,
                driver.restarts,
                max(now - driver.since_ms, 0),
                driver.note[:256],
            )
            for driver in self.all[start:end]
        ]
        request.answer("drivers", more=int(len(self.all) > end), drivers=page)

    def _consider(self, driver: "Driver") -> None:
        """A driver domain's agent has said how it is."""
        raise NotImplementedError

    def _tell_of_loss(self, driver: "Driver") -> None:
        for lost in self.lost:
            lost(driver)

    def _listen(self, driver: "Driver") -> None:
        said, backends = driver.said, records.domain_path(driver.domid) + "/backend"

        def look(path: str, widths: "tuple[int, ...]") -> None:
            def heard(names: "list[str]") -> None:
                for name in names[: widths[0]]:
                    look("%s/%s" % (path, name), widths[1:])

            changed(path)
            if widths:
                self._store.children(path, heard)

        def look_around(names: "list[str]") -> None:
            for name in names:
                if name in _PARTS and name in self.listeners:
                    look("%s/%s" % (said, name), _PARTS[name])

        def changed(path: str) -> None:
            if path == said:
                # all that it said has come or gone, or this is the first look at it
                self._store.children(said, look_around)
                path = said + "/state"
            words = path[len(said) + 1 :].split("/")
            listener = self.listeners.get(words[0])
            if listener is not None:
                self._store.read(path, lambda value: listener(driver, words[1:], value))

        def backend_changed(path: str) -> None:
            words = path[len(backends) + 1 :].split("/")
            if len(words) == 3:
                # the whole device has come or gone
                words, path = words + ["state"], path + "/state"
            if len(words) == 4 and words[3] in _BACKEND_LEAVES and "backend" in self.listeners:
                listener = self.listeners["backend"]
                self._store.read(path, lambda value: listener(driver, words, value))

        self._store.watch(said, changed)
        self._store.watch(backends, backend_changed)

    def _hear_state(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        if not words:
            driver.said_state = service.text(untrusted_value, 16)
            self._consider(driver)

    def _hear_note(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        if not words:
            driver.said_note = service.text(untrusted_value, 200)
