import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xoar.xenstore import linux, wire
from xoar.xenstore.errors import ProtocolError, Refused


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("store") / "xs"
    process = subprocess.Popen([sys.executable, "-m", "xoar.host.xenstored", "--socket", str(path)])
    try:
        end = time.monotonic() + 20
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        yield path
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def store(server: Path) -> Iterator[linux.Connection]:
    with linux.connect(str(server)) as connection:
        yield connection
        connection.rm("/test")


def test_reads_what_it_wrote(store: linux.Connection):
    store.write("/test/a", "x" * 4000)
    assert store.text("/test/a") == "x" * 4000
    assert store.children("/test") == ["a"]


def test_missing_nodes_have_no_text_and_no_children(store: linux.Connection):
    assert store.text("/test/missing") is None
    assert store.children("/test/missing") == []


def test_a_value_that_is_not_ascii_has_no_text(store: linux.Connection):
    store.write("/test/a", b"\xff\0")
    assert store.text("/test/a") is None


def test_relative_paths_are_below_the_home(store: linux.Connection):
    store.write("test-home", "x")
    assert store.text("/local/domain/0/test-home") == "x"
    store.rm("test-home")


def test_a_watch_fires_at_once_and_when_others_write(server: Path, store: linux.Connection):
    store.watch("/test", "token")
    assert store.next_event(5) == ("/test", "token")
    with linux.connect(str(server)) as other:
        other.write("/test/b", "1")
    assert store.next_event(5) == ("/test/b", "token")


def test_waiting_for_an_event_ends_in_time(store: linux.Connection):
    start = time.monotonic()
    assert store.next_event(0.1) is None
    assert 0.1 <= time.monotonic() - start < 5


def test_fileno_is_readable_when_an_event_waits(server: Path, store: linux.Connection):
    store.watch("/test", "token")
    assert store.next_event(5) is not None
    with linux.connect(str(server)) as other:
        other.write("/test/b", "1")
    assert store._file.wait(5)
    assert store.fileno() == store._file.fd
    assert store.next_event(0) == ("/test/b", "token")


def test_an_event_that_came_with_a_reply_is_told_of(store: linux.Connection):
    store.watch("/test", "token")
    assert store.next_event(5) is not None
    assert not store.has_event()
    store.write("/test/b", "1")
    store.text("/test/b")
    assert store.has_event()
    assert store.next_event(0) == ("/test/b", "token")


def test_the_end_of_the_server_is_an_error():
    ours, theirs = socket.socketpair()
    theirs.close()
    with linux.Connection(ours.fileno(), ours.close) as store, pytest.raises(ProtocolError):
        store.next_event(5)


def test_each_message_is_one_write():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with linux.Connection(ours.fileno(), ours.close) as store, theirs:
        store.request(wire.WRITE, b"/a\0" + b"x" * 4000)
        store.request(wire.READ, b"/a\0")
        assert theirs.recv(1 << 16)[wire.HEADER_SIZE :] == b"/a\0" + b"x" * 4000
        assert theirs.recv(1 << 16)[wire.HEADER_SIZE :] == b"/a\0"


def test_a_refusal_by_the_write_itself_is_a_refusal():
    # as the kernel's device refuses a watch; here, because the file is open for reading only
    fd = os.open(os.devnull, os.O_RDONLY)
    with linux.Connection(fd, lambda: os.close(fd)) as store, pytest.raises(Refused) as caught:
        store.watch("/a", "token")
    assert caught.value.name == "EBADF"
