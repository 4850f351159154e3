"""Which QEMU is taken, and what its command line says."""

import asyncio
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from xoar.host import emulator, pci
from xoar.host.emulator import Emulator, Launch, Machine, Qemu
from xoar.host.errors import HostError

QEMU = Qemu(("qemu",), "7.2.0")
MACHINE = Machine(
    xen="/x/xen",
    kernel="/x/boot",
    modules=["/x/bundle", "/x/policy"],
    kernel_arguments="a=1,2",
    xen_arguments="dom0_mem=64M",
    memory_mib=2048,
    cpus=3,
)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    program = folder / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_installed_qemu_of_the_tested_series_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "7.2.22")
    found = emulator.installed()
    assert found is not None
    assert found.version == "7.2.22"


@pytest.mark.parametrize("version", ["10.0.2", "7.20.1", "17.2.0"])
def test_others_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(tmp_path, monkeypatch, version)
    assert emulator.installed() is None


def test_without_qemu_there_is_none_to_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert emulator.installed() is None


def test_the_command_line_gives_xen_its_modules_in_order() -> None:
    words = emulator.command(QEMU, MACHINE, 5, 6)
    following = dict(pairwise(words))
    assert words[0] == "qemu"
    assert following["-kernel"] == "/x/xen"
    assert following["-initrd"] == "module-0 a=1,,2,module-1,module-2"
    assert following["-m"] == "2048"
    assert following["-smp"] == "3"
    assert following["-append"].endswith(" dom0_mem=64M")
    assert {"flask=enforcing", "sched=credit", "svm-apic-again", "dom0=pvh"} <= set(
        following["-append"].split()
    )


def test_guests_keep_off_cpu_0_where_there_are_driver_domains() -> None:
    device = pci.Device("net0", "e1000e")
    for devices, spared in (([], False), ([device], True)):
        machine = msgspec.structs.replace(MACHINE, devices=devices)
        options = dict(pairwise(emulator.command(QEMU, machine, 5, 6)))["-append"].split()
        assert ("hvm-spares-cpu0" in options) is spared
        assert ("dom0-iommu=none" in options) is not spared


def test_the_first_serial_port_is_a_file_and_the_second_the_line() -> None:
    words = emulator.command(QEMU, MACHINE, 5, 6)
    ports = [words[index + 1] for index, word in enumerate(words) if word == "-serial"]
    assert ports == ["chardev:xen", "chardev:line"]
    assert "file,id=xen,path=xen.log" in words
    assert "socket,id=line,fd=5" in words


def test_an_emulator_that_was_not_started_cannot_be_waited_for_or_ended(tmp_path: Path) -> None:
    async def use() -> None:
        idle = Emulator(Launch(MACHINE, QEMU, "4.17"), tmp_path)
        for method in (idle.wait, idle.quit):
            with pytest.raises(HostError, match="not started"):
                await method()
        assert idle.state is emulator.RunState.IDLE

    asyncio.run(use())


def test_a_program_that_cannot_be_started_leaves_the_emulator_idle(tmp_path: Path) -> None:
    async def use() -> None:
        launch = Launch(MACHINE, Qemu((str(tmp_path / "none"),), "7.2.0"), "4.17")
        async with Emulator(launch, tmp_path) as broken:
            with pytest.raises(FileNotFoundError):
                await broken.start()
            assert broken.state is emulator.RunState.IDLE

    asyncio.run(use())
