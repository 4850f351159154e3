"""Xen's own XenStore tools, as Debian ships them, against our server on a Unix socket.

All of it with the server in one process, and with Logic in a process of its own that is rolled back never,
after a few requests, and after every one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_tools import Tools, xenstore_tools

TESTS = (
    "read 1",
    "read 2000",
    "write 1",
    "write 2000",
    "dir",
    "rm node",
    "rm dir",
    "ta empty",
    "ta empty x",
    "ta rmw",
    "ta rmw x",
    "ta err",
)


POLICIES = {
    "one process": (),
    "never rolled back": ("--split", "--after", "0"),
    "rolled back after 7": ("--split", "--after", "7"),
    "rolled back after each": ("--split", "--after", "1"),
}


class Store:
    """A server of our own, and tools that speak to it."""

    def __init__(self, tools: Tools, socket: Path, options: tuple[str, ...]) -> None:
        self._tools = tools
        self._socket = socket
        self.server = subprocess.Popen(
            [sys.executable, "-m", "xoar.host.xenstored", "--socket", str(socket), *options],
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Starts a tool."""
        return subprocess.Popen(
            self._tools.argv(program, *arguments),
            env=self._tools.environment(self._socket),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: str, status: int = 0) -> str:
        """What a tool prints; it has to end with this exit code."""
        process = self.start(program, *arguments)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == status, f"{program} {arguments}: {process.returncode}: {output}{errors}"
        return output

    def close(self) -> str:
        """Ends the server; what it has logged."""
        self.server.terminate()
        return self.server.communicate(timeout=10)[0]


@pytest.fixture(scope="module")
def tools() -> Tools:
    return xenstore_tools()


@pytest.fixture(params=POLICIES, ids=POLICIES)
def store(request: pytest.FixtureRequest, tools: Tools, tmp_path: Path) -> Iterator[Store]:
    socket = tmp_path / "socket"
    store = Store(tools, socket, POLICIES[request.param])
    for _ in range(100):
        if socket.exists() or store.server.poll() is not None:
            break
        time.sleep(0.1)
    yield store
    store.close()


def test_test_xenstore_lists_the_tests_that_we_know(store: Store) -> None:
    listed = store.run("test-xenstore", "--list-tests").splitlines()
    assert [line.split(":")[0].strip() for line in listed] == list(TESTS)


@pytest.mark.parametrize("name", TESTS)
def test_test_xenstore_passes(store: Store, name: str) -> None:
    output = store.run("test-xenstore", "--iterations", "50", "--test", name)
    assert name in output and "failed" not in output


def test_test_xenstore_passes_at_random(store: Store) -> None:
    assert "failed" not in store.run("test-xenstore", "--random", "2")


def test_several_test_xenstore_at_once_do_not_disturb_each_other(store: Store) -> None:
    processes = [store.start("test-xenstore", "--iterations", "30") for _ in range(4)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, output + errors


def test_write_read_and_exists(store: Store) -> None:
    store.run("xenstore-write", "/a/b", "one", "relative", "two")
    assert store.run("xenstore-read", "/a/b") == "one\n"
    assert store.run("xenstore-read", "-p", "/a/b", "/local/domain/0/relative") == (
        "/a/b: one\n/local/domain/0/relative: two\n"
    )
    store.run("xenstore-exists", "/a")
    store.run("xenstore-exists", "/b", status=1)
    store.run("xenstore-read", "/b", status=1)


def test_binary_values_survive(store: Store) -> None:
    store.run("xenstore-write", "/binary", r"\x01\n\xff")
    assert store.run("xenstore-read", "/binary") == "\\001\\n\\xff\n"


def test_list_and_ls(store: Store) -> None:
    store.run("xenstore-write", "/a/b", "1", "/a/c/d", "2")
    assert sorted(store.run("xenstore-list", "/a").split()) == ["b", "c"]
    assert sorted(store.run("xenstore-list", "-p", "/a").split()) == ["/a/b", "/a/c"]
    assert sorted(store.run("xenstore-ls", "-f", "/a").splitlines()) == [
        '/a/b = "1"',
        '/a/c = ""',
        '/a/c/d = "2"',
    ]
    assert ' b = "1"' in store.run("xenstore-ls", "/").splitlines()
    store.run("xenstore-list", "/nothing", status=1)


def test_a_long_directory_is_listed_whole(store: Store) -> None:
    names = [f"node-with-a-name-of-some-length-{number}" for number in range(300)]
    for start in range(0, len(names), 100):
        pairs = [word for name in names[start : start + 100] for word in (f"/long/{name}", "")]
        store.run("xenstore-write", *pairs)
    assert sorted(store.run("xenstore-list", "/long").split()) == sorted(names)


def test_rm_and_tidy_rm(store: Store) -> None:
    store.run("xenstore-write", "/a/b/c", "1", "/a/x", "2")
    store.run("xenstore-rm", "-t", "/a/b/c")
    assert store.run("xenstore-ls", "-f", "/a") == '/a/x = "2"\n'
    store.run("xenstore-rm", "/a")
    store.run("xenstore-exists", "/a", status=1)
    store.run("xenstore-rm", "/nothing/at/all", status=1)


def test_chmod(store: Store) -> None:
    store.run("xenstore-write", "/a/b", "1")
    store.run("xenstore-chmod", "-r", "/a", "n0", "r5", "b6")
    lines = store.run("xenstore-ls", "-fp", "/a").splitlines()
    assert [line.split() for line in lines] == [["/a/b", "=", '"1"', "(n0,r5,b6)"]]
    store.run("xenstore-chmod", "-u", "/a/b", "n7")
    assert "(n7)" in store.run("xenstore-ls", "-fp", "/a")
    store.run("xenstore-chmod", "/nothing", "n0", status=1)


def test_watch(store: Store) -> None:
    watch = store.start("xenstore-watch", "-n", "3", "/a")
    assert watch.stdout is not None
    assert watch.stdout.readline() == "/a\n"
    store.run("xenstore-write", "/a/b", "1")
    store.run("xenstore-rm", "/a")
    assert watch.communicate(timeout=10)[0] == "/a/b\n/a\n"
    assert watch.returncode == 0


def test_control(store: Store) -> None:
    store.run("xenstore-control", "check")
    store.run("xenstore-control", "print", "hello")
    assert "quota" in store.run("xenstore-control", "help")
    assert "Nodes per domain" in store.run("xenstore-control", "quota")
    store.run("xenstore-control", "quota", "set", "nodes", "42")
    assert " 42 Nodes per domain" in store.run("xenstore-control", "quota")
    assert "nodes" in store.run("xenstore-control", "quota", "0")
    store.run("xenstore-control", "nonsense", status=3)
    assert store.close() == "xenstore: control: hello\n"


def test_the_command_named_xenstore_does_all_of_it(store: Store) -> None:
    store.run("xenstore", "write", "/a", "1")
    assert store.run("xenstore", "read", "/a") == "1\n"
    assert '/a = "1"' in store.run("xenstore", "ls", "-f")
