"""What a Toolstack knows of XenStore over a rollback: never anything but what is there."""

from __future__ import annotations

import pytest
from driver_domains import BLK, NET
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_host_memory import everything, full
from toolstack_host import TOOLSTACK, Host

from xoar.messages.codec import decode, encode
from xoar.toolstack.mirror import BELIEVED_MS, MAX_BYTES, Mirror
from xoar.xenstore.errors import Refused

SAID = f"/local/domain/{NET}/service"
VOLUMES = f"/local/domain/{BLK}/service/volumes"
VOLUME = "size_kib=8 used_kib=4 origin=- users=- state=ok"


def requests(host: Host) -> int:
    """How many this life has sent to XenStore."""
    return host.store._client._last_request


def rested(host: Host) -> None:
    """Runs until nothing is on its way."""
    for _ in range(4):
        host.run()
    assert host.toolstack.idle


def check(host: Host) -> int:
    """All that the mirror knows is what XenStore has; how much it knows."""
    client, known = host.as_domain(TOOLSTACK), host.store.mirror._known
    for path, value in known.items():
        try:
            if path.endswith("/"):
                names = [] if value is None else sorted(value.split(b"\0")[:-1])
                assert names == sorted(name.encode() for name in client.directory(path[:-1])), path
            else:
                assert client.read(path) == value, path
        except Refused as error:
            assert (error.name, value) == ("ENOENT", None), path
    return len(known)


def test_a_life_that_follows_one_at_rest_asks_for_nothing() -> None:
    host = full()
    rested(host)
    before, devices = everything(host), host.show()
    assert before[1].networks[0].state == "up" and before[5].volumes and devices.nics[0].state == "connected"
    host.roll_back()
    rested(host)
    for _ in range(3):
        host.roll_back()
        rested(host)
        assert requests(host) == 0
        assert everything(host) == before and host.show() == devices
    assert check(host) > 10
    assert not host.reports


def test_what_happens_while_nobody_listens_is_heard() -> None:
    host = full()
    rested(host)
    host.client(NET).write(SAID + "/networks/lan", "down: no link")
    host.client(BLK).write(VOLUMES + "/data", VOLUME)
    host.roll_back()
    rested(host)
    assert everything(host)[1].networks[0].state == "down: no link"
    assert [row.name for row in everything(host)[5].volumes] == ["data", "root"]
    host.client(BLK).rm(VOLUMES + "/root")
    host.roll_back()
    rested(host)
    assert [row.name for row in everything(host)[5].volumes] == ["data"]
    check(host)


def test_a_life_that_follows_none_at_rest_asks_for_all() -> None:
    host = full()
    rested(host)
    before = everything(host)
    host.begin_anew()
    rested(host)
    assert requests(host) > 10
    assert everything(host) == before


def test_what_was_said_is_believed_for_a_time() -> None:
    host = full()
    rested(host)
    before = everything(host)
    lie = encode("kept_node", 9999, path=SAID + "/networks/lan", there=1, value=b"up and away")
    host.shelf.records = [
        record
        for record in host.shelf.records
        if decode(record).kind != "kept_node" or decode(record).fields.path != SAID + "/networks/lan"
    ] + [lie]
    host.roll_back()
    rested(host)
    assert everything(host)[1].networks[0].state == "up and away"
    host.now += BELIEVED_MS
    host.roll_back()
    rested(host)
    assert requests(host) > 10
    assert everything(host)[5:] == before[5:]
    assert everything(host)[1].networks[0].state == "up"
    check(host)
    asked = requests(host)
    host.roll_back()
    rested(host)
    assert asked > 0 and requests(host) == 0


@pytest.mark.parametrize("ahead", [1, BELIEVED_MS, 1 << 60])
def test_no_time_that_lies_ahead_is_believed(ahead: int) -> None:
    mirror = Mirror(lambda: 1000)
    fields = decode(encode("kept_watch", 1, path="/a", since_ms=1000 + ahead)).fields
    assert mirror.recall_watch(fields) is None
    assert not mirror.watch("/a")


def test_what_no_watch_covers_is_not_taken() -> None:
    mirror = Mirror(lambda: 0)
    mirror.watch("/a")
    for path in ("/ab", "/b", "/", "", "/A/b"):
        fields = decode(encode("kept_node", 1, path=path, there=1, value=b"")).fields
        assert mirror.recall_node(fields) is None
    for path in ("/a", "/a/", "/a/b", "/a/b/"):
        fields = decode(encode("kept_node", 1, path=path, there=1, value=b"")).fields
        assert mirror.recall_node(fields) is not None
        assert mirror.recall_node(fields) is None  # twice


def test_it_does_not_grow_without_end() -> None:
    mirror = Mirror(lambda: 0)
    mirror.watch("/a")
    for number in range(100):
        path = f"/a/{number}"
        mirror.asked(path)
        mirror.heard(path, bytes(4096))
    size = sum(len(path) + len(value or b"") for path, value in mirror._known.items())
    assert MAX_BYTES - 5000 < size <= MAX_BYTES
    mirror.changed("/a")
    assert not mirror._known and mirror._size == 0


@pytest.mark.parametrize("path", ["/a/b\n", "/a/\x7f", "/a/" + "b" * 300])
def test_what_no_record_can_hold_is_not_remembered(path: str) -> None:
    mirror = Mirror(lambda: 0)
    mirror.watch("/a")
    mirror.asked(path)
    mirror.heard(path, b"")
    mirror.asked("/a/c")
    mirror.heard("/a/c", bytes(4097))
    assert not mirror._known


VALUES = {
    "state": ("ready", "failed"),
    "note": ("", "no link"),
    "pool": ("size_kib=80 used_kib=4", "size_kib=80 used_kib=8"),
    "networks": ("up", "down"),
    "volumes": (VOLUME, VOLUME.replace("ok", "bad"), VOLUME.replace("used_kib=4", "used_kib=8")),
}
CHANGES = st.tuples(
    st.sampled_from(("write", "rm", "turn", "roll back", "begin anew", "later")),
    st.sampled_from(("/state", "/note", "/pool", "/networks/lan", "/volumes/root", "/volumes/data")),
    st.sampled_from((NET, BLK)),
    st.integers(0, 3),
)


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(CHANGES, max_size=12))
def test_it_knows_nothing_but_what_is_there(changes: list[tuple[str, str, int, int]]) -> None:
    host = full()
    rested(host)
    for what, leaf, domid, number in changes:
        path = f"/local/domain/{domid}/service{leaf}"
        if what == "write":
            values = VALUES[leaf.split("/")[1]]
            host.client(domid).write(path, values[number % len(values)])
        elif what == "rm" and leaf != "/pool":  # a pool goes with its driver domain only
            host.client(domid).rm(path)
        elif what == "turn":
            host.run(number)
        elif what == "roll back" and host.toolstack.idle:
            host.roll_back()
        elif what == "begin anew":
            host.begin_anew()
        else:
            host.now += BELIEVED_MS // 3
    host.run()
    host.run()
    check(host)
    seen = everything(host)
    host.begin_anew()
    rested(host)
    assert [everything(host)[index] for index in (1, 5)] == [seen[index] for index in (1, 5)]
