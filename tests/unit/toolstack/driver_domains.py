"""A host with a NetBack and a BlkBack: PCIBack, agents and kernels that do what they should, or not."""

from __future__ import annotations

from typing import Any

from toolstack_host import Host

from xoar.xenstore.client import Client
from xoar.xenstore.errors import Refused

PCIBACK, NET, BLK = 5, 6, 7
USUAL = {"net0": NET, "disk0": BLK}
KINDS = {"n": "netback", "d": "blkback"}


class DriverHost(Host):
    """`domids` are those of its driver domains, whose names begin as their kinds do in KINDS. `claims` are
    the ones that PCIBack claims a device for, `ready` those whose agents start; `stubborn` guests don't let
    go of devices; `refuse` has texts by volume or network."""

    def __init__(
        self,
        start: bool = True,
        domids: dict[str, int] = USUAL,
        unassigned: tuple[str, ...] = (),
        words: dict[str, list[str]] | None = None,
    ) -> None:
        devices = {name: 0 if name in unassigned else 8 * (domid - 3) for name, domid in domids.items()}
        drivers = [f"{name}:{KINDS[name[0]]}:{domid}:{devices[name]}" for name, domid in domids.items()]
        super().__init__({"driver": drivers, "pciback": [str(PCIBACK)], **(words or {})})
        self.fake.late = {"pciback": PCIBACK, **domids}
        self.fake.next_domid = 32
        self.fake.devices = {name: bdf for name, bdf in devices.items() if bdf}
        self.asked = False
        self.claims = set(domids)
        self.ready = set(domids.values())
        self.stubborn: set[int] = set()
        self.refuse: dict[str, str] = {}
        self.claimed: set[str] = set()
        self.clients: dict[int, Client] = {}
        self.connects = True
        self.surveys = 0  # how often PCIBack has told of devices
        self.tells = True
        if start:
            self.run()

    def neighbours(self) -> None:
        if self.fake.built.get(PCIBACK) != "running":
            self.claimed = set()
            self.asked = False
        elif self.tells and not self.asked:
            self.asked = True
            self.surveys += 1
            self.fake.channel.send("surveyed", 0)
        for name in sorted((self.claims & set(self.fake.devices)) - self.claimed):
            if self.fake.built.get(PCIBACK) == "running" and self.fake.late[name] not in self.fake.built:
                self.device(name, "claimed")
        for domid in self.fake.late.values():
            if self.fake.built.get(domid) == "running" and domid in self.ready:
                self.serve(domid)

    def device(self, name: str, state: str, text: str = "") -> None:
        self.claimed.add(name)
        self.fake.channel.send("device", 0, driver=name, state=state, text=text)

    def client(self, domid: int) -> Client:
        if domid not in self.clients:
            self.clients[domid] = self.as_domain(domid)
        return self.clients[domid]

    def read(self, path: str, domid: int = 99) -> str | None:
        try:
            return self.client(domid).read(path).decode()
        except Refused:
            return None

    def serve(self, domid: int) -> None:
        """The agent and the kernel of a driver domain."""
        client, home = self.client(domid), f"/local/domain/{domid}"
        if self.read(f"{home}/service/state", domid) is None:
            client.write(f"{home}/service/state", "ready")
        for kind in ("vif", "vbd"):
            for guest in self.below(client, f"{home}/backend/{kind}"):
                for number in self.below(client, f"{home}/backend/{kind}/{guest}"):
                    self.backend(client, f"{home}/backend/{kind}/{guest}/{number}", int(guest))

    def below(self, client: Client, path: str) -> list[str]:
        return client.directory(path) if client.exists(path) else []

    def backend(self, client: Client, path: str, guest: int) -> None:
        state = client.read(path + "/state") if client.exists(path + "/state") else b""
        if state not in (b"1", b"2", b"5"):
            return
        if state == b"1":  # one that is closed may never have been whole
            name = client.read(path + ("/params" if "/vbd/" in path else "/network")).decode()
            front = client.read(path + "/frontend").decode()
            if name in self.refuse:
                client.write(path + "/hotplug-error", self.refuse[name])
                client.write(path + "/hotplug-status", "error")
                return
            assert client.read(front + "/state") == b"1", "the frontend has no state yet"
            client.write(path + "/hotplug-status", "connected")
            client.write(path + "/state", "2")
        elif state == b"2" and self.connects and self.fake.domains.get(guest) == "running":
            client.write(path + "/state", "4")
        elif state == b"5" and client.read(path + "/online") == b"0" and guest not in self.stubborn:
            client.write(path + "/state", "6")

    def network(self, name: str = "lan", **changes: Any) -> dict[str, Any]:
        fields = {
            "name": name, "driver": "net0", "mode": "bridge", "vlan": 0, "subnet": "", "forwards": [],
            "state": "",
        }  # fmt: skip
        return {"network": tuple({**fields, **changes}.values())}

    def lan(self) -> None:
        assert self.ask("network_create", **self.network()).kind == "done"

    def drivers(self) -> dict[str, tuple[str, str]]:
        rows = self.ask("driver_list", start=0).fields.drivers
        return {row.name: (row.state, row.note) for row in rows}

    def show(self, name: str = "web") -> Any:
        return self.ask("guest_show", name=name).fields

    def nothing_of_guests_is_left(self) -> bool:
        guests = [path for path in self.tree() if "/backend/v" in path and path.count("/") > 5]
        homes = [path for path in self.tree() if path.startswith(("/local/domain/3", "/vm"))]
        return not self.fake.domains and not self.guests.all and not guests and not homes


def disk(device: str = "xvda", volume: str = "root", driver: str = "disk0", mode: str = "w") -> Any:
    return (device, driver, volume, mode)


def nic(network: str = "lan", mac: int = 1, address: str = "", rate_kib: int = 0) -> Any:
    return (network, bytes([0, 0x16, 0x3E, 0, 0, mac]), address, rate_kib)
