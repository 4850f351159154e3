"""All devices of all guests: which may be, which are plugged, and what their driver domains say of them."""

from xoar.messages.errors import EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC
from xoar.messages.records import DISK, NIC
from xoar.toolstack import groups, ipv4, service
from xoar.toolstack.device import CLOSED, INITIALISING, VBD, VIF, Device, disk_number, mac_text, write
from xoar.toolstack.driver import BLKBACK, NETBACK, NOBODY
from xoar.toolstack.store import Batch
from xoar.xenstore import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message
    from xoar.toolstack.agents import Agents
    from xoar.toolstack.builder import Builder
    from xoar.toolstack.driver import Driver
    from xoar.toolstack.networks import Networks
    from xoar.toolstack.store import StoreLink

    Key = tuple[int, str, int, int]

MAX_OF_A_KIND = 8
"""Disks of a guest, and network interfaces of a guest."""

_HANDLES = 32
_RESTING = 16
"""A handle rests until so many other devices have gone: a guest's driver that is still busy with an interface
that went may take a new one with the same nodes for the old one (docs/xen-notes.md)."""

_BACKENDS_MAC = bytes([0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
"""What xen-netback gives its own end of every interface."""


class Unfit(Exception):
    """A device that can't be: the error number, and what is wrong with it."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno
        self.text = text


class Devices:
    """What `make` and `add_...` returned counts as in use until `forget`. Guests are given as their
    configuration, the fields of guest_create. `domid` is the Toolstack's."""

    def __init__(
        self, builder: "Builder", store: "StoreLink", drivers: "Agents", networks: "Networks", domid: int
    ) -> None:
        self._builder = builder
        self._store = store
        self._domid = domid
        self._drivers = drivers
        self._networks = networks
        self._owners: "list[tuple[Device, Any]]" = []
        # the last _RESTING that went
        self._left: "list[tuple[Device, Any]]" = []
        # (driver domain, kind, guest's domain, number) of those that have nodes
        self._plugged: "dict[Key, Device]" = {}
        drivers.lost.append(self._lost)
        drivers.listeners["backend"] = self._hear
        drivers.listeners["addresses"] = self._hear_address

    # what guests have

    def make(self, guest: "Any") -> "list[Device]":
        """The devices of a new guest. Raises Unfit, with none of them made."""
        made: "list[Device]" = []
        try:
            for disk in guest.disks:
                made.append(self.add_disk(guest, made, disk))
            for nic in guest.nics:
                made.append(self.add_nic(guest, made, nic))
        except Unfit:
            for device in made:
                self.forget(device)
            raise
        return made

    def add_disk(self, guest: "Any", others: "list[Device]", disk: "Any") -> Device:
        """A further disk of a guest that has `others`. Raises Unfit."""
        number, driver = disk_number(disk.device), self._drivers.find(disk.driver)
        if number is None:
            raise Unfit(EINVAL, "disk %s: xvda to xvdp are possible" % disk.device)
        if driver is None or driver.kind != BLKBACK:
            raise Unfit(ENOENT, "disk %s: there is no %s %s" % (disk.device, BLKBACK, disk.driver))
        if number in _numbers(others, VBD):
            raise Unfit(EEXIST, "guest %s has a disk %s already" % (guest.name, disk.device))
        return self._add(guest, others, Device(VBD, number, disk, driver))

    def add_nic(self, guest: "Any", others: "list[Device]", nic: "Any") -> Device:
        """A further network interface of a guest that has `others`; it gets the first handle that is free
        and not resting. Raises Unfit."""
        network = self._networks.find(nic.network)
        if network is None:
            raise Unfit(ENOENT, "there is no network %s" % nic.network)
        self._judge_nic(nic)
        net = ipv4.subnet(network.fields.subnet)
        if nic.address and net is not None and not ipv4.for_guests(ipv4.address(nic.address) or 0, net):
            raise Unfit(EINVAL, "network %s has no address %s for guests" % (nic.network, nic.address))
        used = _numbers(others + [device for device, owner in self._left if owner is guest], VIF)
        free = [handle for handle in range(_HANDLES) if handle not in used]
        return self._add(guest, others, Device(VIF, free[0], nic, network.driver))

    def _judge_nic(self, nic: "Any") -> None:
        """Raises Unfit for an interface that can't be on any network, or not on its own with the others."""
        # the lowest bit of the first byte marks group addresses (IEEE 802)
        if nic.mac in (bytes(6), _BACKENDS_MAC) or nic.mac[0] & 1:
            raise Unfit(EINVAL, "%s is no address for a network interface" % mac_text(nic.mac))
        if nic.address and ipv4.address(nic.address) is None:
            raise Unfit(EINVAL, "%r is no IPv4 address for a network interface" % nic.address)
        for device, owner in self._on(nic.network):
            if device.config.mac == nic.mac:
                what = mac_text(nic.mac)
            elif nic.address and device.config.address == nic.address:
                what = nic.address
            else:
                continue
            raise Unfit(EEXIST, "network %s: guest %s has the address %s" % (nic.network, owner.name, what))

    def recall(self, guest: "Any", others: "list[Device]", domid: int, message: "Message") -> Device:
        """The device that a record of the last life is about, of a guest that has `others` and is domain
        `domid`. Raises Unfit."""
        fields = message.fields
        if message.kind == "kept_disk":
            kind, wanted, name = VBD, BLKBACK, fields.driver
            config = DISK.value(*tuple(fields)[-len(DISK.fields) :])
            number = disk_number(config.device)
        else:
            kind, wanted, name = VIF, NETBACK, fields.driver
            config = NIC.value(*tuple(fields)[-len(NIC.fields) :])
            number = fields.handle if fields.handle < _HANDLES else None
        driver = self._drivers.recall(name, wanted, fields.driver_domid)
        if number is None or driver is None:
            raise Unfit(EINVAL, "guest %s has an impossible %s" % (guest.name, kind))
        taken = _numbers(others, kind)
        if number in taken or len(taken) >= MAX_OF_A_KIND:
            raise Unfit(EEXIST, "guest %s has too many a %s" % (guest.name, kind))
        if kind == VIF:
            self._judge_nic(config)
        device = Device(kind, number, config, driver)
        self._owners.append((device, guest))
        device.closing = bool(fields.closing)
        if fields.plugged and domid:
            device.domid, device.lost = domid, bool(fields.lost)
            device.backend_state = INITIALISING
            self._plugged[_key(device)] = device
            self._look(device)
        return device

    def _look(self, device: Device) -> None:
        """Reads what its driver domain has said of it."""
        words = [device.kind, "%d" % device.domid, "%d" % device.number]
        for leaf in () if device.lost else ("state", "hotplug-status"):
            path = "%s/%s" % (device.backend, leaf)
            self._store.read(path, self._hearer(device.driver, words + [leaf]))

    def _hearer(self, driver: "Driver", words: "list[str]") -> "Callable[[bytes | None], None]":
        return lambda value: self._hear(driver, words, value)

    def resting(self, guest: "Any") -> bytes:
        """The handles of interfaces that a guest had lately."""
        left = [device.number for device, owner in self._left if owner is guest and device.kind == VIF]
        return bytes(left)

    def recall_resting(self, guest: "Any", handles: bytes) -> None:
        """What `resting` said in the last life."""
        for handle in handles:
            self._left.append((Device(VIF, handle, None, NOBODY), guest))
        self._left = self._left[-_RESTING:]

    def forget(self, device: Device) -> None:
        """A guest has it no more."""
        self._left = (self._left + [entry for entry in self._owners if entry[0] is device])[-_RESTING:]
        self._owners = [entry for entry in self._owners if entry[0] is not device]

    def users(self, network: str) -> "list[str]":
        """The names of the guests that have an interface on a network."""
        return [owner.name for _, owner in self._on(network)]

    def _add(self, guest: "Any", others: "list[Device]", device: Device) -> Device:
        if len(_numbers(others, device.kind)) >= MAX_OF_A_KIND:
            what = "disks" if device.kind == VBD else "network interfaces"
            raise Unfit(ENOSPC, "guest %s has %d %s, the most allowed" % (guest.name, MAX_OF_A_KIND, what))
        uses = [(other.driver, owner) for other, owner in self._owners]
        refusal = groups.refusal(device.driver, guest.group, uses, self._drivers.all)
        if refusal:
            raise Unfit(EBUSY, refusal)
        self._owners.append((device, guest))
        return device

    def _on(self, network: str) -> "list[tuple[Device, Any]]":
        return [
            (device, owner)
            for device, owner in self._owners
            if device.kind == VIF and device.config.network == network
        ]

    # nodes

    def link(self, devices: "list[Device]", domid: int, linked: "Callable[[int, str], None]") -> None:
        """Has Builder link a guest's domain to the driver domains of devices.

        Then `linked(errno, text)` is called, with "" if all are: those have `domid` then, and can be plugged.
        """
        refusals: "list[tuple[int, str]]" = []
        waiting = list(devices)

        def link(device: Device) -> None:
            def answered(message: "Message") -> None:
                waiting.remove(device)
                if message.kind == "done":
                    device.reset()
                    device.domid = domid
                else:
                    refusals.append((message.fields.errno, "%s: %s" % (device.title, message.fields.text)))
                if not waiting:
                    linked(*(refusals[0] if refusals else (0, "")))

            self._ask("plug", device, domid, answered)

        for device in devices:
            link(device)

    def plug(self, batch: Batch, device: Device) -> None:
        """Writes the nodes of one that is linked, which makes its driver domain prepare it."""
        device.backend_state = INITIALISING
        self._plugged[_key(device)] = device
        write(batch, self._domid, device)

    def unplug(self, device: Device, unplugged: "Callable[[], None]") -> None:
        """Removes its nodes on both sides, if there are any; the link goes with them."""
        if not device.domid:
            unplugged()
            return
        batch = Batch(self._store)
        batch.add(wire.RM, device.frontend)
        domid = device.domid
        self.leave(device)

        def answered(message: "Message") -> None:
            # an error says that the guest or the driver domain has gone, and with it the nodes
            self._store.run(batch, lambda refused: unplugged())

        self._ask("unplug", device, domid, answered)

    def leave(self, device: Device) -> None:
        """Its guest's domain is gone, and its nodes with it."""
        self._plugged.pop(_key(device), None)
        device.domid = 0
        device.backend_state = CLOSED

    def _ask(self, kind: str, device: Device, domid: int, answered: "Callable[[Message], None]") -> None:
        self._builder.ask(
            kind,
            answered,
            domid=domid,
            driver=device.driver.name,
            device_kind=device.kind,
            number=device.number,
        )

    # what driver domains say

    def _lost(self, driver: "Driver") -> None:
        for device in self._plugged.values():
            if device.driver is driver:
                device.lost = True

    def _hear(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        kind, domid, number, leaf = words
        device = self._find(driver, kind, domid, number)
        if device is None:
            return
        if leaf == "state":
            device.backend_state = service.number(untrusted_value, 8) or 0
        elif leaf == "hotplug-status":
            said = service.text(untrusted_value, 16)
            if said == "error":
                self._store.read(device.backend + "/hotplug-error", lambda text: _refused(device, text))
            else:
                device.hotplug = said

    def _hear_address(self, driver: "Driver", words: "list[str]", untrusted_value: "bytes | None") -> None:
        device = self._find(driver, VIF, words[0], words[1]) if len(words) == 2 else None
        if device is not None:
            device.seen_address = service.address(untrusted_value)

    def _find(
        self, driver: "Driver", kind: str, untrusted_domid: str, untrusted_number: str
    ) -> "Device | None":
        domid = ipv4.decimal(untrusted_domid, 0xFFFF)
        number = ipv4.decimal(untrusted_number, 0xFFFFFFFF)
        if domid is None or number is None:
            return None
        return self._plugged.get((driver.domid, kind, domid, number))


def _refused(device: Device, untrusted_text: "bytes | None") -> None:
    device.error = service.text(untrusted_text, 128)
    device.hotplug = "error"


def _numbers(devices: "list[Device]", kind: str) -> "list[int]":
    return [device.number for device in devices if device.kind == kind]


def _key(device: Device) -> "Key":
    return (device.driver.domid, device.kind, device.domid, device.number)
