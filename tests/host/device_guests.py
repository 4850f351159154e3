"""Small guests that use disks and networks all the time, and say whether anything went wrong."""

from __future__ import annotations

import re
import time
from pathlib import Path

from harness import HostUnderTest

from xoar.host.apt import Apt
from xoar.host.build import guest, linux
from xoar.host.progress import Reporter

MEMORY = "40MiB"


def image(name: str = "device") -> str:
    """The part of an xoar.toml that declares the image: the tiny guest with `guest/work` on board."""
    show = Reporter()
    apt = Apt(show)
    work = Path(__file__).parent / "guest/work"
    initramfs = guest.initramfs(apt, show, extra={"bin/work": work})
    return f'[images.{name}]\nkernel = "{linux.build(apt, show)}"\ninitramfs = "{initramfs}"\n'


def shell(host: HostUnderTest, name: str, command: str, timeout: float = 60, tenant: str = "") -> str:
    """What a command prints in the guest, without the echo of the command and of the prompt."""
    script = f"echo '<'; {command}; echo '>'\n"
    # a command may be silent for long, and its echo come in pieces, of which one ends in ">"
    patience = ("--timeout", str(timeout), "--quiet", str(timeout), "--wait", "(?:login: |# )$")
    said = host.cli("console", name, "--login", "root", *patience, input=script, tenant=tenant).replace(
        "\r", ""
    )
    found = re.search(r"^<\n(.*?)^>$", said, re.MULTILINE | re.DOTALL)
    assert found, said
    return found[1].strip()


class Worker:
    """`work` in a guest; as long as it runs, `progress` shows that it gets on without an error."""

    def __init__(
        self, host: HostUnderTest, name: str, disk: str = "-", address: str = "-", tenant: str = ""
    ) -> None:
        self.name = name
        self._host = host
        self._tenant = tenant
        self._shell(f"rm -f /tmp/rounds; (work {disk} {address} >/dev/null 2>&1 &)")

    def rounds(self) -> int:
        """How many rounds it has done."""
        return int(self._shell("cat /tmp/rounds 2>/dev/null || echo 0"))

    def errors(self) -> str:
        """What went wrong up to now."""
        return self._shell("cat /tmp/errors")

    def progress(self, rounds: int = 2, timeout: float = 60) -> None:
        """Waits for so many more rounds, all without an error."""
        wanted = self.rounds() + rounds
        deadline = time.monotonic() + timeout
        while (done := self.rounds()) < wanted:
            assert time.monotonic() < deadline, f"{self.name}: {done} rounds of {wanted}; {self.errors()}"
            time.sleep(0.5)
        errors = self.errors()
        assert not errors, f"{self.name}: {errors}"

    def stop(self) -> None:
        """Has it let go of disk and network."""
        done = self._shell("touch /tmp/stop; while [ ! -e /tmp/stopped ]; do sleep 0.2; done")
        errors = self.errors()
        assert not done and not errors, f"{self.name}: {done}{errors}"

    def _shell(self, command: str) -> str:
        return shell(self._host, self.name, command, tenant=self._tenant)


def newest_nic(host: HostUnderTest, name: str) -> str:
    """The handle of the interface that a guest got last."""
    return str(host.json("guest", "show", name)["nics"][-1]["handle"])
