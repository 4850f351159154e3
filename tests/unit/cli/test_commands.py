"""The commands as scripts see them: output, JSON, exit codes, messages for what went wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_host import KERNEL, SOURCES, FakeHost, Run

from xoar.cli import output, top
from xoar.cli.failures import ERROR, NOT_FOUND, NOT_RUNNING, TIMEOUT, USAGE
from xoar.host import config, tcb
from xoar.host import up as starting

CONFIG = """\
[images.debian]
builtin = "debian"
[guests.web]
image = "debian"
[guests.spare]
image = "debian"
autostart = false
"""


def test_ps_as_json_has_exactly_the_documented_keys(host: FakeHost, run: Run) -> None:
    host.add_guest("web")
    result = run("ps", "--json")
    assert result.exit_code == 0
    objects = json.loads(result.stdout)
    keys = ["id", "name", "kind", "label", "memory_kib", "vcpus", "state", "age_s", "owner"]
    keys += ["policy", "rollbacks", "rollback_age_ms", "driver"]
    assert all(list(entry) == keys for entry in objects)
    assert [(entry["id"], entry["kind"]) for entry in objects] == [
        (1, "shard"), (2, "shard"), (3, "shard"), (5, "guest"),
    ]  # fmt: skip
    assert objects[0]["age_s"] == 90


def test_tables_in_a_pipe_have_no_colours_and_no_cut_lines(host: FakeHost, run: Run) -> None:
    host.add_guest("a" * 60)
    result = run("ps")
    assert "\x1b" not in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "a" * 60 in line]
    assert line.split() == [
        "5",
        "a" * 60,
        "guest",
        "running",
        "128MiB",
        "1",
        "5",
        "s",
        "system_u:system_r:guest_t",
    ]


def test_status_tells_about_the_host(host: FakeHost, run: Run) -> None:
    assert "4GiB, 3GiB free" in run("status").stdout
    told = json.loads(run("status", "--json").stdout)
    assert (told["host"], told["state"], told["uptime_s"], told["free_kib"]) == (
        "xoar",
        "running",
        3661,
        3 << 20,
    )


@pytest.mark.parametrize(
    "words",
    [("ps",), ("status",), ("logs", "builder"), ("console", "web"), ("guest", "list"), ("top", "--once")],
)
def test_without_a_running_host_every_command_says_so(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == NOT_RUNNING
    assert "host xoar is not running" in result.stderr
    assert "xoar up" in result.stderr
    assert result.stdout == ""


def test_a_crashed_host_is_reported_with_the_end_of_its_log(run: Run) -> None:
    with FakeHost() as host:
        host.crash("(XEN) Panic on CPU 0")
    result = run("ps")
    assert result.exit_code == NOT_RUNNING
    assert "has crashed: (XEN) Panic on CPU 0" in result.stderr
    assert "| (d13) not yours" in result.stderr
    assert json.loads(run("status", "--json").stdout)["state"] == "crashed"
    assert run("logs", "xen").stdout.startswith("(XEN) Xen version")


def test_ending_a_host_that_is_not_there_is_no_failure(run: Run) -> None:
    result = run("down")
    assert result.exit_code == 0
    assert "not running" in result.stderr


def test_down_ends_the_host_and_leaves_nothing(host: FakeHost, run: Run) -> None:
    assert run("down").exit_code == 0
    assert not host.host.folder.exists()
    assert run("ps").exit_code == NOT_RUNNING


def test_several_hosts_are_told_apart_by_name(run: Run) -> None:
    with FakeHost("one") as one, FakeHost("two") as two:
        one.add_guest("web")
        assert "web" in run("guest", "list", "--host", "one").stdout
        assert "web" not in run("--host", "two", "guest", "list").stdout
        assert two.requests
        result = run("guest", "list", "--host", "three")
        assert result.exit_code == NOT_RUNNING
        assert "Running: one, two" in result.stderr


def test_the_host_in_xoar_toml_is_the_one_meant(run: Run) -> None:
    Path("xoar.toml").write_text('[host]\nname = "lab"\n')
    with FakeHost("lab"):
        assert run("ps").exit_code == 0
    assert "host lab is not running" in run("ps").stderr


# names


@pytest.mark.parametrize("words", [("guest", "show"), ("guest", "destroy"), ("console",), ("logs",)])
def test_an_unknown_guest_is_answered_with_the_nearest_name(
    host: FakeHost, run: Run, words: tuple[str, ...]
) -> None:
    host.add_guest("webserver")
    result = run(*words, "websever", input="")
    assert result.exit_code == NOT_FOUND
    assert 'Did you mean "webserver"?' in result.stderr
    assert run(*words, "Not A Name", input="").exit_code == NOT_FOUND


def test_an_unknown_command_is_answered_with_the_nearest_one(run: Run) -> None:
    result = run("statsu")
    assert result.exit_code == USAGE
    assert "status" in result.stderr


def test_a_shard_has_no_console_but_a_log(host: FakeHost, run: Run) -> None:
    result = run("console", "builder", input="x\n")
    assert result.exit_code == ERROR
    assert "xoar logs builder" in result.stderr


# logs


def test_a_shards_log_is_its_lines_in_xens_log(host: FakeHost, run: Run) -> None:
    assert run("logs", "builder").stdout == "ready\n(XEN) no\n"
    assert run("logs", "bootstrapper").stdout == "hello from domain 0\n"
    assert run("logs", "xen").stdout.count("\n") == 5


def test_a_guests_log_is_what_its_console_showed(host: FakeHost, run: Run) -> None:
    host.add_guest("web")
    assert run("logs", "web").stdout == "Booting\n\ndebian login: "


def test_the_log_of_a_guest_that_has_ended_is_that_of_its_last_domain(host: FakeHost, run: Run) -> None:
    host.add_guest("web", domid=0, previous_domid=5, state="ended", note="it crashed")
    assert run("logs", "web").stdout.startswith("Booting")
    result = run("console", "web", input="x\n")
    assert result.exit_code == ERROR
    assert "does not run (ended): it crashed" in result.stderr


# guests


def test_a_guest_is_created_as_the_options_say(host: FakeHost, run: Run) -> None:
    words = ["--image", "debian", "--memory", "64MiB", "--vcpus", "2", "--command-line", "quiet"]
    result = run("guest", "create", "web", *words, "--on-crash", "destroy", "--json")
    assert json.loads(result.stdout) == {"name": "web", "id": 5}
    (request,) = [message.fields for message in host.requests if message.kind == "guest_create"]
    assert (request.memory_kib, request.vcpus, request.on_crash) == (65536, 2, "destroy")
    assert (request.kernel, request.command_line) == (KERNEL, "console=hvc0 quiet")


def test_a_guest_of_xoar_toml_is_created_as_it_stands_there(host: FakeHost, run: Run) -> None:
    Path("xoar.toml").write_text(CONFIG.replace("autostart", "memory = '32MiB'\nautostart"))
    assert run("guest", "create", "spare", "--vcpus", "3").exit_code == 0
    (request,) = [message.fields for message in host.requests if message.kind == "guest_create"]
    assert (request.memory_kib, request.vcpus) == (32768, 3)
    assert request.command_line == "console=hvc0 hostname=spare"


def test_a_name_in_use_and_an_unknown_image_are_refused(host: FakeHost, run: Run) -> None:
    host.add_guest("web")
    result = run("guest", "create", "web")
    assert result.exit_code == ERROR
    assert "there is a guest web already" in result.stderr
    result = run("guest", "create", "other", "--image", "debain")
    assert result.exit_code == NOT_FOUND
    assert 'Did you mean "debian"?' in result.stderr


@pytest.mark.parametrize("wrong", [("--memory", "12"), ("--on-crash", "restrat"), ("--vcpus", "0")])
def test_wrong_options_are_told_before_the_host_is_asked(
    host: FakeHost, run: Run, wrong: tuple[str, str]
) -> None:
    assert run("guest", "create", "web", *wrong).exit_code == USAGE
    assert host.requests == []


def test_a_guest_is_shown_with_its_image_and_times(host: FakeHost, run: Run) -> None:
    host.add_guest("web", restarts=2)
    shown = json.loads(run("guest", "show", "web", "--json").stdout)
    assert (shown["id"], shown["image"], shown["age_s"], shown["restarts"]) == (5, "debian", 65, 2)
    assert "1 min 5 s" in run("guest", "show", "web").stdout


def test_guests_are_listed_as_json(host: FakeHost, run: Run) -> None:
    host.add_guest("web")
    (entry,) = json.loads(run("guest", "list", "--json").stdout)
    assert (entry["name"], entry["id"], entry["state"]) == ("web", 5, "running")


def test_a_guest_is_shut_down_rebooted_and_destroyed(host: FakeHost, run: Run) -> None:
    for name in ("one", "two"):
        host.add_guest(name)
    assert run("guest", "reboot", "one").exit_code == 0
    assert run("guest", "shutdown", "one", "--timeout", "5").exit_code == 0
    assert run("guest", "destroy", "two").exit_code == 0
    assert host.guests == {}
    assert [message.fields.timeout_ms for message in host.requests if message.kind == "guest_shutdown"] == [
        5000
    ]


def test_a_guest_that_does_not_shut_down_in_time_has_its_own_exit_code(host: FakeHost, run: Run) -> None:
    host.add_guest("web", state="stubborn")
    result = run("guest", "shutdown", "web")
    assert result.exit_code == TIMEOUT
    assert "did not shut down in time" in result.stderr


def test_images_are_listed(host: FakeHost, run: Run) -> None:
    entries = json.loads(run("image", "list", "--json").stdout)
    first = {"name": "debian", "kind": "kernel", "sha256": KERNEL.hex(), "size": 4096, "stored_size": 1024}
    assert entries[0] == first
    assert "4KiB" in run("image", "list").stdout


# top


def test_top_measures_the_processors_time_between_two_looks(host: FakeHost, run: Run) -> None:
    used = {entry["name"]: entry["cpu_percent"] for entry in json.loads(
        run("top", "--json", "--interval", "0.2").stdout
    )}  # fmt: skip
    assert used["builder"] == pytest.approx(50, abs=15)


class Look:
    """A domain as `top` looks at it."""

    def __init__(self, id: int, name: str, cpu_time_ns: int, policy: str = "", rollbacks: int = 0) -> None:
        self.id, self.name, self.cpu_time_ns = id, name, cpu_time_ns
        self.policy, self.rollbacks = policy, rollbacks


def test_a_domain_that_is_new_has_used_what_its_whole_life_took() -> None:
    before = [Look(1, "a", 10**9), Look(5, "old", 10**10)]
    now = [Look(1, "a", 2 * 10**9), Look(5, "new", 10**9)]
    assert top.usage(before, now, 2).percent == {1: 50.0, 5: 50.0}


def test_top_counts_rollbacks_of_shards_that_have_a_policy() -> None:
    before = [Look(1, "xenstore", 0), Look(4, "logic", 0, "after each request", 100)]
    now = [Look(1, "xenstore", 0), Look(4, "logic", 0, "after each request", 109)]
    assert top.usage(before, now, 2).rollbacks == {4: 4.5}
    # who counts them has begun anew
    assert top.usage(now, before, 2).rollbacks == {4: 0.0}


def test_top_shows_rollbacks_where_there_are_any(host: FakeHost, run: Run) -> None:
    assert "ROLLED BACK" not in run("top", "--interval", "0.1").stdout
    host.policies = {"xenstore": "after each request"}
    heading, line, *others = run("top", "--interval", "0.1").stdout.splitlines()
    assert heading.split()[-6:] == ["ROLLED", "BACK", "TIMES", "PER", "S", "LAST"]
    assert line.split()[-7:] == ["after", "each", "request", "41", "0.0", "3", "s"]
    assert {other.split()[-1] for other in others} == {"-"}
    (entry, *rest) = json.loads(run("top", "--json", "--interval", "0.1").stdout)
    assert (entry["rollbacks"], entry["rollback_age_ms"], entry["rollbacks_per_s"]) == (41, 3000, 0.0)
    assert {other["rollbacks_per_s"] for other in rest} == {None}


# up


@pytest.fixture
def not_started(monkeypatch: pytest.MonkeyPatch) -> list[config.Config]:
    """Makes `xoar up` build and start nothing; the configurations that it would have started."""
    started: list[config.Config] = []
    monkeypatch.setattr(starting, "up", lambda wanted, show: started.append(wanted))
    return started


def _launched(host: FakeHost, memory_mib: int = 4096) -> None:
    machine = {"xen": "x", "kernel": "k", "memory_mib": memory_mib}
    launch = {"machine": machine, "qemu": {"argv": ["q"], "version": "7.2"}, "xen_version": "4.17"}
    (host.host.folder / "launch.json").write_text(json.dumps(launch))


def test_up_on_a_running_host_creates_what_is_missing_and_says_what_differs(
    host: FakeHost, run: Run, not_started: list[config.Config]
) -> None:
    _launched(host, 2048)
    Path("xoar.toml").write_text(CONFIG + '[images.mine]\nkernel = "vmlinuz"\n')
    Path("vmlinuz").write_bytes(b"kernel")
    host.add_guest("old")
    result = run("up", "--json")
    assert result.exit_code == 0
    assert not_started == []
    assert {entry["name"] for entry in json.loads(result.stdout)} >= {"web", "old"}
    assert "host xoar is running already" in result.stderr
    assert "memory is 2048MiB, not 4096MiB" in result.stderr
    assert "guest web runs as domain 6" in result.stderr
    assert "guest old is not in xoar.toml" in result.stderr
    assert "image mine is not in the running host's library" in result.stderr
    assert "spare" not in host.guests


def test_a_second_up_changes_nothing(host: FakeHost, run: Run, not_started: list[config.Config]) -> None:
    _launched(host)
    Path("xoar.toml").write_text(CONFIG)
    assert run("up").exit_code == 0
    guests = dict(host.guests)
    result = run("up")
    assert result.exit_code == 0
    assert host.guests == guests
    assert "differs" not in result.stderr


def test_up_tells_how_a_running_guest_differs(
    host: FakeHost, run: Run, not_started: list[config.Config]
) -> None:
    _launched(host)
    Path("xoar.toml").write_text(CONFIG)
    host.add_guest("web", memory_kib=65536, on_crash="destroy", group="red", kernel=b"k" * 32)
    text = run("up").stderr
    for part in ("image is not debian", "memory is 64MiB, not 128MiB", 'on_crash is "destroy", not "keep"'):
        assert part in text
    assert 'group is "red", not ""' in text


def test_up_fails_if_a_guest_cannot_be_created_but_creates_the_others(
    host: FakeHost, run: Run, not_started: list[config.Config]
) -> None:
    _launched(host)
    Path("vmlinuz").write_bytes(b"kernel")
    more = '[images.gone]\nkernel = "vmlinuz"\n[guests.a]\nimage = "gone"\n'
    Path("xoar.toml").write_text(more + CONFIG)
    result = run("up")
    assert result.exit_code == ERROR
    assert "guest a could not be created: host xoar has no image gone" in result.stderr
    assert "web" in host.guests


def test_up_starts_the_host_that_the_options_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lab.toml").write_text(CONFIG)
    Path("tree/xen/include/public").mkdir(parents=True)
    hosts = []
    with ExitStack() as stack:

        def start(wanted: config.Config, show: object) -> None:
            hosts.append(wanted.host)
            stack.enter_context(FakeHost(wanted.host.name))

        monkeypatch.setattr(starting, "up", start)
        result = run("up", "--config", "lab.toml", "--host", "second", "--xen-source", "tree")
    assert result.exit_code == 0, result.stderr
    assert hosts[0].name == "second"
    assert hosts[0].xen_source == Path("tree").absolute()


def test_up_without_a_configuration_says_where_one_is(run: Run) -> None:
    result = run("up")
    assert result.exit_code == ERROR
    assert "there is no xoar.toml in this folder" in result.stderr


def test_a_bad_configuration_is_told_with_file_and_line(run: Run) -> None:
    Path("xoar.toml").write_text(CONFIG + 'memroy = "1GiB"\n')
    result = run("up")
    assert result.exit_code == USAGE
    assert 'xoar.toml:8: "memroy" is not a key in [guests.spare]. Did you mean "memory"?' in result.stderr


def test_a_file_that_an_image_names_must_be_there_before_anything_is_built(
    run: Run, not_started: list[config.Config]
) -> None:
    Path("xoar.toml").write_text('[images.mine]\nkernel = "vmlinuz"\n')
    result = run("up")
    assert result.exit_code == USAGE
    assert "xoar.toml:1: kernel of image mine: there is no file" in result.stderr
    assert not_started == []


# the command itself


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("guest show web", ["webserver"]),
        ("console ", ["mail", "webserver"]),
        ("logs bu", ["builder"]),
        ("guest create new --image ", ["debian"]),
        ("ps --host ", ["other", "xoar"]),
        ("guest show --host other ", ["there"]),
    ],
)
def test_a_shell_completes_names_of_the_running_host(
    host: FakeHost, run: Run, typed: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add_guest("webserver")
    host.add_guest("mail")
    with FakeHost("other") as other:
        other.add_guest("there")
        assert _complete(run, typed, monkeypatch) == expected


def test_completion_is_silent_without_a_host(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _complete(run, "guest show ", monkeypatch) == []
    assert "builder" in _complete(run, "logs ", monkeypatch)


def test_a_shell_completes_what_the_policy_is_about(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _complete(run, "policy show gu", monkeypatch) == ["guest"]
    assert _complete(run, "policy explain tool", monkeypatch) == ["toolstack"]
    assert _complete(run, "policy explain toolstack se", monkeypatch) == ["security", "self"]


def _complete(run: Run, typed: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    words = f"xoar {typed}".split(" ")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_XOAR_COMPLETE", "complete_bash")
    return run().stdout.split()


def test_every_command_has_help_with_an_example(run: Run) -> None:
    names = ("up", "down", "status", "ps", "logs", "console", "top", "tcb", "xenstored", "reboot")
    words = [(name,) for name in names] + [("image", "list")]
    words += [("guest", name) for name in ("create", "list", "show", "shutdown", "reboot", "destroy")]
    for command in words:
        assert f"xoar {' '.join(command)}" in run(*command, "--help").stdout.split("Example", 1)[1]


def test_sizes_and_ages_are_short() -> None:
    assert [output.size(kib) for kib in (0, 4, 12288, 1536, 3 << 19)] == [
        "0",
        "4KiB",
        "12MiB",
        "1.5MiB",
        "1.5GiB",
    ]
    assert [output.age(ms) for ms in (900, 61_000, 3_661_000, 90_000_000)] == [
        "0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip


def test_quick_commands_import_nothing_that_builds() -> None:
    code = (
        "import sys; from xoar.cli import main; from xoar.host import client;"
        "print([name for name in sys.modules if name in "
        "('xoar.host.up', 'xoar.host.apt', 'elftools', 'lz4', 'rich', 'asyncio', 'qemu')])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_tcb_shows_the_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tcb.Image("builder", 2000, 700, 14000, 16700, 190 * 1024, 12288)
    report = tcb.Report((image,), 16700, 13500, 12288)
    monkeypatch.setattr("xoar.cli.tcb.report", lambda wanted: report)
    assert json.loads(run("tcb", "--json").stdout)["privileged_lines"] == 16700
    text = run("tcb").stdout
    assert "1.24 times" in text
    assert "190KiB" in text


def test_a_xenstore_socket_that_is_in_use_is_refused(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("xs")  # relative: the folder's path may be too long
        other.listen()
        result = run("xenstored", "--socket", "xs")
    assert result.exit_code == ERROR
    assert "another server listens there" in result.stderr


def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about(host: FakeHost) -> None:
    host.host.xen_log.write_bytes(b"(XEN) line\n" * 100_000)
    command = f"{sys.executable} -P -m xoar.cli.main logs xen | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(XEN) line\n", "")
