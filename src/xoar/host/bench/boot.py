"""`xoar bench boot`: from the start of the emulator's process to the first guest's login on its console."""

from __future__ import annotations

from xoar.host import guests, keeper, up
from xoar.host.bench import hosts
from xoar.host.bench.pair import CONFIG, GUEST, STOCK, XOAR, Pair
from xoar.host.bench.report import Row
from xoar.host.client import Client, Stream
from xoar.host.emulator import Launch
from xoar.host.errors import HostError
from xoar.host.progress import Reporter
from xoar.host.state import Host

_LOGIN = "login:"
# Xen says this before and after it unpacks domain 0's kernel
_UNPACKING = "*** Building a PV Dom0 ***"
_UNPACKED = "Xen  kernel:"


def run(pair: Pair, runs: int, show: Reporter) -> list[Row]:
    """Boots the two hosts in turn, `runs` times each. The second row leaves out a part of stock's time that
    emulation makes long: Xen unpacking domain 0's kernel. Raises HostError."""
    xoar, stock, unpacking = [], [], []
    with show.step("booting both hosts in turn", 2 * runs) as step:
        for _ in range(runs):
            xoar.append(boot_xoar(pair.xoar))
            step.advance()
            total, part = boot_stock(pair.stock.launch(CONFIG))
            stock.append(total)
            unpacking.append(part)
            step.advance()
    rest = [total - part for total, part in zip(stock, unpacking, strict=True)]
    return [
        Row("emulator's start to the first guest's login", xoar, stock),
        Row("the same, stock without unpacking domain 0's kernel", xoar, rest),
    ]


def boot_xoar(launch: Launch) -> float:
    """Seconds, with all that an operator's command does: connecting, asking for the guest, reading a log."""
    with hosts.running(XOAR, launch) as (host, started):
        keeper.wait_running(host, up.START_TIMEOUT)
        with Client.connect(host.name) as client:
            domid = guests.create(client, CONFIG, GUEST)
            read_until_login(client.log(domid, follow=True))
            return hosts.now() - started


def read_until_login(stream: Stream) -> None:
    """Waits for the login in a guest's log. Raises HostError."""
    seen = b""
    while _LOGIN.encode() not in seen:
        data = stream.read(hosts.LONG)
        if not data:
            raise HostError(f"{stream.what} ended or was silent without {_LOGIN!r}")
        seen = seen[-len(_LOGIN) :] + data


def boot_stock(launch: Launch) -> tuple[float, float]:
    """Seconds to the login, and how many of them Xen took to unpack domain 0's kernel."""
    with hosts.running(STOCK, launch) as (host, started):
        return stock_login(host, started)


def stock_login(host: Host, started: float) -> tuple[float, float]:
    """The same for a stock host that was started then (`hosts.now`)."""
    log = hosts.Log(host)
    unpacking = log.until(_UNPACKING)
    unpacked = log.until(_UNPACKED)
    return log.until(_LOGIN) - started, unpacked - unpacking
