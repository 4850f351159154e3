"""Constraint groups: whatever is asked for, no driver domain serves guests of two groups at once."""

from __future__ import annotations

from typing import Any

import pytest
from driver_domains import DriverHost, disk, nic
from hypothesis import given, settings
from hypothesis import strategies as st

from xoar.messages.errors import EBUSY
from xoar.toolstack import groups
from xoar.toolstack.driver import BLKBACK, FAILED, NETBACK, Driver
from xoar.toolstack.guests import QUICK_END_MS
from xoar.toolstack.hotplug import RELEASE_MS

DOMIDS = {"net0": 6, "net1": 7, "disk0": 8, "disk1": 9}
NAMES = ("a", "b", "c")
GROUPS = ("", "red", "blue")


class GroupHost(DriverHost):
    """Two driver domains of each kind; on each a network or volumes. A guest has at most one device there."""

    def __init__(self) -> None:
        super().__init__(domids=DOMIDS)
        for number in (0, 1):
            network = self.network(f"lan{number}", driver=f"net{number}")
            assert self.ask("network_create", **network).kind == "done"
        self.groups: dict[int, str] = {}

    def devices(self, name: str, drivers: Any) -> dict[str, Any]:
        """A device of each of the driver domains."""
        return {
            "disks": [self.disk(name, driver) for driver in drivers if driver.startswith("disk")],
            "nics": [self.nic(name, driver) for driver in drivers if driver.startswith("net")],
        }

    def disk(self, name: str, driver: str) -> Any:
        return disk({"disk0": "xvda", "disk1": "xvdb"}[driver], f"{name}.{driver}", driver)

    def nic(self, name: str, driver: str) -> Any:
        return nic(driver.replace("net", "lan"), NAMES.index(name) + 1)

    def try_create(self, name: str, group: str, *drivers: str) -> Any:
        fields = self.create_fields(name, group=group, **self.devices(name, drivers))
        return self.ask("guest_create", **fields)

    def plug(self, name: str, driver: str) -> tuple[str, dict[str, Any]]:
        """The request that gives a guest a device."""
        if driver.startswith("disk"):
            return "disk_attach", {"disk": self.disk(name, driver)}
        return "nic_attach", {"nic": self.nic(name, driver)}

    def try_attach(self, name: str, driver: str) -> Any:
        kind, device = self.plug(name, driver)
        return self.ask(kind, guest=name, timeout_ms=1000, **device)

    def unplug(self, name: str, driver: str) -> tuple[str, dict[str, Any]]:
        """The request that takes a guest's device."""
        if driver.startswith("disk"):
            return "disk_detach", {"device": self.disk(name, driver)[0]}
        guest = self.guests.find(name)
        handles = [
            device.number for device in (guest.devices if guest else []) if device.driver.name == driver
        ]
        return "nic_detach", {"handle": handles[0] if handles else 9}

    def served(self) -> dict[str, set[str]]:
        """The groups of the guests that have nodes in each driver domain's backends."""
        for guest in self.guests.all:
            if guest.domid:
                self.groups[guest.domid] = guest.config.group
        found: dict[str, set[str]] = {name: set() for name in DOMIDS}
        client = self.client(99)
        for name, domid in DOMIDS.items():
            for kind in ("vif", "vbd"):
                for guest in self.below(client, f"/local/domain/{domid}/backend/{kind}"):
                    found[name].add(self.groups[int(guest)])
        return found


def test_a_guest_of_another_group_is_refused_with_what_would_do_and_accepted_there() -> None:
    host = GroupHost()
    assert host.try_create("a", "red", "net0").kind == "started"
    refused = host.try_create("b", "blue", "net0")
    assert (refused.kind, refused.fields.errno) == ("error", EBUSY)
    text = "net0 serves guest a of group red; guests of group blue can use a network on net1"
    assert refused.fields.text == text
    assert host.try_create("b", "blue", "net1").kind == "started"
    assert host.served() == {"net0": {"red"}, "net1": {"blue"}, "disk0": set(), "disk1": set()}


def test_where_no_driver_domain_would_do_that_is_said() -> None:
    host = GroupHost()
    host.try_create("a", "red", "disk0", "disk1")
    refused = host.try_create("b", "", "disk1")
    text = "disk1 serves guest a of group red; guests without a group need another blkback, or this one"
    assert (refused.fields.errno, refused.fields.text) == (EBUSY, f"{text} free of others")


def test_a_driver_domain_that_has_failed_is_not_offered() -> None:
    host = GroupHost()
    host.fake.channel.send("stopped", 0, domid=DOMIDS["net1"], reason="crash")
    host.try_create("a", "red", "net0")
    assert "need another netback" in host.try_create("b", "blue", "net0").fields.text


@pytest.mark.parametrize("group", GROUPS)
def test_guests_of_the_same_group_share_and_those_without_one_are_a_group(group: str) -> None:
    host = GroupHost()
    for name in ("a", "b"):
        assert host.try_create(name, group, *DOMIDS).kind == "started"
    for other in GROUPS:
        if other != group:
            assert host.try_create("c", other, "disk0").fields.errno == EBUSY
    assert host.try_create("c", "other").kind == "started", "it has no device"


def test_a_guests_group_is_shown() -> None:
    host = GroupHost()
    host.try_create("a", "red")
    assert host.show("a").group == "red"


def test_nothing_is_left_in_use_by_a_guest_that_was_refused() -> None:
    host = GroupHost()
    host.try_create("a", "red", "net0")
    assert host.try_create("b", "blue", "disk0", "net0").fields.errno == EBUSY
    assert host.try_create("c", "red", "disk0").kind == "started"


def test_a_device_of_another_groups_driver_domain_is_not_plugged_in() -> None:
    host = GroupHost()
    host.try_create("a", "red", "net0", "disk0")
    host.try_create("b", "blue", "net1")
    assert host.try_attach("b", "net0").fields.text.startswith("net0 serves guest a of group red; guests")
    assert host.try_attach("b", "disk0").fields.errno == EBUSY
    assert host.try_attach("b", "disk1").kind == "done"
    assert host.try_attach("a", "disk1").fields.errno == EBUSY
    assert [row.volume for row in host.show("b").disks] == ["b.disk1"] and len(host.show("b").nics) == 1


def test_a_driver_domain_is_free_once_its_guests_are_gone() -> None:
    host = GroupHost()
    host.try_create("a", "red", "net0")
    assert host.ask("guest_destroy", name="a").kind == "done"
    assert host.try_create("b", "blue", "net0").kind == "started"


def test_a_guest_that_is_being_built_or_is_kept_or_reboots_counts() -> None:
    host = GroupHost()
    host.fake.hold = {"build"}
    host.send("guest_create", **host.create_fields("a", group="red", **host.devices("a", ["net0"])))
    host.run()
    assert host.try_create("b", "blue", "net0").fields.errno == EBUSY
    host.fake.answer_held()
    host.run()
    host.fake.stop(host.show("a").domid, "crash")
    host.run()
    assert host.state("a") == "kept"
    assert host.try_create("b", "blue", "net0").fields.errno == EBUSY
    host.fake.hold = {"destroy"}
    host.send("guest_reboot", name="a", timeout_ms=1000)
    host.run()
    assert host.try_create("b", "blue", "net0").fields.errno == EBUSY
    host.fake.answer_held()
    host.run()
    assert [row.state for row in host.show("a").nics] == ["connected"]


def test_a_device_that_its_guest_does_not_let_go_of_counts() -> None:
    host = GroupHost()
    host.try_create("a", "red", "disk0")
    host.stubborn = {host.show("a").domid}
    kind, which = host.unplug("a", "disk0")
    host.send(kind, guest="a", timeout_ms=1000, **which)
    host.run()
    host.now += 1000
    host.run()
    assert host.try_create("b", "blue", "disk0").fields.errno == EBUSY
    host.stubborn = set()
    host.run()
    assert host.try_create("b", "blue", "disk0").kind == "started"


class Config:
    """What of a guest's configuration counts here."""

    def __init__(self, name: str, group: str) -> None:
        self.name, self.group = name, group


@given(
    st.lists(st.text("ab", min_size=1, max_size=32), min_size=1, max_size=26, unique=True),
    st.sampled_from([NETBACK, BLKBACK]),
    st.text("abc", min_size=1, max_size=64),
    st.lists(st.text("rg", max_size=32), min_size=2, max_size=2, unique=True),
    st.sets(st.integers(0, 25)),
    st.sets(st.integers(0, 25)),
)
def test_a_refusal_has_room_in_a_message_and_names_the_first_that_would_do(
    names: list[str], kind: str, guest: str, tags: list[str], taken: set[int], failed: set[int]
) -> None:
    drivers = [Driver(name, kind, 6 + number, 0) for number, name in enumerate(names)]
    uses = [(driver, Config(guest, tags[0])) for n, driver in enumerate(drivers) if n == 0 or n in taken]
    for number in failed & set(range(len(drivers))):
        drivers[number].state = FAILED
    text = groups.refusal(drivers[0], tags[1], uses, drivers)
    assert text.startswith(f"{names[0]} serves guest {guest} ") and len(text) <= 256
    fit = [name for n, name in enumerate(names) if n and n not in taken and n not in failed]
    if fit:
        assert f" on {fit[0]}" in text and set(text.partition(" on ")[2].split(", ")) <= set(fit)
    else:
        assert text.endswith(f"need another {kind}, or this one free of others")
    assert groups.refusal(drivers[0], tags[0], uses, drivers) == ""


# few of each, so that requests meet
DRIVERS = st.sampled_from(["net0", "disk0", "disk1"])
GUESTS = st.sampled_from(NAMES)
CREATE = st.tuples(st.just("create"), GUESTS, st.sampled_from(["", "red"]), st.sets(DRIVERS, max_size=2))
ATTACH = st.tuples(st.just("attach"), GUESTS, DRIVERS)
REQUESTS = st.one_of(
    CREATE,
    CREATE,
    ATTACH,
    ATTACH,
    st.tuples(st.just("detach"), GUESTS, DRIVERS),
    st.tuples(st.sampled_from(["destroy", "reboot"]), GUESTS),
    st.tuples(st.just("restart"), DRIVERS),
)


@settings(max_examples=40)
@given(st.lists(REQUESTS, min_size=5, max_size=20))
def test_a_request_is_refused_exactly_if_it_would_make_a_driver_domain_serve_two_groups(
    requests: list[tuple[Any, ...]],
) -> None:
    host = GroupHost()
    tags: dict[str, str] = {}
    users: dict[str, set[str]] = {name: set() for name in DOMIDS}

    def strange(driver: str, group: str) -> bool:
        return any(tags[user] != group for user in users[driver])

    for what, *words in requests:
        name = words[0]
        if what == "create" and name not in tags:
            group, drivers = words[1:]
            refused = any(strange(driver, group) for driver in drivers)
            assert host.try_create(name, group, *sorted(drivers)).kind == ("error" if refused else "started")
            if not refused:
                tags[name] = group
                for driver in drivers:
                    users[driver].add(name)
        elif what == "attach" and name in tags and name not in users[words[1]]:
            refused = strange(words[1], tags[name])
            assert host.try_attach(name, words[1]).kind == ("error" if refused else "done")
            if not refused:
                users[words[1]].add(name)
        elif what == "detach" and name in tags and name in users[words[1]]:
            kind, which = host.unplug(name, words[1])
            answer = host.ask(kind, guest=name, timeout_ms=1000, **which)
            assert answer.kind == "done", answer
            users[words[1]].remove(name)
        elif what == "destroy" and name in tags:
            assert host.ask("guest_destroy", name=name).kind == "done"
            del tags[name]
            for who in users.values():
                who.discard(name)
        elif what == "reboot" and name in tags:
            # one that reboots again and again right after its start is kept
            host.now += QUICK_END_MS
            host.fake.stop(host.show(name).domid, "reboot")
            host.run()
        elif what == "restart":
            assert host.ask("driver_restart", name=name, timeout_ms=1000).kind == "done"
        assert all(len(found) <= 1 for found in host.served().values())


TROUBLE = st.one_of(
    CREATE,
    ATTACH,
    REQUESTS,
    st.tuples(st.sampled_from(["hold", "fail"]), st.sampled_from(["build", "unpause", "destroy"])),
    st.tuples(st.just("stop"), st.sampled_from(["crash", "reboot", "poweroff", "vanished"])),
    st.tuples(st.sampled_from(["stubborn", "shy", "heal"])),
    st.tuples(st.just("wait"), st.integers(0, 2 * RELEASE_MS)),
)


def step(host: GroupHost, what: str, words: list[Any]) -> None:
    channel = 10 + host.last_id
    if what == "create":
        name, group, drivers = words
        fields = host.create_fields(name, group=group, **host.devices(name, sorted(drivers)))
        host.send("guest_create", channel, **fields)
    elif what in ("attach", "detach"):
        kind, device = (host.plug if what == "attach" else host.unplug)(*words)
        host.send(kind, channel, guest=words[0], timeout_ms=1000, **device)
    elif what == "destroy":
        host.send("guest_destroy", channel, name=words[0])
    elif what == "reboot":
        host.send("guest_reboot", channel, name=words[0], timeout_ms=1000)
    elif what == "restart":
        host.send("driver_restart", channel, name=words[0], timeout_ms=1000)
    elif what in ("hold", "fail"):
        getattr(host.fake, what).add(words[0])
    elif what == "stop":
        for domid in [domid for domid, state in host.fake.domains.items() if state == "running"]:
            host.fake.stop(domid, words[0])
    elif what == "stubborn":
        host.stubborn = set(range(32, 100))
    elif what == "shy":
        host.connects = False
    elif what == "wait":
        host.now += words[0]
    else:
        host.fake.fail.clear()
        host.fake.answer_held()
        host.stubborn, host.connects = set(), True


@settings(max_examples=40)
@given(st.lists(TROUBLE, min_size=5, max_size=25))
def test_whatever_fails_meanwhile_no_driver_domain_serves_two_groups(steps: list[tuple[Any, ...]]) -> None:
    host = GroupHost()
    host.try_create("a", "red", "net0", "disk0")
    host.try_create("b", "")
    for what, *words in steps:
        step(host, what, words)
        for _ in range(3):
            host.run(2)
            assert all(len(found) <= 1 for found in host.served().values())
