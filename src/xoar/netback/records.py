"""What the Toolstack has declared, kept up to date by watches."""

from xoar.netback.declared import (
    NETWORK_NODES,
    VIF_NODES,
    Network,
    Place,
    Vif,
    parse_network,
    parse_place,
    parse_vif,
)
from xoar.netback.errors import Malformed
from xoar.xenstore.linux import Connection

NETWORKS = "networks"
VIFS = "backend/vif"
# read along: whether the device is whole, and what others make of our report
_STATE = "state"
_STATUS = ("hotplug-status", "hotplug-error")


class Records:
    """Networks and vifs that make sense, and what is wrong with the others."""

    def __init__(self, store: Connection) -> None:
        self.networks: dict[str, Network] = {}
        self.network_faults: dict[str, str] = {}
        self.vifs: dict[Place, Vif] = {}
        self.vif_faults: dict[Place, str] = {}
        self.statuses: dict[Place, tuple[str, str]] = {}
        """hotplug-status and hotplug-error of each vif, "" if there is none."""
        self._store = store
        store.watch(NETWORKS, NETWORKS)
        store.watch(VIFS, VIFS)
        # at once: what an agent before this one has made is measured by what is declared
        for name in store.children(NETWORKS):
            self._read_network(name)
        for place in self._all_vifs():
            self._read_vif(place)

    def take_changes(self) -> bool:
        """Reads anew what watches say has changed; whether there was anything."""
        networks: set[str] = set()
        vifs: set[Place] = set()
        while (event := self._store.next_event(0)) is not None:
            path, token = event
            words = path.removeprefix(token).split("/")[1:]
            if token == NETWORKS:
                networks.update(words[:1] or self._all_networks())
            elif len(words) < 2:
                vifs.update(self._all_vifs())
            elif len(words) == 2 or words[2] in (*VIF_NODES, *_STATUS, _STATE):
                place = parse_place(words[0], words[1])
                vifs.update([place] if place else [])
        for name in networks:
            self._read_network(name)
        for place in vifs:
            self._read_vif(place)
        return bool(networks or vifs)

    def _all_networks(self) -> list[str]:
        return [*self.networks, *self.network_faults, *self._store.children(NETWORKS)]

    def _all_vifs(self) -> list[Place]:
        places = [*self.vifs, *self.vif_faults]
        for guest in self._store.children(VIFS):
            for handle in self._store.children(f"{VIFS}/{guest}"):
                place = parse_place(guest, handle)
                places += [place] if place else []
        return places

    def _read_network(self, name: str) -> None:
        self.networks.pop(name, None)
        self.network_faults.pop(name, None)
        nodes = self._nodes(f"{NETWORKS}/{name}", NETWORK_NODES)
        if "mode" not in nodes:  # written last, so the network is not whole yet, or no more
            return
        try:
            self.networks[name] = parse_network(name, nodes)
        except Malformed as error:
            self.network_faults[name] = str(error)

    def _read_vif(self, place: Place) -> None:
        for record in (self.vifs, self.vif_faults, self.statuses):
            record.pop(place, None)
        nodes = self._nodes(vif_path(place), (*VIF_NODES, *_STATUS, _STATE))
        if _STATE not in nodes:
            return
        self.statuses[place] = (nodes.get(_STATUS[0], ""), nodes.get(_STATUS[1], ""))
        try:
            self.vifs[place] = parse_vif(place, nodes)
        except Malformed as error:
            self.vif_faults[place] = str(error)

    def _nodes(self, path: str, wanted: tuple[str, ...]) -> dict[str, str]:
        """The values of those children that there are; one that is not ASCII is as good as empty."""
        there = set(self._store.children(path))
        return {name: self._store.text(f"{path}/{name}") or "" for name in wanted if name in there}


def vif_path(place: Place) -> str:
    """A vif's backend node."""
    return f"{VIFS}/{place[0]}/{place[1]}"
