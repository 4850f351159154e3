"""What the Toolstacks have declared, kept up to date by watches.

Networks are the host's. A vif may be a tenant's: then its node belongs to that tenant's Toolstack, and all
below it is what a hostile one may have written, hides, or changes all the time.
"""

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
from xoar.netback.parties import HOST, NOBODY, Party, tenant
from xoar.xenstore import tenants
from xoar.xenstore.linux import Connection

NETWORKS = "networks"
VIFS = "backend/vif"
# read along: whether the device is whole, and what others make of our report
_STATE = "state"
_STATUS = ("hotplug-status", "hotplug-error")
_LEAVES = (*VIF_NODES, *_STATUS, _STATE)
_EVENTS = 1000  # that are taken at once


Status = tuple[str, str]
"""hotplug-status and hotplug-error of a vif, "" if there is none."""


class _Device:
    """A vif's nodes as they were read last, and the domain that owns it; None: not read yet."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.nodes = nodes
        self.owner: int | None = None


class Records:
    """Networks and vifs that make sense, and what is wrong with the others."""

    def __init__(self, store: Connection) -> None:
        self.networks: dict[str, Network] = {}
        self.network_faults: dict[str, str] = {}
        self.vifs: dict[Place, Vif] = {}
        """Who has been as it is for longest comes first."""
        self.vif_faults: dict[Place, str] = {}
        self.statuses: dict[Place, Status] = {}
        """hotplug-status and hotplug-error of each vif, "" if there is none."""
        self.owners: dict[Place, Party] = {}
        """Whose each vif is, if somebody's who is served here."""
        self.tenants: dict[int, Party] = {}
        """By the domid of the Toolstack."""
        self.remade: set[str] = set()
        """The `base` of tenants whose nodes may have been made anew; for who writes there to take back."""
        self._store = store
        # a request takes long on a busy host: what is there is read once, then what has changed
        self._devices: dict[Place, _Device] = {}
        self._host: int | None = None
        for path in (NETWORKS, VIFS, tenants.TENANTS):
            store.watch(path, path)
        # at once: what an agent before this one has made is measured by what is declared
        for name in tenants.children(store, NETWORKS):
            self._read_network(name)
        for domid in tenants.found(store):
            self._read_tenant(domid)
        for place in self._all_vifs():
            self._read_vif(place, {""})

    def parties(self) -> list[Party]:
        """All that are served."""
        return [HOST, *self.tenants.values()]

    def take_changes(self) -> bool:
        """Reads anew what watches say has changed; whether anything is to be planned anew."""
        networks: set[str] = set()
        vifs: dict[Place, set[str]] = {}  # "": all that there is of it
        changed: set[int] = set()
        for _ in range(_EVENTS):
            event = self._store.next_event(0)
            if event is None:
                break
            path, token = event
            words = path.removeprefix(token).split("/")[1:]
            if token == NETWORKS:
                networks.update(words[:1] or self._all_networks())
            elif token == tenants.TENANTS:
                changed.update(self._tenants_of(words))
            elif len(words) < 2:
                vifs.update((place, {""}) for place in self._all_vifs())
            elif len(words) == 2 or words[2] in _LEAVES:
                place = parse_place(words[0], words[1])
                if place is not None:
                    vifs.setdefault(place, set()).add(words[2] if len(words) > 2 else "")
        before = self._declared()
        for name in networks:
            self._read_network(name)
        for domid in changed:
            self._read_tenant(domid)
        if changed:
            for place in self._all_vifs():
                vifs.setdefault(place, set())
        for place in sorted(vifs):
            self._read_vif(place, vifs[place])
        return before != self._declared()

    def _declared(self) -> tuple[object, ...]:
        return (
            dict(self.networks),
            dict(self.network_faults),
            # which is first counts
            list(self.vifs.items()),
            dict(self.vif_faults),
        )

    def _all_networks(self) -> list[str]:
        return [*self.networks, *self.network_faults, *tenants.children(self._store, NETWORKS)]

    def _all_vifs(self) -> list[Place]:
        places = [*self.vifs, *self.vif_faults]
        for guest in tenants.children(self._store, VIFS):
            for handle in tenants.children(self._store, f"{VIFS}/{guest}"):
                place = parse_place(guest, handle)
                places += [place] if place else []
        return places

    def _tenants_of(self, words: list[str]) -> list[int]:
        """The tenants that a change below their nodes concerns."""
        if not words:
            return [*self.tenants, *tenants.found(self._store)]
        domid = tenants.domid_of(words[0])
        said = len(words) > 2 and words[1] != NETWORKS  # by us, or requests that nobody serves here
        return [] if domid is None or said else [domid]

    def _read_tenant(self, domid: int) -> None:
        self.remade.add(f"{tenants.base(domid)}/")
        party = tenant(self._store, domid)
        if party is None:
            self.tenants.pop(domid, None)
        else:
            self.tenants[domid] = party

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

    def _read_vif(self, place: Place, leaves: set[str]) -> None:
        """Judges a vif of which these nodes have changed ("": perhaps all)."""
        for record in (self.owners, self.vif_faults, self.statuses):
            record.pop(place, None)
        nodes = self._vif_nodes(place, leaves)
        vif = None
        if _STATE in nodes:
            self.statuses[place] = (nodes.get(_STATUS[0], ""), nodes.get(_STATUS[1], ""))
            try:
                vif = self._own(parse_vif(place, nodes))
            except Malformed as error:
                self.vif_faults[place] = str(error)
        if vif != self.vifs.get(place):
            self.vifs.pop(place, None)
            if vif is not None:
                self.vifs[place] = vif

    def _own(self, vif: Vif) -> Vif:
        """The vif itself, whose party is in `owners` then. Raises Malformed if it may not use its network."""
        device = self._devices[vif.place]
        if device.owner is None:
            device.owner = tenants.owner(self._store, vif_path(vif.place))
        party = self._party(device.owner)
        if party is None:
            raise Malformed(NOBODY)
        self.owners[vif.place] = party
        if not party.may_use(vif.network):
            raise Malformed(f"network {vif.network} is not delegated to {party.tenant}")
        return vif

    def _party(self, domid: int | None) -> Party | None:
        """Whom a Toolstack speaks for."""
        if domid is None:
            return None
        if self._host is None:
            self._host = tenants.owner(self._store, tenants.SERVICE)
        return HOST if domid == self._host else self.tenants.get(domid)

    def _vif_nodes(self, place: Place, leaves: set[str]) -> dict[str, str]:
        """What there is of a vif, of which these nodes have changed."""
        path, known = vif_path(place), self._devices.get(place)
        if known is None or "" in leaves:
            nodes = self._nodes(path, _LEAVES)
            if nodes:
                self._devices[place] = _Device(nodes)
            else:
                self._devices.pop(place, None)
            return nodes
        for leaf in leaves:
            value = tenants.value(self._store, f"{path}/{leaf}")
            if value is None:
                known.nodes.pop(leaf, None)
            else:
                known.nodes[leaf] = value
        return known.nodes

    def _nodes(self, path: str, wanted: tuple[str, ...]) -> dict[str, str]:
        """The values of those children that there are; one that can't be read is as good as empty."""
        there = set(tenants.children(self._store, path))
        return {name: tenants.text(self._store, f"{path}/{name}") for name in wanted if name in there}


def vif_path(place: Place) -> str:
    """A vif's backend node."""
    return f"{VIFS}/{place[0]}/{place[1]}"
