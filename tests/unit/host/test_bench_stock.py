"""The stock host that `xoar bench` compares with, as far as it can be seen without starting it."""

import re
import subprocess
from pathlib import Path

import pytest

from xoar.host import emulator
from xoar.host.bench import stock
from xoar.host.bench.pair import CONFIG, GUEST

HOST = stock.Stock(
    Path("/c/xen"),
    Path("/c/vmlinuz"),
    Path("/c/initramfs"),
    emulator.Qemu(("qemu",), "7.2.1"),
    "4.17.7+13",
    "6.1.1-1",
)


def words(option: str, launch: emulator.Launch) -> str:
    line = emulator.command(launch.qemu, launch.machine, 3, 4)
    return line[line.index(option) + 1]


def test_domain_0_is_pv_whatever_a_xoar_host_tells_xen():
    # Xen takes the last dom0= of its command line
    assert re.findall(r"\bdom0=(\w+)", words("-append", HOST.launch(CONFIG)))[-1] == "pv"


def test_the_scheduler_and_log_levels_are_those_of_a_xoar_host():
    options = words("-append", HOST.launch(CONFIG)).split()
    assert {"sched=credit", "loglvl=all", "guest_loglvl=all"} <= set(options)


@pytest.mark.parametrize(("creates", "told"), [(0, ""), (7, " creates=7")])
def test_domain_0_is_told_how_often_to_create(creates, told):
    kernel, initramfs = words("-initrd", HOST.launch(CONFIG, creates)).split(",")
    assert kernel.endswith(f"quiet{told}")
    assert initramfs == "module-1"


def test_the_guest_is_described_as_xoar_builds_it():
    settings = dict(line.split(" = ") for line in stock._guest_settings(CONFIG, GUEST).splitlines())
    assert settings["type"] == '"pvh"'
    assert settings["memory"] == str(GUEST.memory_kib // 1024)
    assert settings["vcpus"] == str(GUEST.vcpus)
    assert settings["cmdline"] == f'"{CONFIG.kernel_arguments(GUEST)}"'


def test_domain_0s_script_is_shell():
    subprocess.run(["sh", "-n"], input=stock._INIT, text=True, check=True)


def test_what_domain_0s_script_calls_failed_ends_the_benchmark():
    assert any(re.match(pattern, "bench: failed: xl create") for pattern in stock.FAILURES)
    assert 'echo "bench: failed: $*"' in stock._INIT
