"""`xoar bench create`: how long a guest's creation takes in a booted host.

Xoar: from the request on the operator's line to its answer, when the guest runs. Stock: from before
`xl create` to its end with exit code 0, by lines that domain 0 writes to Xen's console. Both from outside.
"""

from __future__ import annotations

import time

from xoar.host import guests, keeper, up
from xoar.host.bench import hosts
from xoar.host.bench.pair import CONFIG, GUEST, STOCK, XOAR, Pair
from xoar.host.bench.report import Row
from xoar.host.client import BUILD_SECONDS, Client
from xoar.host.emulator import Launch
from xoar.host.progress import Reporter, Step


def run(pair: Pair, runs: int, show: Reporter) -> list[Row]:
    """Creates and destroys a guest `runs` times in one host of each kind. Raises HostError."""
    with show.step("creating guests, Xoar", runs) as step:
        xoar = create_xoar(pair.xoar, runs, step)
    with show.step("creating guests, stock", runs) as step:
        stock = create_stock(pair.stock.launch(CONFIG, runs), runs, step)
    return [Row("creating a guest", xoar, stock)]


def create_xoar(launch: Launch, runs: int, step: Step) -> list[float]:
    """Seconds of each."""
    times = []
    with hosts.running(XOAR, launch) as (host, _):
        keeper.wait_running(host, up.START_TIMEOUT)
        with Client.connect(host.name) as client:
            images = guests.library(client)
            for _ in range(runs):
                time.sleep(hosts.PAUSE)
                began = hosts.now()
                guests.create(client, CONFIG, GUEST, images)
                times.append(hosts.now() - began)
                client.request("guest_destroy", BUILD_SECONDS, name=GUEST.name)
                step.advance()
    return times


def create_stock(launch: Launch, runs: int, step: Step) -> list[float]:
    """Seconds of each."""
    times = []
    with hosts.running(STOCK, launch) as (host, _):
        log = hosts.Log(host)
        for number in range(1, runs + 1):
            began = log.until(f"bench: create {number}")
            times.append(log.until(f"bench: created {number}") - began)
            step.advance()
    return times
