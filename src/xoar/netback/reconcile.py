"""Makes the kernel's interfaces match a layout, whatever is there: a new domain, or one whose agent died.

Only what is Xoar's is touched: the NIC, vifs, and bridges and VLANs with the names that `layout` gives them.
Interfaces may vanish at any moment. What fails on one network or vif is that one's fault; the rest goes on.
"""

import contextlib
import errno
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from xoar.netback.declared import Place
from xoar.netback.layout import Layout

_OURS = {"bridge": re.compile(r"br-[0-9a-f]{8}"), "vlan": re.compile(r"vlan[0-9]{1,4}")}
_VIF = re.compile(r"vif[0-9]+\.[0-9]+")


class Interface(NamedTuple):
    """An interface of the kernel; `kind`: bridge, vlan or others; `master`: its bridge's number, or 0."""

    number: int
    name: str
    kind: str
    mac: str
    master: int
    up: bool


class Kernel(Protocol):
    """What is asked of the kernel. All calls raise OSError; addresses have a prefix length."""

    def interfaces(self) -> dict[str, Interface]: ...

    def addresses(self) -> dict[int, set[str]]: ...

    def add_bridge(self, name: str, mac: str) -> None: ...

    def add_vlan(self, name: str, lower: int, vlan: int) -> None: ...

    def delete(self, number: int) -> None: ...

    def set_mac(self, number: int, mac: str) -> None: ...

    def set_master(self, number: int, master: int) -> None: ...

    def set_up(self, number: int) -> None: ...

    def add_address(self, number: int, address: str) -> None: ...

    def delete_address(self, number: int, address: str) -> None: ...

    def default_route(self, number: int, gateway: str) -> None: ...


class UplinkAddress(NamedTuple):
    """The address of the uplink with its prefix length, and the next hop of all else; "": none."""

    address: str
    gateway: str


class Outcome(NamedTuple):
    """`plugged` are the names of vifs that carry frames now; faults are as in Layout."""

    plugged: set[str]
    network_faults: dict[str, str]
    vif_faults: dict[Place, str]


def converge(
    kernel: Kernel, layout: Layout, load_rules: Callable[[], None], uplink: UplinkAddress | None
) -> Outcome:
    """Makes it so. `load_rules` runs before anything is plugged; what it raises ends this.

    `uplink` None leaves the uplink's addresses as they are. Raises OSError if the kernel does not answer.
    """
    outcome = Outcome(set(), {}, {})
    there = kernel.interfaces()
    if _prepare(kernel, there, layout, outcome):
        there = kernel.interfaces()
    load_rules()
    _plug(kernel, there, layout, outcome)
    _address(kernel, there, layout, uplink, outcome)
    return outcome


def _prepare(kernel: Kernel, there: dict[str, Interface], layout: Layout, outcome: Outcome) -> bool:
    """Removes bridges and VLANs that nobody wants and makes those that are missing; whether there was any."""
    changed = False
    for name, interface in there.items():
        ours = interface.kind in _OURS and _OURS[interface.kind].fullmatch(name)
        if ours and name not in layout.bridges and name not in layout.vlans:
            changed = True
            _unless_gone(kernel.delete, interface.number)
    for bridge in layout.bridges.values():
        vlan = layout.vlans.get(bridge.port)
        try:
            if vlan is not None and bridge.port not in there and layout.nic in there:
                changed = True
                kernel.add_vlan(bridge.port, there[layout.nic].number, vlan)
            if bridge.name not in there:
                changed = True
                kernel.add_bridge(bridge.name, bridge.mac)
            elif there[bridge.name].mac != bridge.mac:
                kernel.set_mac(there[bridge.name].number, bridge.mac)
        except OSError as error:
            outcome.network_faults[bridge.network.name] = (
                f"the kernel refuses its interfaces: {error.strerror}"
            )
    return changed


def _plug(kernel: Kernel, there: dict[str, Interface], layout: Layout, outcome: Outcome) -> None:
    """Takes out of bridges what does not belong there, puts into them what does, and sets all up."""
    masters = {bridge.port: bridge.name for bridge in layout.bridges.values() if bridge.port}
    masters.update({name: port.bridge.name for name, port in layout.ports.items()})
    for name, interface in there.items():
        if (name == layout.nic or _VIF.fullmatch(name)) and name not in masters and interface.master:
            _unless_gone(kernel.set_master, interface.number, 0)
        if (name == layout.nic or name in layout.bridges) and not interface.up:
            _unless_gone(kernel.set_up, interface.number)
    for name, bridge in masters.items():
        if name not in there:
            continue
        port = there[name]
        try:
            if bridge not in there:
                raise OSError(errno.ENODEV, "it could not be made, or was deleted")
            if port.master != there[bridge].number:
                kernel.set_master(port.number, there[bridge].number)
            if not port.up:
                kernel.set_up(port.number)
        except OSError as error:
            text = f"{name} can't be plugged into its bridge: {error.strerror}"
            if name in layout.ports:
                outcome.vif_faults[layout.ports[name].vif.place] = text
            else:
                outcome.network_faults[layout.bridges[bridge].network.name] = text
        else:
            outcome.plugged.add(name)


def _address(
    kernel: Kernel,
    there: dict[str, Interface],
    layout: Layout,
    uplink: UplinkAddress | None,
    outcome: Outcome,
) -> None:
    """Each interface has its address and no other."""
    have = kernel.addresses()
    wanted = {name: bridge.address for name, bridge in layout.bridges.items()}
    wanted.update(dict.fromkeys([layout.nic, *layout.vlans], ""))
    if layout.uplink and uplink is None:
        del wanted[layout.uplink]
    elif layout.uplink and uplink is not None:
        wanted[layout.uplink] = uplink.address
    for name, address in wanted.items():
        if name not in there:
            continue
        number = there[name].number
        try:
            for other in have.get(number, set()) - {address}:
                kernel.delete_address(number, other)
            if address and address not in have.get(number, set()):
                kernel.add_address(number, address)
            if name == layout.uplink and uplink is not None and uplink.gateway:
                kernel.default_route(number, uplink.gateway)
        except OSError as error:
            for bridge in layout.nats:
                if name in (bridge.name, layout.uplink):
                    text = f"the kernel refuses the address {address} of {name}: {error.strerror}"
                    outcome.network_faults[bridge.network.name] = text


def _unless_gone(action: Callable[..., None], *arguments: int) -> None:
    """For what may have vanished meanwhile: the next look at the interfaces tells."""
    with contextlib.suppress(OSError):
        action(*arguments)
