"""Driver domains and networks as a tenant's Toolstack has them: those that are delegated to it.

The host's Toolstack writes them into XenStore (delegations.py), for the tenant to know them. What they are
worth is decided elsewhere: Builder plugs nothing that is not delegated, and driver domains serve a tenant's
guests within what the host's Toolstack told them.
"""

from xoar.messages.records import NETWORK, NETWORK_MODE, NO_DEVICE
from xoar.toolstack import ipv4, service
from xoar.toolstack.agents import Agents
from xoar.toolstack.driver import BLKBACK, FAILED, NETBACK, READY, WAITING, Driver
from xoar.toolstack.networks import MAX_NETWORKS, Network, Networks
from xoar.toolstack.records import domain_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.toolstack.store import StoreLink

DELEGATED = "delegated"
"""The node of a tenant's Toolstack that names its driver domains: words <name>:<kind>:<domid>:<state>, where
the state is the one at the time of writing."""

NETWORKS = "networks"
"""The one that names its networks: words <name>:<driver domain>:<mode>:<VLAN>:<subnet or ->."""

_WITHDRAWN = "it is not delegated to this tenant any more"
_MAX_DRIVERS = 32
_MAX_VALUE = 4096


class DelegatedDrivers(Agents):
    """`domid` is this Toolstack's."""

    def __init__(self, store: "StoreLink", clock: "Callable[[], int]", domid: int) -> None:
        super().__init__(store, clock)
        self._domid = domid
        # also those that were withdrawn: guests may have had devices of them
        self._known: "dict[str, Driver]" = {}
        self._expected: "list[Driver]" = []

    def start(self) -> None:
        """Begins to follow what is delegated."""
        node = "%s/%s" % (domain_path(self._domid), DELEGATED)
        self._store.watch(node, lambda path: self._store.read(node, self._hear_delegated))

    @property
    def expecting(self) -> bool:
        """Whether one that serves has not said so to this Toolstack yet."""
        return any([driver in self.all and not driver.said_state for driver in self._expected])

    def _hear_delegated(self, value: "bytes | None") -> None:
        wanted: "list[Driver]" = []
        expected = []
        for word in service.text(value, _MAX_VALUE).split()[:_MAX_DRIVERS]:
            parts = word.split(":")
            number = service.number(parts[2].encode(), 0x7FFF) if len(parts) == 4 else None
            if number and parts[1] in (NETBACK, BLKBACK) and service.is_name(parts[0]):
                driver = self._driver(parts[0], parts[1], number)
                wanted.append(driver)
                if parts[3] == READY:
                    expected.append(driver)
        self._expected = expected
        for driver in self._known.values():
            if driver not in wanted and driver.state != FAILED:
                # its guests' devices are still there: the driver domain says what becomes of them
                driver.state, driver.note, driver.since_ms = FAILED, _WITHDRAWN, self._clock()
        added, self.all = [driver for driver in wanted if driver not in self.all], wanted
        for driver in added:
            if driver.state == FAILED:
                driver.state, driver.note = WAITING, ""
            self._consider(driver)

    def recall(self, name: str, kind: str, domid: int) -> "Driver | None":
        # that it is delegated is not known yet; it has said nothing that counts before
        known = self._known.get(name)
        if known is None and domid and len(self._known) < _MAX_DRIVERS:
            known = self._driver(name, kind, domid)
        return known if known is not None and (known.kind, known.domid) == (kind, domid) else None

    def known(self, name: str) -> "Driver | None":
        """A driver domain that is, or was, delegated."""
        return self._known.get(name)

    def _driver(self, name: str, kind: str, domid: int) -> Driver:
        driver = self._known.get(name)
        if driver is None or driver.domid != domid:
            driver = self._known[name] = Driver(name, kind, domid, NO_DEVICE, self._domid)
            driver.since_ms = self._clock()
            self._listen(driver)
        return driver

    def _consider(self, driver: Driver) -> None:
        if driver not in self.all:
            return
        if driver.said_state == READY:
            driver.state, driver.note = READY, ""
        elif driver.said_state == FAILED:
            driver.state, driver.note = FAILED, driver.said_note or "its agent does not say why"
        elif driver.state != WAITING:
            # it was ended, and takes what it said with it
            driver.restarts += 1
            driver.state, driver.note, driver.since_ms = WAITING, "", self._clock()
            self._tell_of_loss(driver)


class DelegatedNetworks(Networks):
    """The networks of delegated driver domains that this tenant's guests may use."""

    def __init__(self, store: "StoreLink", drivers: DelegatedDrivers, domid: int) -> None:
        super().__init__(drivers)
        self._store = store
        self._drivers = drivers
        self._node = "%s/%s" % (domain_path(domid), NETWORKS)

    def start(self) -> None:
        """Begins to follow what is delegated."""
        self._store.watch(self._node, lambda path: self._store.read(self._node, self._hear_networks))

    def find(self, name: str) -> "Network | None":
        network = super().find(name)
        return network if network is not None and network.driver in self._drivers.all else None

    def _hear_networks(self, value: "bytes | None") -> None:
        found = []
        for word in service.text(value, _MAX_VALUE).split()[:MAX_NETWORKS]:
            network = self._network(word.split(":"))
            if network is not None:
                known = super().find(network.name)
                network.state = known.state if known is not None else ""
                found.append(network)
        self._networks = found

    def _network(self, parts: "list[str]") -> "Network | None":
        if len(parts) != 5 or not service.is_name(parts[0]) or parts[2] not in NETWORK_MODE.words:
            return None
        name, wanted, mode, vlan, subnet = parts
        driver = self._drivers.known(wanted)
        number = service.number(vlan.encode(), 4094)
        if driver is None or number is None:
            return None
        subnet = "" if ipv4.subnet(subnet) is None else subnet
        return Network(NETWORK.value(name, wanted, mode, number, subnet, [], ""), driver)


def network_word(fields: "Any") -> str:
    """A network as DelegatedNetworks reads it; `fields` are a NETWORK."""
    return "%s:%s:%s:%d:%s" % (fields.name, fields.driver, fields.mode, fields.vlan, fields.subnet or "-")


def driver_word(driver: Driver) -> str:
    """A driver domain as DelegatedDrivers reads it."""
    return "%s:%s:%d:%s" % (driver.name, driver.kind, driver.domid, driver.state)
