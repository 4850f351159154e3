"""`xoar console`: scripts on a guest's console, and a person's terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from fake_host import SOURCES, FakeHost, Run
from hypothesis import given
from hypothesis import strategies as st

from xoar.cli import script
from xoar.cli.failures import ERROR, TIMEOUT
from xoar.cli.plain import Plain
from xoar.cli.script import PROMPT


@pytest.fixture(autouse=True)
def _quick_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest in memory prints all of a line at once: no need to wait for more behind a prompt."""
    monkeypatch.setattr(script, "_SETTLE", 0.05)


def test_a_script_is_sent_line_by_line_and_its_answers_are_printed(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    result = run("console", "web", input="root\nuname\nuname\n")
    assert result.exit_code == 0, result.stderr
    assert shell.typed == ["root", "uname", "uname"]
    assert result.stdout.count("Linux debian 6.1\n") == 2
    assert result.stdout.endswith("root@debian:~# \n")


def test_login_comes_before_the_script_and_is_not_printed(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    result = run("console", "web", "--login", "root", input="uname\n")
    assert shell.typed == ["root", "uname"]
    assert result.stdout == "uname\nLinux debian 6.1\nroot@debian:~# \n"


def test_nobody_is_logged_in_where_the_shell_waits_or_the_script_does_it(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    run("console", "web", "--login", "root", input="root\nuname\n")
    run("console", "web", "--login", "root", input="uname\n")
    assert shell.typed == ["root", "uname", "uname"]


def test_the_user_in_xoar_toml_is_logged_in(host: FakeHost, run: Run) -> None:
    Path("xoar.toml").write_text('[images.d]\nbuiltin="debian"\n[guests.web]\nimage="d"\nlogin="root"\n')
    shell = host.add_guest("web")
    assert run("console", "web", input="uname\n").exit_code == 0
    assert shell.typed == ["root", "uname"]


def test_a_login_that_fails_is_an_error(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    result = run("console", "web", "--login", "alice", input="uname\n")
    assert result.exit_code == ERROR
    assert "alice can't log in without a password" in result.stderr
    assert shell.typed == ["alice"]


def test_silence_is_an_answer_where_no_prompt_comes(host: FakeHost, run: Run) -> None:
    host.add_guest("web")
    started = time.monotonic()
    result = run("console", "web", "--quiet", "0.3", input="root\nquiet\n")
    assert result.exit_code == 0
    assert result.stdout.endswith("quiet\n")
    assert time.monotonic() - started < 5


def test_no_line_is_sent_before_a_prompt_shows(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    shell.output, shell.prompt = b"[    0.1] Linux boots\r\n", ""
    result = run("console", "web", "--timeout", "1", input="uname\n")
    assert result.exit_code == TIMEOUT
    assert "no prompt within 1 s" in result.stderr
    assert "Linux boots" in result.stderr
    assert "uname" not in shell.typed


def test_a_prompt_of_ones_own_can_be_described(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    shell.output, shell.prompt = b"Ready\r\n", "Ready\r\n"
    result = run("console", "web", "--wait", "Ready\\n$", "--timeout", "5", input="uname\n")
    assert result.exit_code == 0, result.stderr
    assert run("console", "web", "--wait", "(", input="x\n").exit_code == 2


def test_a_guest_that_powers_off_ends_its_script(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    result = run("console", "web", input="root\npoweroff\nuname\n")
    assert result.exit_code == 0
    assert shell.typed == ["root", "poweroff"]


def test_an_empty_script_does_nothing(host: FakeHost, run: Run) -> None:
    shell = host.add_guest("web")
    assert run("console", "web", input="").exit_code == 0
    assert shell.typed == []


@pytest.mark.parametrize("text", ["debian login: ", "web login:", "Password: ", "root@a:~# ", "$ ", ">>> "])
def test_usual_prompts_are_known(text: str) -> None:
    assert re.search(PROMPT, f"line\n{text}")
    assert not re.search(PROMPT, f"{text}\nline\n")


@given(st.lists(st.sampled_from([b"text", b"\r\n", b"\x1b[6n", b"\x1b[1;32m", b"\x1b[0m", b"# "])), st.data())
def test_output_is_made_plain_however_it_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    plain = Plain()
    pieces = [plain.feed(whole[a:b]) for a, b in pairwise([0, *cuts, len(whole)])]
    assert b"".join(pieces) == b"".join(part for part in parts if part[:1] != b"\x1b").replace(b"\r", b"")


@given(st.lists(st.binary()))
def test_no_control_character_gets_through_and_all_else_does(pieces: list[bytes]) -> None:
    plain = Plain()
    shown = b"".join(plain.feed(piece) for piece in pieces)
    assert not [byte for byte in shown if (byte < 0x20 and byte not in b"\t\n") or byte == 0x7F]
    raw = b"".join(pieces)
    if b"\x1b" not in raw:
        assert shown == bytes(byte for byte in raw if (byte >= 0x20 and byte != 0x7F) or byte in b"\t\n")


def test_a_terminal_is_raw_and_the_escape_key_leaves(host: FakeHost) -> None:
    shell = host.add_guest("web")
    master, slave = pty.openpty()
    before = subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "xoar.cli.main", "console", "web"],
        stdin=slave, stdout=slave, stderr=slave,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "TERM": "xterm"},
    )  # fmt: skip
    try:
        shown = _read_until(master, b"login: ")
        assert b"Ctrl-] leaves" in shown
        assert b"Booting" in shown
        os.write(master, b"root\r\x03")
        shown = _read_until(master, b"# ")
        os.write(master, b"\x1d")
        assert b"it runs on" in _read_until(master, b"runs on")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout == before
    assert shell.typed == ["root"]


def _read_until(fd: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        assert select.select([fd], [], [], 20)[0], shown
        shown += os.read(fd, 1024)
    return shown
