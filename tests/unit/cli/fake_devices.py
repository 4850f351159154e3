"""The devices of a `FakeHost`: driver domains, networks, volumes, whose contents go over exchange disks."""

from __future__ import annotations

import hashlib
from typing import Any

from xoar.host import disks
from xoar.host.state import Host
from xoar.messages.errors import EBUSY, EEXIST, ENOENT
from xoar.messages.records import DRIVER, NETWORK, PLUGGED_DISK, PLUGGED_NIC, POOL, VOLUME

VOLUME_KEYS = ("size_kib", "used_kib", "origin", "users", "state")


class Refusal(Exception):
    """The answer is an error: number and text."""


class FakeDevices:
    """Answers requests about devices. Attributes may be changed by tests."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.drivers: dict[str, Any] = {}
        self.networks: dict[str, Any] = {}
        self.volumes: dict[tuple[str, str], dict[str, Any]] = {}
        self.contents: dict[tuple[str, str], bytes] = {}
        self.refused: dict[str, str] = {}  # driver domains that refuse every change, and why

    def add_driver(self, name: str, kind: str, state: str = "ready", note: str = "") -> None:
        domid = 20 + len(self.drivers)  # the fake's guests have 5 and up
        self.drivers[name] = DRIVER.value(name, kind, domid, 0x0300, state, 0, 9000, note)
        if kind == "blkback":
            files = disks.of(self.host, name)
            files.exchange.parent.mkdir(parents=True, exist_ok=True)
            files.exchange.write_bytes(disks.EXCHANGE_MAGIC)

    def add_volume(self, driver: str, name: str, size_kib: int, **fields: Any) -> None:
        self.volumes[driver, name] = {
            "size_kib": size_kib, "used_kib": 0, "origin": "", "users": "", "state": "ok", **fields
        }  # fmt: skip
        self.contents[driver, name] = b""

    def plugged(self, guest: dict[str, Any]) -> dict[str, Any]:
        """The devices of a guest as the message `guest` has them."""
        nics = [
            PLUGGED_NIC.value(*nic, index, self._driver_of(nic.network), "connected", "10.0.2.15", "")
            for index, nic in enumerate(guest["nics"])
        ]
        return {"disks": [PLUGGED_DISK.value(*d, "connected", "") for d in guest["disks"]], "nics": nics}

    def _driver_of(self, network: str) -> str:
        return self.networks[network].driver if network in self.networks else ""

    def reply(self, kind: str, fields: Any, guests: dict[str, dict[str, Any]]) -> tuple[str, Any] | None:
        """(kind, fields) of the answer; a list of records for kinds that come in pages."""
        if kind == "driver_list":
            return "drivers", list(self.drivers.values())
        if kind == "network_list":
            return "networks", list(self.networks.values())
        if kind == "volume_list":
            return "volumes", [
                VOLUME.value(name, driver, *(values[key] for key in VOLUME_KEYS))
                for (driver, name), values in sorted(self.volumes.items())
            ]
        method = getattr(self, f"_{kind}", None)
        if method is None:
            return None
        if "guest" in fields._fields:
            if fields.guest not in guests:
                raise Refusal(ENOENT, f"there is no guest {fields.guest}")
            method(guests[fields.guest], fields)
            return "done", {}
        answer = method(fields)
        return answer if answer is not None else ("done", {})

    def pools(self) -> list[Any]:
        return [
            POOL.value(name, 16 << 20, 1 << 20) for name, d in self.drivers.items() if d.kind == "blkback"
        ]

    def _driver_assign(self, fields: Any) -> None:
        driver = self.drivers.get(fields.name)
        if driver is None:
            raise Refusal(ENOENT, f"there is no driver domain {fields.name}")
        if driver.device:
            raise Refusal(EBUSY, f"{fields.name} has a device")
        self.drivers[fields.name] = driver._replace(device=fields.bdf, state="ready")

    def _driver_withdraw(self, fields: Any) -> None:
        if fields.name not in self.drivers:
            raise Refusal(ENOENT, f"there is no driver domain {fields.name}")
        driver = self.drivers[fields.name]
        self.drivers[fields.name] = driver._replace(device=0, state="unassigned")

    def _device_show(self, fields: Any) -> tuple[str, Any]:
        owners = {driver.device: name for name, driver in self.drivers.items()}
        rows = [(bdf, 0x020000, 0x8086, 0x10D3, owners.get(bdf, "")) for bdf in (0x100, 0x200, 0x300)]
        page = rows[fields.start : fields.start + 2]
        return "device_list", {"more": int(fields.start + 2 < len(rows)), "devices": page}

    def _driver_restart(self, fields: Any) -> None:
        if fields.name not in self.drivers:
            raise Refusal(ENOENT, f"there is no driver domain {fields.name}")
        driver = self.drivers[fields.name]
        self.drivers[fields.name] = driver._replace(restarts=driver.restarts + 1)

    def _network_create(self, fields: Any) -> None:
        if fields.network.name in self.networks:
            raise Refusal(EEXIST, f"there is a network {fields.network.name} already")
        self.networks[fields.network.name] = NETWORK.value(*fields.network[:-1], "up")

    def _network_delete(self, fields: Any) -> None:
        if fields.name not in self.networks:
            raise Refusal(ENOENT, f"there is no network {fields.name}")
        del self.networks[fields.name]

    def _volume_progress(self, fields: Any) -> tuple[str, Any]:
        return "progress", {"percent": 50}

    def _volume_change(self, fields: Any) -> tuple[str, Any]:
        if fields.driver in self.refused:
            raise Refusal(EBUSY, self.refused[fields.driver])
        key = (fields.driver, fields.name)
        exchange = disks.of(self.host, fields.driver).exchange
        if fields.action in ("create", "clone", "import") and key in self.volumes:
            raise Refusal(EEXIST, f"there is a volume {fields.name} already")
        if fields.action in ("grow", "delete", "export") and key not in self.volumes:
            raise Refusal(ENOENT, f"there is no volume {fields.name}")
        length, sha256 = 0, bytes(32)
        if fields.action == "create":
            self.add_volume(*key, fields.size_kib)
        elif fields.action == "clone":
            source = (fields.driver, fields.source)
            self.add_volume(*key, self.volumes[source]["size_kib"], origin=fields.source)
            self.contents[key] = self.contents[source]
        elif fields.action == "grow":
            self.volumes[key]["size_kib"] = fields.size_kib
        elif fields.action == "delete":
            if self.volumes[key]["users"]:
                raise Refusal(EBUSY, f"volume {fields.name} is in use")
            del self.volumes[key]
        elif fields.action == "import":
            with open(exchange, "rb") as file:
                file.seek(fields.offset)
                data = file.read(fields.length)
            assert hashlib.sha256(data).digest() == fields.sha256
            self.add_volume(*key, fields.size_kib)
            self.contents[key] = data
        else:
            data = self.contents[key]
            with open(exchange, "r+b") as file:
                file.seek(fields.offset)
                file.write(data)
            length, sha256 = len(data), hashlib.sha256(data).digest()
        return "volume_changed", {"length": length, "sha256": sha256}

    def _disk_attach(self, guest: dict[str, Any], fields: Any) -> None:
        guest["disks"].append(fields.disk)

    def _disk_detach(self, guest: dict[str, Any], fields: Any) -> None:
        kept = [disk for disk in guest["disks"] if disk.device != fields.device]
        if len(kept) == len(guest["disks"]):
            raise Refusal(ENOENT, f"there is no disk {fields.device}")
        guest["disks"] = kept

    def _nic_attach(self, guest: dict[str, Any], fields: Any) -> None:
        guest["nics"].append(fields.nic)

    def _nic_detach(self, guest: dict[str, Any], fields: Any) -> None:
        del guest["nics"][fields.handle]
