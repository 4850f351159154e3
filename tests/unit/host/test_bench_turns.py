"""Hosts that are paused and go on, against a stand-in for their emulator's monitor."""

import json
import socket
import threading
import time
from collections import defaultdict

import pytest

from xoar.host import state
from xoar.host.bench import hosts, turns
from xoar.host.emulator import MONITOR
from xoar.host.errors import HostError


class Monitor:
    """Answers QMP, one connection after the other; `heard` are its commands; it refuses `refused`."""

    def __init__(self, path):
        self.heard = []
        self.refused = set()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._socket.accept()
            with connection:
                version = {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}
                self._say(connection, {"QMP": {"version": version, "capabilities": []}})
                while data := connection.recv(4096):
                    command = json.loads(data)
                    name = command["execute"]
                    self.heard.append(name)
                    refusal = {"error": {"class": "GenericError", "desc": "not now"}, "id": command.get("id")}
                    fine = {"return": {}, "id": command.get("id")}
                    self._say(connection, refusal if name in self.refused else fine)

    def _say(self, connection, what):
        connection.sendall(json.dumps(what).encode() + b"\n")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("XOAR_STATE", str(tmp_path))
    monkeypatch.setattr(state.Host, "alive", lambda _: object())
    made = state.Host("any")
    made.folder.mkdir()
    monkeypatch.chdir(made.folder)  # its path may be too long for a socket's name
    return made


@pytest.fixture
def monitor(host):
    return Monitor(MONITOR)


@pytest.fixture
def clock(monkeypatch):
    """The clock of this machine, for tests to set."""
    now = [100.0]
    monkeypatch.setattr(hosts, "now", lambda: now[0])
    return now


def test_a_host_goes_on_while_it_is_measured(host, monitor):
    player = turns.Player(host, 0.0)
    player.rest()
    assert monitor.heard == ["qmp_capabilities", "stop"]
    monitor.heard.clear()
    figures = defaultdict(list)

    def measure():
        assert monitor.heard == ["qmp_capabilities", "cont"]
        monitor.heard.clear()
        return 7.0

    turns.Side(player, figures).take("row", measure)
    assert monitor.heard == ["qmp_capabilities", "stop"]
    assert figures == {"row": [7.0]}


def test_rests_are_no_part_of_a_hosts_time(host, monitor, clock):
    player = turns.Player(host, 90.0)
    assert player.elapsed(105.0) == 15.0
    player.rest()
    assert player.elapsed(105.0) == 10.0
    clock[0] = 130.0
    player.go_on()
    assert player.elapsed(131.0) == 11.0
    assert player.elapsed(99.0) == 9.0  # what was before the rest
    assert player.elapsed(110.0) == 10.0  # in it
    player.go_on()  # it does already
    assert monitor.heard.count("cont") == 1


def test_hosts_take_turns_until_they_are_up(host, monitor, monkeypatch):
    monkeypatch.setattr(turns, "_TURN", 0.05)
    players = [turns.Player(host, 0.0), turns.Player(host, 0.0)]
    for player in players:
        player.rest()
    with turns.alternating(players):
        for player in players:
            with player.brought_up():
                time.sleep(0.3)
        monitor.heard.clear()
        time.sleep(0.2)
        assert "cont" not in monitor.heard[6:]  # but for a turn that was going on
    resting = hosts.now()
    assert all(player.elapsed(resting) == player.elapsed(resting + 5) for player in players)


def test_a_host_that_can_not_be_told_is_an_error_after_the_block(host, monitor):
    player = turns.Player(host, 0.0)
    player.rest()
    monitor.refused.add("cont")
    with pytest.raises(HostError, match="any refuses to cont"), turns.alternating([player]):
        time.sleep(0.3)


def test_what_the_emulator_refuses_is_an_error(host, monitor):
    monitor.refused.add("stop")
    with pytest.raises(HostError, match="any refuses to stop: not now"):
        turns.Player(host, 0.0).rest()


def test_a_host_that_is_not_under_test_can_not_be_paused(host):
    with pytest.raises(HostError, match="monitor of host any does not answer"):
        turns.Player(host, 0.0).rest()
