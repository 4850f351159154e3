"""The nodes of back ends: a Toolstack manages its guests' devices, and can't turn them into others'."""

from __future__ import annotations

import pytest
from xenstore_peer import Peer, new_server

from xoar.xenstore import wire

DRIVER, TOOLSTACK, GUEST, OTHER = 6, 32512, 40, 41
VBD = b"/local/domain/6/backend/vbd/40/51712"
VIF = b"/local/domain/6/backend/vif/40/0"


@pytest.fixture
def peers() -> dict[int, Peer]:
    server = new_server()
    found = {domid: Peer(server.introduce(domid)) for domid in (0, DRIVER, TOOLSTACK)}
    found |= {domid: Peer(server.introduce(domid, TOOLSTACK)) for domid in (GUEST, OTHER)}
    found[0].call(wire.MKDIR, b"/local/domain/6/backend")
    found[0].call(wire.SET_PERMS, b"/local/domain/6/backend", b"n0", b"b6")
    server.make_back_end(GUEST, DRIVER, b"vbd", 51712)
    server.make_back_end(GUEST, DRIVER, b"vif", 0)
    return found


def test_the_front_end_is_named_for_all_who_are_concerned(peers: dict[int, Peer]) -> None:
    for domid in (DRIVER, TOOLSTACK, GUEST):
        for path, front_end in ((VBD, b"vbd/51712"), (VIF, b"vif/0")):
            named = peers[domid].call(wire.READ, path + b"/frontend")
            assert named == b"/local/domain/40/device/" + front_end
            assert peers[domid].call(wire.READ, path + b"/frontend-id") == b"40"
    assert peers[OTHER].refusal(wire.READ, VBD + b"/frontend-id") == "EACCES"


@pytest.mark.parametrize("domid", [DRIVER, TOOLSTACK, GUEST, OTHER])
@pytest.mark.parametrize("path", [VBD + b"/frontend", VBD + b"/frontend-id", VIF + b"/frontend-id"])
def test_nobody_names_another_front_end(peers: dict[int, Peer], domid: int, path: bytes) -> None:
    assert peers[domid].refusal(wire.WRITE, path, b"41") == "EACCES"
    assert peers[domid].refusal(wire.SET_PERMS, path, b"b%d" % domid) == "EACCES"
    assert peers[domid].refusal(wire.RM, path) == "EACCES"


def test_only_the_driver_domain_says_which_disk_it_opens(peers: dict[int, Peer]) -> None:
    path = VBD + b"/physical-device"
    for domid in (TOOLSTACK, GUEST, OTHER):
        assert peers[domid].refusal(wire.RM, path) == "EACCES"
        assert peers[domid].refusal(wire.SET_PERMS, path, b"b%d" % domid) == "EACCES"
        with pytest.raises(Exception, match="EACCES"):
            peers[domid].call(wire.WRITE, path, tail=b"fe:3")
    assert peers[DRIVER].call(wire.READ, path) == b""
    peers[DRIVER].call(wire.WRITE, path, tail=b"fe:1")
    assert peers[TOOLSTACK].call(wire.READ, path) == b"fe:1"


def test_who_removes_a_back_end_can_not_make_it_again(peers: dict[int, Peer]) -> None:
    peers[TOOLSTACK].call(wire.WRITE, VBD + b"/params", tail=b"root")
    peers[TOOLSTACK].call(wire.RM, VBD)
    assert peers[TOOLSTACK].refusal(wire.MKDIR, VBD) == "EACCES"
    assert peers[TOOLSTACK].refusal(wire.WRITE, VBD + b"/frontend-id", b"41") == "EACCES"
