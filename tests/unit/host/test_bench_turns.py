"""Hosts that are paused and go on, against a stand-in for their emulator's monitor."""

import json
import socket
import threading
from collections import defaultdict

import pytest

from xoar.host import state
from xoar.host.bench import turns
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


def test_a_paused_host_goes_on_while_it_is_measured(host, monitor):
    turns.pause(host)
    assert monitor.heard == ["qmp_capabilities", "stop"]
    monitor.heard.clear()

    def measure():
        assert monitor.heard == ["qmp_capabilities", "cont"]
        monitor.heard.clear()
        return 7.0

    figures = defaultdict(list)
    turns.Side(host, figures).take("row", measure)
    assert monitor.heard == ["qmp_capabilities", "stop"]
    assert figures == {"row": [7.0]}


def test_what_the_emulator_refuses_is_an_error(host, monitor):
    monitor.refused.add("stop")
    with pytest.raises(HostError, match="any refuses to stop: not now"):
        turns.pause(host)


def test_a_host_that_is_not_under_test_can_not_be_paused(host):
    with pytest.raises(HostError, match="monitor of host any does not answer"):
        turns.pause(host)
