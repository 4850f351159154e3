"""The client against the line's server end: requests, pages, streams, and what it says of failures."""

from __future__ import annotations

import threading
import time

import pytest
from fake_host import FakeHost

from xoar.host.client import Client, Closed, NotRunning, RequestRefused, TimedOut, chunks
from xoar.host.errors import HostError
from xoar.messages.errors import ENOENT


def test_lists_that_come_in_pages_are_put_together(host: FakeHost) -> None:
    for number in range(5):
        host.add_guest(f"g{number}")
    with Client.connect("xoar") as client:
        assert [entry.id for entry in client.objects()] == [1, 2, 3, 5, 6, 7, 8, 9]
        assert [guest.name for guest in client.guests()] == ["g0", "g1", "g2", "g3", "g4"]
        assert len(client.images()) == 3


def test_a_refusal_carries_its_number_and_text(host: FakeHost) -> None:
    with Client.connect("xoar") as client:
        with pytest.raises(RequestRefused, match="there is no guest web") as caught:
            client.request("guest_show", name="web")
        assert caught.value.errno == ENOENT
        assert client.request("host_info").fields.domains == 3


def test_a_tenants_toolstack_that_is_being_built_anew_is_waited_for(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoar.host.client._ANEW_PAUSE", 0.01)
    host.absent = 3
    with Client.connect("xoar") as client:
        assert client.tenants_toolstack("acme").opened and host.absent == 0
    monkeypatch.setattr("xoar.host.client.ANEW_SECONDS", 0.05)
    host.absent = 1000
    with Client.connect("xoar") as client, pytest.raises(HostError, match="no Toolstack of tenant acme"):
        client.tenants_toolstack("acme")


def test_one_that_ends_before_anything_was_asked_is_waited_for(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoar.host.client._ANEW_PAUSE", 0.01)
    ends = [Closed("it closed the connection")] * 2

    def begin(requests: object, key: bytes) -> None:
        if ends:
            raise ends.pop()

    monkeypatch.setattr("xoar.host.client._Requests.begin", begin)
    with Client.connect("xoar") as client:
        client.tenant = "acme"
        assert client.request("host_info").fields.domains == 3 and not ends


def test_a_request_that_cannot_be_sent_is_an_error_before_it_is_sent(host: FakeHost) -> None:
    with Client.connect("xoar") as client, pytest.raises(HostError, match="no name"):
        client.request("guest_show", name="Not A Name")
    assert host.requests == []


def test_no_answer_ends_in_time_and_a_late_one_is_not_taken_for_the_next(host: FakeHost) -> None:
    host.deaf.add("host_info")
    with Client.connect("xoar") as client:
        started = time.monotonic()
        with pytest.raises(TimedOut, match="has not answered host_info"):
            client.request("host_info", 0.2)
        assert time.monotonic() - started < 2
        assert client.request("ps", start=0).kind == "objects"


def test_a_keeper_that_does_not_greet_is_reported(host: FakeHost) -> None:
    host.greets = False
    with pytest.raises(TimedOut, match="not answering") as caught:
        Client.connect("xoar", 0.2)
    assert "Xen version" in str(caught.value)


def test_a_console_carries_both_directions(host: FakeHost) -> None:
    shell = host.add_guest("web")
    with Client.connect("xoar") as client:
        console = client.console(5)
        console.write(b"root\r")
        received = b""
        while b"# " not in received:
            received += console.read(5)
        assert received.startswith(b"root\r\nroot@debian:~# ")
        assert shell.typed == ["root"]


def test_more_than_a_window_arrives_whole(host: FakeHost) -> None:
    shell = host.add_guest("web")
    shell.output = bytes(range(256)) * 400
    with Client.connect("xoar") as client:
        assert b"".join(chunks(client.log(5))) == shell.output


def test_input_longer_than_the_credit_arrives_whole(host: FakeHost) -> None:
    shell = host.add_guest("web")
    lines = [f"{number} {'x' * 100}" for number in range(100)]
    with Client.connect("xoar") as client:
        console = client.console(5)
        console.write("".join(f"{line}\r" for line in lines).encode())
        received = b""
        while lines[-1].encode() not in received:
            received += console.read(5)
    assert shell.typed == lines


def test_a_channel_that_is_refused_says_why(host: FakeHost) -> None:
    with Client.connect("xoar") as client, pytest.raises(HostError, match="there is no domain 77"):
        client.console(77)


def test_a_log_that_is_followed_goes_on_until_the_guest_ends(host: FakeHost) -> None:
    shell = host.add_guest("web")
    with Client.connect("xoar") as client:
        log = client.log(5, follow=True)
        assert log.read(5).startswith(b"Booting")
        shell.output += b"more"
        shell.ended = True
        assert b"".join(chunks(log)) == b"more"


def test_without_a_host_the_others_that_run_are_named(state_folder: object) -> None:
    with FakeHost("other"), pytest.raises(NotRunning, match="xoar is not running") as caught:
        Client.connect("xoar")
    assert "Running: other" in str(caught.value)


def test_a_host_that_crashes_during_a_request_is_reported_with_the_end_of_its_log(host: FakeHost) -> None:
    host.deaf.add("host_info")
    with Client.connect("xoar") as client:
        threading.Timer(0.1, host.crash, ["Panic on CPU 0"]).start()
        with pytest.raises(NotRunning, match="has crashed: Panic on CPU 0") as caught:
            client.request("host_info")
    assert "(d13) not yours" in str(caught.value)
    assert caught.value.log == host.host.xen_log
