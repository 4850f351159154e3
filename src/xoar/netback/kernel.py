"""The kernel's interfaces, over rtnetlink (linux/rtnetlink.h, linux/if_link.h).

pyroute2's sockets and messages are used directly: its IPRoute would import twice as much, and starting Python
is slow in an emulated domain.
"""

import errno
import os
import socket
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTMGRP_LINK,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.iprsocket import IPRSocket
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from xoar.netback.reconcile import Interface

_UP = 1  # IFF_UP
_DUMPS = 10  # attempts
_CREATE = NLM_F_CREATE | NLM_F_EXCL
_MAIN_TABLE = 254  # RT_TABLE_MAIN
_UNICAST = 1  # RTN_UNICAST
_DHCP = 16  # RTPROT_DHCP


class LinuxKernel:
    """Implements reconcile.Kernel for the network namespace that it is made in."""

    def __init__(self) -> None:
        self._netlink = IPRSocket()
        self._netlink.bind(groups=0)
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._events.bind((0, RTMGRP_LINK))
        self._events.setblocking(False)

    def fileno(self) -> int:
        """For select: readable when interfaces have changed."""
        return self._events.fileno()

    def take_changes(self) -> bool:
        """Whether interfaces have changed since the last call."""
        changed = False
        while True:
            try:
                self._events.recv(65536)
            except BlockingIOError:
                return changed
            except OSError:  # ENOBUFS: the kernel had more to say than the socket could keep
                pass
            changed = True

    def interfaces(self) -> dict[str, Interface]:
        found = {}
        for message in self._dump(ifinfmsg(), RTM_GETLINK):
            info = message.get_attr("IFLA_LINKINFO")
            interface = Interface(
                message["index"],
                message.get_attr("IFLA_IFNAME"),
                (info.get_attr("IFLA_INFO_KIND") or "") if info else "",
                message.get_attr("IFLA_ADDRESS") or "",
                message.get_attr("IFLA_MASTER") or 0,
                bool(message["flags"] & _UP),
            )
            found[interface.name] = interface
        return found

    def addresses(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        request = ifaddrmsg()
        request["family"] = socket.AF_INET
        for message in self._dump(request, RTM_GETADDR):
            address = f"{message.get_attr('IFA_LOCAL')}/{message['prefixlen']}"
            found.setdefault(message["index"], set()).add(address)
        return found

    def add_bridge(self, name: str, mac: str) -> None:
        """Without spanning tree: ports forward at once. Multicast goes to all ports, as in a plain switch."""
        settings = [("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]
        self._link(0, _CREATE, IFLA_IFNAME=name, IFLA_ADDRESS=mac, IFLA_LINKINFO=_kind("bridge", settings))

    def add_vlan(self, name: str, lower: int, vlan: int) -> None:
        kind = _kind("vlan", [("IFLA_VLAN_ID", vlan)])
        self._link(0, _CREATE, IFLA_IFNAME=name, IFLA_LINK=lower, IFLA_LINKINFO=kind)

    def delete(self, number: int) -> None:
        message = ifinfmsg()
        message["index"] = number
        self._tell(message, RTM_DELLINK)

    def set_mac(self, number: int, mac: str) -> None:
        self._link(number, IFLA_ADDRESS=mac)

    def set_master(self, number: int, master: int) -> None:
        self._link(number, IFLA_MASTER=master)

    def set_up(self, number: int) -> None:
        self._link(number, up=True)

    def add_address(self, number: int, address: str) -> None:
        self._tell(_address(number, address), RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)

    def delete_address(self, number: int, address: str) -> None:
        self._tell(_address(number, address), RTM_DELADDR)

    def default_route(self, number: int, gateway: str) -> None:
        """The only one: replaces another."""
        message = rtmsg()
        message["family"] = socket.AF_INET
        message["table"], message["proto"], message["type"] = _MAIN_TABLE, _DHCP, _UNICAST
        message["attrs"] = [("RTA_GATEWAY", gateway), ("RTA_OIF", number)]
        self._tell(message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)

    def _link(self, number: int, flags: int = 0, up: bool = False, **attributes: object) -> None:
        message = ifinfmsg()
        message["index"] = number
        message["flags"] = message["change"] = _UP if up else 0
        message["attrs"] = list(attributes.items())
        self._tell(message, RTM_NEWLINK, flags)

    def _tell(self, message: Any, kind: int, flags: int = 0) -> None:
        self._ask(message, kind, NLM_F_ACK | flags)

    def _dump(self, message: Any, kind: int) -> list[Any]:
        """All there are; asked again if there was a change while the kernel told them."""
        for _ in range(_DUMPS):
            try:
                return self._ask(message, kind, NLM_F_DUMP)
            except NetlinkDumpInterrupted:
                pass
        raise OSError(errno.EAGAIN, "interfaces change faster than they can be read")

    def _ask(self, message: Any, kind: int, flags: int) -> list[Any]:
        try:
            return list(self._netlink.nlm_request(message, msg_type=kind, msg_flags=NLM_F_REQUEST | flags))
        except NetlinkDumpInterrupted:
            raise
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error


def _kind(name: str, settings: list[tuple[str, int]]) -> dict[str, object]:
    return {"attrs": [("IFLA_INFO_KIND", name), ("IFLA_INFO_DATA", {"attrs": settings})]}


def _address(number: int, address: str) -> Any:
    host, _, prefix = address.partition("/")
    message = ifaddrmsg()
    message["family"], message["index"], message["prefixlen"] = socket.AF_INET, number, int(prefix)
    message["attrs"] = [("IFA_LOCAL", host), ("IFA_ADDRESS", host)]
    return message
