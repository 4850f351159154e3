"""The cache: results are whole or not there, failures leave their log, builds of one thing don't overlap."""

import errno
import io
import threading
import time
from pathlib import Path

import pytest

from xoar.host import cache, commands
from xoar.host.errors import CommandError, HostError
from xoar.host.progress import Reporter


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XOAR_CACHE", str(tmp_path))
    return tmp_path


def show() -> Reporter:
    return Reporter(io.StringIO())


def write(work: cache.Workspace) -> None:
    (work.result / "file").write_text("made")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "builds").iterdir())


def test_a_result_is_made_once(folder: Path) -> None:
    made = cache.build("thing", "k", write, show())
    assert (made / "file").read_text() == "made"
    assert leftovers(folder) == ["thing-k"]

    def never(work: cache.Workspace) -> None:
        raise AssertionError("built again")

    assert cache.build("thing", "k", never, show()) == made


def test_a_rebuild_takes_the_place_of_the_old_result(folder: Path) -> None:
    made = cache.build("thing", "k", write, show())
    (made / "file").write_text("old")
    (made / "more").write_text("old")
    assert cache.build("thing", "k", write, show(), rebuild=True) == made
    assert [(path.name, path.read_text()) for path in made.iterdir()] == [("file", "made")]
    assert leftovers(folder) == ["thing-k"]


def test_a_rebuild_that_fails_leaves_the_old_result(folder: Path) -> None:
    made = cache.build("thing", "k", write, show())

    def fails(work: cache.Workspace) -> None:
        write(work)
        raise HostError("no network")

    with pytest.raises(HostError):
        cache.build("thing", "k", fails, show(), rebuild=True)
    assert (made / "file").read_text() == "made"
    assert leftovers(folder) == ["thing-k"]


def test_a_failing_build_leaves_only_its_log_and_says_where(folder: Path) -> None:
    def fail(work: cache.Workspace) -> None:
        write(work)
        work.run(["sh", "-c", "echo first; echo the reason >&2; exit 7"])

    with pytest.raises(CommandError) as caught:
        cache.build("thing", "k", fail, show())
    assert leftovers(folder) == []
    assert caught.value.status == 7
    assert caught.value.log == folder / "logs" / "thing-k.log"
    assert "the reason" in caught.value.log.read_text()
    assert "the reason" in str(caught.value)


def test_what_a_killed_build_left_is_cleared(folder: Path) -> None:
    (folder / "builds" / ".thing-k" / "result").mkdir(parents=True)
    (folder / "builds" / ".thing-k" / "result" / "half").write_text("")
    made = cache.build("thing", "k", write, show())
    assert [path.name for path in made.iterdir()] == ["file"]


def test_a_full_disk_is_told_as_such(folder: Path) -> None:
    def full(work: cache.Workspace) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HostError, match="no space left"):
        cache.build("thing", "k", full, show())
    assert leftovers(folder) == []


def test_two_builds_of_one_thing_become_one() -> None:
    count = []

    def slow(work: cache.Workspace) -> None:
        count.append(1)
        time.sleep(0.2)

    threads = [threading.Thread(target=cache.build, args=("thing", "k", slow, show())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1


def test_a_key_depends_on_every_input_and_its_place(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text("a")
    before = cache.key("x", file)
    file.write_text("b")
    assert cache.key("x", file) != before
    assert cache.key("ab", "c") != cache.key("a", "bc")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "one").write_text("")
    named = cache.key(tmp_path / "d")
    (tmp_path / "d" / "one").rename(tmp_path / "d" / "two")
    assert cache.key(tmp_path / "d") != named


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no-such-program"):
        commands.run(["no-such-program"], log=tmp_path / "log")


def test_the_callers_compiler_flags_do_not_reach_a_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    lines: list[str] = []
    commands.run(["sh", "-c", 'echo "[$CFLAGS]"'], log=tmp_path / "log", on_line=lines.append)
    assert lines == ["[]"]


def test_plain_progress_says_what_and_how_long() -> None:
    out = io.StringIO()
    with Reporter(out).step("building a thing", total=4) as step:
        for _ in range(9):
            step.advance()
        assert step.done == 4
    assert out.getvalue() == "xoar: building a thing ...\nxoar: building a thing: done in 0 s\n"


def test_progress_tells_of_a_failure() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError), Reporter(out).step("building a thing"):
        raise ValueError
    assert "failed after" in out.getvalue()
