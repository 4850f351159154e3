"""What a shard does at the start of each of its lives (boot.snapshot); Xen's event channels are simulated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from xoar.abi import xen as abi

RESTORER, LINK = 3, 2  # ports
LIFE = 15 * 4096
WORDS = f"name=logic domid=4 uses=xenstore:5:{LINK} restorer={RESTORER}:60:63 ready=9"


class Nano:
    """In the module's place. `channels`: port -> (what it is, its other end)."""

    def __init__(self) -> None:
        self.life = bytearray(4096)
        self.channels = {LINK: (abi.EVTCHNSTAT_unbound, 1), RESTORER: (abi.EVTCHNSTAT_interdomain, 6)}
        self.notified: list[int] = []
        self.bound: list[tuple[int, int]] = []
        self.timers = 0
        self.exits = 0
        self.gone = False
        self._buffers: dict[int, Any] = {}
        self.lives = iter([1])

    def memory(self, address: int, length: int, typecode: str = "B") -> memoryview:
        assert (address, length, typecode) == (LIFE, 1, "I")
        return memoryview(self.life).cast("I")

    def shared_info(self) -> int:
        return 0x400000

    def address(self, buffer: Any) -> int:
        self._buffers[id(buffer)] = buffer
        return id(buffer)

    def now(self) -> int:
        return 0

    def bind_timer(self) -> int:
        self.timers += 1
        return 0

    def wait(self, deadline: int) -> list[int]:
        self.life[0] = next(self.lives)
        return []

    def hypercall(self, number: int, *arguments: Any) -> int:
        self.exits += 1
        if number == abi.HYPERVISOR_multicall:
            calls, count = arguments
            for base in range(0, count * abi.multicall_entry.size, abi.multicall_entry.size):
                get = abi.multicall_entry.get
                assert get(calls, "op", base) == abi.HYPERVISOR_event_channel_op
                buffer = self._buffers[get(calls, "argument", base)]
                result = self._event(get(calls, "command", base), buffer)
                abi.multicall_entry.set(calls, "result", result & (1 << 64) - 1, base)
            return 0
        assert number == abi.HYPERVISOR_event_channel_op
        return self._event(*arguments)

    def _event(self, operation: int, buffer: bytearray) -> int:
        if operation == abi.EVTCHNOP_status:
            port = abi.evtchn_status.get(buffer, "port")
            if port not in self.channels:
                return -13
            kind, peer = self.channels[port]
            abi.evtchn_status.set(buffer, "status", kind)
            abi.evtchn_status.set(buffer, "peer", peer)
        elif operation == abi.EVTCHNOP_close:
            port = abi.evtchn_send.get(buffer, "port")
            return -22 if self.channels.pop(port, None) is None else 0
        elif operation == abi.EVTCHNOP_send:
            self.notified.append(abi.evtchn_send.get(buffer, "port"))
        elif operation == abi.EVTCHNOP_bind_interdomain:
            if self.gone:
                return -3
            get = abi.evtchn_bind_interdomain.get
            self.bound.append((get(buffer, "remote_dom"), get(buffer, "remote_port")))
            abi.evtchn_bind_interdomain.set(buffer, "local_port", 20)
            self.channels[20] = (abi.EVTCHNSTAT_interdomain, 0)
        return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Nano, Any]]:
    """The simulated machine, and the module boot on it; both are forgotten afterwards."""
    nano = Nano()
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "nano", nano)
    import xoar.xen.boot as boot

    monkeypatch.setattr(boot, "command_line", lambda: WORDS)
    monkeypatch.setattr("gc.mem_free", lambda: 0, raising=False)  # MicroPython has it
    yield nano, boot
    for name in [name for name in set(sys.modules) - before if name.startswith("xoar.")]:
        package, _, module = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(module, None)
        del sys.modules[name]


def test_a_shard_without_restorer_goes_on_at_once(machine, monkeypatch):
    nano, boot = machine
    monkeypatch.setattr(boot, "command_line", lambda: "name=console domid=2")
    assert boot.snapshot() == 0 and nano.exits == 0


def test_it_asks_until_the_snapshot_was_taken(machine):
    nano, boot = machine
    nano.lives = iter([0, 0, 1])
    assert boot.snapshot() == 1
    assert nano.notified == [RESTORER] * 3
    assert nano.timers == 1


def test_what_was_opened_in_a_former_life_is_closed(machine):
    nano, boot = machine

    def wait(deadline: int) -> list[int]:
        # the life of another begins: what follows has been done in it
        nano.life[0] = 7
        nano.channels |= {port: (abi.EVTCHNSTAT_interdomain, 5) for port in (1, 4, 40, 63)}
        nano.channels[LINK] = (abi.EVTCHNSTAT_interdomain, 1)  # its server has bound it meanwhile
        return []

    nano.wait = wait
    assert boot.snapshot() == 7
    assert set(nano.channels) == {LINK, RESTORER}
    assert nano.exits < 6


@pytest.mark.parametrize("now", [None, (abi.EVTCHNSTAT_interdomain, 9), (abi.EVTCHNSTAT_unbound, 9), (4, 1)])
def test_a_link_that_leads_elsewhere_is_noticed(machine, now):
    nano, boot = machine

    def wait(deadline: int) -> list[int]:
        nano.life[0] = 7
        del nano.channels[LINK]
        if now is not None:
            nano.channels[LINK] = now
        return []

    nano.wait = wait
    with pytest.raises(OSError, match="event channel 2 is not what it was"):
        boot.snapshot()


def test_ready_is_said_as_long_as_somebody_waits_for_it(machine):
    nano, boot = machine
    nano.life[0] = 1
    boot.ready()
    assert nano.bound == [(0, 9)] and nano.notified == [20]
    nano.life[0] = 2
    boot.ready()
    assert nano.bound == [(0, 9)] * 2
    nano.gone = True
    boot.ready()
    nano.life[0] = 1
    with pytest.raises(OSError, match="bind port 9"):
        boot.ready()


def test_who_may_ask_for_rollbacks_is_told_how(machine, monkeypatch):
    _, boot = machine
    monkeypatch.setattr(boot, "command_line", lambda: "kick=logic:1:5000:8 kick=clock:0:0:11")
    assert [tuple(kick) for kick in boot.kicks()] == [("logic", 1, 5000, 8), ("clock", 0, 0, 11)]


OWN_KICK = 12


class Sleeper:
    """Sleeps of a life: `nano` gets its clock, and each sleep lasts until its deadline."""

    def __init__(self, nano: Nano, boot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from xoar.xen.box import Box
        from xoar.xen.lives import Life

        self.time = 1
        self.slept: list[tuple[int, bool]] = []
        self.box = Box(memoryview(bytearray(100)))
        monkeypatch.setattr(nano, "now", lambda: self.time)
        monkeypatch.setattr(nano, "wait", self.wait)
        words = f"{WORDS} kick=logic:0:0:{OWN_KICK} kick=other:0:0:9"
        monkeypatch.setattr(boot, "command_line", lambda: words)
        self.life = Life(self.box)

    def wait(self, deadline: int) -> list[int]:
        self.slept.append((deadline, self.box.at_rest))
        self.time = max(self.time, deadline)
        return [7]


SECOND = 10**9


def test_a_life_ends_when_somebody_was_served_and_nothing_is_on_its_way(machine, monkeypatch):
    nano, boot = machine
    sleeper = Sleeper(nano, boot, monkeypatch)
    assert sleeper.life.sleep(50, False, True) == [7] and sleeper.life.sleep(60, True, False) == [7]
    assert nano.notified == [] and sleeper.slept == [(50, False), (60, True)]
    # nobody begins the next one, so this one goes on after a while
    assert sleeper.life.sleep(70, True, True) is None
    assert nano.notified == [OWN_KICK]
    assert sleeper.slept[2:] == [(60 + 10 * SECOND, True)] and not sleeper.box.at_rest


def test_an_endless_life_asks_for_no_other(machine, monkeypatch):
    from xoar.xen.endless import Endless

    nano, boot = machine
    sleeper = Sleeper(nano, boot, monkeypatch)
    life = Endless(sleeper.box)
    for at in (1, 40, 70):  # seconds; its time would be over after 60
        assert life.sleep(at * SECOND, True, True) == [7]
    assert nano.notified == []
    # a next life, if somebody else begins it, does not take this one for one at rest
    assert sleeper.slept == [(1 * SECOND, False), (40 * SECOND, False), (70 * SECOND, False)]


def test_who_is_built_anew_ends_when_it_is_at_rest_and_not_too_young(machine, monkeypatch):
    from xoar.xen.lives import Over, Term

    nano, boot = machine
    sleeper = Sleeper(nano, boot, monkeypatch)
    monkeypatch.setattr(boot, "command_line", lambda: "anew=100:10")
    most, least = boot.term()
    term = Term(most, least)
    assert term.begin()
    assert term.sleep(None, True, False) == [7]  # nobody was served: half of its time
    assert sleeper.slept == [(1 + 50 * SECOND, False)]
    with pytest.raises(Over):
        term.sleep(None, True, False)
    sleeper.time = 1
    assert term.sleep(5 * SECOND, True, True) == [7] and term.sleep(None, True, True) == [7]
    assert sleeper.slept[1:] == [(5 * SECOND, False), (1 + 10 * SECOND, False)]
    assert term.sleep(70 * SECOND, False, True) == [7]  # something is on its way, though it is late
    with pytest.raises(Over):
        term.sleep(None, True, True)
    assert nano.notified == []


def test_others_are_not_built_anew(machine):
    _, boot = machine
    assert boot.term() is None


def test_a_life_that_is_too_old_takes_up_nothing_new(machine, monkeypatch):
    nano, boot = machine
    sleeper = Sleeper(nano, boot, monkeypatch)
    assert sleeper.life.sleep(30 * SECOND, True, False) == [7]
    assert sleeper.life.sleep(32 * SECOND, False, False) == [7] and nano.notified == []
    assert sleeper.life.sleep(33 * SECOND, True, False) is None and nano.notified == [OWN_KICK]


def test_the_next_life_hears_whether_the_last_one_was_at_rest(machine, monkeypatch):
    nano, boot = machine
    sleeper = Sleeper(nano, boot, monkeypatch)
    assert sleeper.life.begin() is False
    sleeper.box.at_rest = True
    assert sleeper.life.begin() is True and not sleeper.box.at_rest
