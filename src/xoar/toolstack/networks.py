"""Networks: what guests' interfaces are connected to, each served by one NetBack.

The Toolstack keeps them, and writes them to the driver domain's records (docs/devices.md): all before it
starts, later ones at once.
"""

from xoar.messages.errors import EBUSY, EEXIST, EINVAL, EIO, ENOENT, ENOSPC
from xoar.messages.records import NETWORK
from xoar.toolstack import ipv4, service
from xoar.toolstack.driver import NETBACK
from xoar.toolstack.records import domain_path
from xoar.toolstack.store import Batch
from xoar.xenstore import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.toolstack.agents import Agents
    from xoar.toolstack.driver import Driver
    from xoar.toolstack.drivers import Drivers
    from xoar.toolstack.guest import Request
    from xoar.toolstack.memory import Thing
    from xoar.toolstack.store import StoreLink

MAX_NETWORKS = 64
_PER_PAGE = 8
_MAX_VLAN = 4094


class Network:
    """`fields` are a NETWORK; `state` is what its driver domain says of it."""

    def __init__(self, fields: "Any", driver: "Driver") -> None:
        self.name: str = fields.name
        self.fields = fields
        self.driver = driver
        self.state = ""
        self.written = False  # its driver domain, if it is there, can know of it

    @property
    def path(self) -> str:
        """Where the driver domain reads it."""
        return "%s/networks/%s" % (domain_path(self.driver.domid), self.name)


class Networks:
    """The networks that guests of this Toolstack can have interfaces on."""

    def __init__(self, drivers: "Agents") -> None:
        self._networks: "list[Network]" = []
        drivers.lost.append(self._lost)
        drivers.listeners["networks"] = self._hear

    def find(self, name: str) -> "Network | None":
        """The network of that name."""
        for network in self._networks:
            if network.name == name:
                return network
        return None

    def page(self, start: int, request: "Request") -> None:
        """Answers network_list."""
        end = start + _PER_PAGE
        page = []
        for network in self._networks[start:end]:
            fields = network.fields
            page.append(
                NETWORK.value(
                    fields.name,
                    fields.driver,
                    fields.mode,
                    fields.vlan,
                    fields.subnet,
                    fields.forwards,
                    network.state,
                )
            )
        request.answer("networks", more=int(len(self._networks) > end), networks=page)

    def _lost(self, driver: "Driver") -> None:
        for network in self._networks:
            if network.driver is driver:
                network.state = ""

    def _hear(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        network = self.find(words[0]) if len(words) == 1 else None
        if network is not None and network.driver is driver:
            network.state = service.text(untrusted_value, 128)


class DeclaredNetworks(Networks):
    """All networks of the host. `users(name)` gives the names of those who use one."""

    def __init__(self, store: "StoreLink", drivers: "Drivers", users: "Callable[[str], list[str]]") -> None:
        super().__init__(drivers)
        self._store = store
        self._drivers = drivers
        self._users = users
        drivers.preparing.append(self._write_all)

    # operators' requests

    def create(self, fields: "Any", request: "Request") -> None:
        """Declares a network; answered when its driver domain can know of it."""
        errno, text = self._judge(fields)
        driver = self._drivers.find(fields.driver)
        if errno or driver is None:
            request.refuse(errno, text)
            return
        network = Network(fields, driver)
        self._networks.append(network)

        def written(refused: str) -> None:
            if refused:
                self._networks.remove(network)
                request.refuse(EIO, refused)
            else:
                network.written = True
                request.answer("done")

        batch = Batch(self._store)
        if driver.recorded:
            _write(batch, network)
        self._store.run(batch, written)

    def delete(self, name: str, request: "Request") -> None:
        """Removes a network that no guest uses."""
        network, users = self.find(name), self._users(name)
        if network is None:
            request.refuse(ENOENT, "there is no network %s" % name)
            return
        if users:
            request.refuse(EBUSY, "network %s is used by %s" % (name, ", ".join(users[:4])))
            return
        self._networks.remove(network)
        batch = Batch(self._store)
        if network.driver.recorded:
            batch.add(wire.RM, network.path)

        def removed(refused: str) -> None:
            if refused:
                request.refuse(EIO, refused)
            else:
                request.answer("done")

        self._store.run(batch, removed)

    # the last life's

    def remembered(self) -> "list[Thing]":
        """What there is to remember: those that were answered for."""
        return [(network, "kept_network", network.fields) for network in self._networks if network.written]

    def recall(self, fields: "Any") -> "tuple[Network | None, str]":
        """The network that a record of the last life is about, or what is wrong with it."""
        text = self._judge(fields)[1]
        driver = self._drivers.find(fields.driver)
        if text or driver is None:
            return None, text
        network = Network(fields, driver)
        network.written = True
        self._networks.append(network)
        return network, ""

    # driver domains

    def _write_all(self, batch: Batch, driver: "Driver") -> None:
        for network in self._networks:
            if network.driver is driver:
                _write(batch, network)

    # judging

    def _judge(self, fields: "Any") -> "tuple[int, str]":
        """(error number, what is wrong) of a new network; (0, "") if nothing is."""
        driver = self._drivers.find(fields.driver)
        if "." in fields.name:
            return EINVAL, "network %s: a network's name has no dots" % fields.name
        if self.find(fields.name) is not None:
            return EEXIST, "there is a network %s already" % fields.name
        if len(self._networks) >= MAX_NETWORKS:
            return ENOSPC, "there are %d networks, the most allowed" % MAX_NETWORKS
        if driver is None:
            return ENOENT, "network %s: there is no driver domain %s" % (fields.name, fields.driver)
        if driver.kind != NETBACK:
            return EINVAL, "network %s: %s is a %s, not a %s" % (
                fields.name,
                driver.name,
                driver.kind,
                NETBACK,
            )
        wrong = shape(fields) or self._conflict(fields)
        return (EINVAL, "network %s: %s" % (fields.name, wrong)) if wrong else (0, "")

    def _conflict(self, fields: "Any") -> str:
        for network in self._networks:
            other = network.fields
            if other.driver != fields.driver or other.mode != fields.mode:
                continue
            where = "network %s on %s" % (other.name, other.driver)
            if fields.mode == "bridge":
                if other.vlan == fields.vlan:
                    return "%s is a bridge of the same VLAN (%d; 0: untagged)" % (where, other.vlan)
                continue
            one, two = ipv4.subnet(fields.subnet), ipv4.subnet(other.subnet)
            if one is not None and two is not None and ipv4.overlap(one, two):
                return "%s has the overlapping subnet %s" % (where, other.subnet)
            taken = [forward.outer_port for forward in other.forwards]
            for forward in fields.forwards:
                if forward.outer_port in taken:
                    return "%s forwards port %d already" % (where, forward.outer_port)
        return ""


def shape(fields: "Any") -> str:
    """What is wrong with a network, whatever others there are; "" if nothing is."""
    if fields.vlan > _MAX_VLAN:
        return "VLAN %d: 1 to %d are possible, 0 for none" % (fields.vlan, _MAX_VLAN)
    if fields.mode == "bridge":
        return "a bridge has no subnet and no forwards" if fields.subnet or fields.forwards else ""
    if fields.vlan:
        return "a nat network has no VLAN: its way out is the untagged one"
    net = ipv4.subnet(fields.subnet)
    if net is None:
        text = "%r is no private IPv4 subnet of /%d to /%d, such as 10.9.0.0/24"
        return text % (fields.subnet, ipv4.MIN_PREFIX, ipv4.MAX_PREFIX)
    seen = []
    for forward in fields.forwards:
        number = ipv4.address(forward.address)
        if not forward.outer_port or not forward.port:
            return "a forwarded port is 0"
        if number is None or not ipv4.for_guests(number, net):
            return "port %d is forwarded to %r, which is no guest's address in %s" % (
                forward.outer_port,
                forward.address,
                fields.subnet,
            )
        if forward.outer_port in seen:
            return "port %d is forwarded twice" % forward.outer_port
        seen.append(forward.outer_port)
    return ""


def _write(batch: Batch, network: Network) -> None:
    fields = network.fields
    batch.add(wire.WRITE, network.path + "/vlan", "%d" % fields.vlan)
    if fields.mode == "nat":
        words = ["tcp:%d:%s:%d" % (entry.outer_port, entry.address, entry.port) for entry in fields.forwards]
        batch.write(network.path, (("subnet", fields.subnet), ("forwards", " ".join(words))))
    # the agent takes a network for whole once it has a mode
    batch.add(wire.WRITE, network.path + "/mode", fields.mode)
