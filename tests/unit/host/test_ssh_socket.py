"""What ssh gets its connection from, against a server that is started anew meanwhile."""

import socket
import subprocess
import sys
import threading

import pytest

BANNER = b"SSH-2.0-test\r\n"


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def passed(port):
    """The connection that the command passes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", "xoar.host.ssh_socket", str(port)]
        done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        _, (number,), _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=number)


def test_what_is_passed_has_had_the_servers_first_word_unread(server):
    def serve():
        for word in (b"", b"SS", b"HTTP", BANNER):
            connection, _ = server.accept()
            with connection:
                connection.sendall(word)
                if word == BANNER:
                    connection.sendall(connection.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    with passed(server.getsockname()[1]) as connection:
        assert connection.getblocking()
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: connection.recv(100), b"")) == BANNER + b"hello"
    thread.join()


def test_who_waits_in_vain_is_told(server, monkeypatch, capsys):
    from xoar.host import ssh_socket

    monkeypatch.setattr(ssh_socket, "_PATIENCE", 0.1)
    port = server.getsockname()[1]
    server.close()
    monkeypatch.setattr(sys, "argv", ["ssh_socket", str(port)])
    assert ssh_socket.main() == 1
    assert f"no SSH server answers at port {port}" in capsys.readouterr().err
