"""The agent in the guest and the benchmark's end, over the loopback."""

import threading

import pytest

from xoar.host.bench import agent, guest_link
from xoar.host.errors import HostError


@pytest.fixture
def guest(monkeypatch):
    """An agent that has called, as the benchmark sees it."""
    monkeypatch.setattr(agent, "SERVER", "127.0.0.1")
    with guest_link.listen(0) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(agent, "PORT", port)
    with guest_link.Listener() as listener:
        thread = threading.Thread(target=agent.serve)
        thread.start()
        yield listener.wait(5)[0]
    thread.join(5)
    assert not thread.is_alive()  # it ends when the other end hangs up


def test_a_programs_output_and_time_come_back(guest):
    done = guest.run("sh", "-c", "sleep 0.2; echo out; echo err >&2")
    assert done.output == "out\nerr\n"
    assert done.seconds >= done.guest_seconds >= 0.2


def test_a_program_that_fails_is_an_error_with_what_it_printed(guest):
    with pytest.raises(HostError, match="exit code 3") as caught:
        guest.run("sh", "-c", "echo no such disk; exit 3")
    assert caught.value.detail == "no such disk\n"
    assert guest.run("echo", "next").output == "next\n"


def test_a_download_is_written_over_what_the_file_had(guest, tmp_path):
    file = tmp_path / "disk"
    length = (3 << 20) + 5
    file.write_bytes(b"x" * (length + 7))
    guest.download(length, str(file))
    assert file.read_bytes() == bytes(length) + b"x" * 7


def test_a_download_to_a_disk_that_is_not_there_is_an_error(guest, tmp_path):
    with pytest.raises(HostError, match="a download"):
        guest.download(1 << 20, str(tmp_path / "none"))


def test_a_download_that_ends_early_is_an_error(tmp_path):
    file = tmp_path / "disk"
    file.touch()
    with guest_link.sending(1000) as port:
        agent_server, agent.SERVER = agent.SERVER, "127.0.0.1"
        try:
            assert agent.download(1001, port, str(file)) == (1, "1 bytes are missing")
        finally:
            agent.SERVER = agent_server


def test_a_port_in_use_is_said(monkeypatch):
    with guest_link.listen(0) as taken:
        monkeypatch.setattr(agent, "PORT", taken.getsockname()[1])
        with pytest.raises(HostError, match=f"port {agent.PORT} of 127.0.0.1 is in use"):
            guest_link.Listener()


def test_another_guest_can_call_while_the_first_one_works(guest):
    with guest_link.Listener() as listener:
        thread = threading.Thread(target=agent.serve)
        thread.start()
        other, _ = listener.wait(5)
        assert (guest.run("echo", "one").output, other.run("echo", "two").output) == ("one\n", "two\n")
    thread.join(5)
