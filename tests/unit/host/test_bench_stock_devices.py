"""The stock host with devices, as far as it can be seen without starting it."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.blkback import names
from xoar.host.bench import prepared, stock, stock_devices
from xoar.host.emulator import Qemu, command
from xoar.host.pci import Device

PREPARED = prepared.Prepared(
    Path("/c/data.raw"), prepared.configuration(Path("/c/debian.qcow2")), ("root", "scratch", "g.seed-0a")
)
DEVICES = [Device("net0", "e1000e"), Device("disk0", "nvme", "/s/data.raw", "/s/exchange.raw")]


def test_the_guest_has_its_disks_in_xoars_order_and_cannot_write_the_seed():
    (disks,) = (line for line in stock_devices._settings(PREPARED).splitlines() if line.startswith("disk"))
    assert disks == (
        'disk = ["format=raw,vdev=xvda,access=rw,target=/dev/mapper/xoar-v.root",'
        ' "format=raw,vdev=xvdb,access=rw,target=/dev/mapper/xoar-v.scratch",'
        ' "format=raw,vdev=xvdc,access=ro,target=/dev/mapper/xoar-v.g.seed--0a"]'
    )


@given(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,63}", fullmatch=True))
def test_domain_0_finds_volumes_where_blkback_does(volume):
    assert prepared.device(volume) == names.path(volume)


def test_memory_and_vcpus_are_those_of_the_guest_on_xoar():
    settings = stock_devices._settings(PREPARED)
    assert f"memory = {prepared.GUEST.memory_kib >> 10}\nvcpus = {prepared.GUEST.vcpus}\n" in settings


def test_the_machine_and_its_devices_are_those_of_a_xoar_host():
    host = stock.Stock(Path("/x"), Path("/k"), Path("/i"), Qemu(("qemu",), "7.2.1"), "4.17.7", "6.1")
    launch = host.launch(PREPARED.config, devices=DEVICES)
    words = command(launch.qemu, launch.machine, 3, 4)
    assert launch.machine.devices == DEVICES
    assert {"q35,kernel-irqchip=split", "intel-iommu,intremap=on"} <= set(words)


@pytest.mark.parametrize(
    "script", [stock_devices._DEVICES, stock_devices._BLOCK, stock_devices._VIF, stock.START + stock.SHOW]
)
def test_domain_0s_scripts_are_shell(script):
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
