"""What the agent says in XenStore: to each party below its `service`, and of each vif if it is plugged
(docs/devices.md)."""

from collections.abc import Mapping

from xoar.netback.declared import Place, parse_place
from xoar.netback.records import Status, vif_path
from xoar.xenstore import tenants
from xoar.xenstore.linux import Connection

_MAX_TEXT = 250  # characters; what the Toolstack takes of a note


class Reports:
    """What is said to one party, whose nodes begin with `base`: writes what differs from what is there
    already, an earlier agent's words among it."""

    def __init__(self, store: Connection, base: str = "") -> None:
        self._store = store
        self._service = f"{base}{tenants.SERVICE}"
        self._said: dict[str, str] = {}
        for tree in ("networks", "addresses"):
            self._recall(tree)

    @property
    def wiped(self) -> bool:
        """Whether what was said has been removed."""
        said = self._said.get("state", "")
        return tenants.text(self._store, f"{self._service}/state") != said

    def addresses(self) -> dict[Place, str]:
        """The addresses of vifs that an earlier agent spoke of."""
        found = {}
        for path, text in self._said.items():
            tree, *words = path.split("/")
            place = parse_place(*words) if tree == "addresses" and len(words) == 2 else None
            if place is not None:
                found[place] = text
        return found

    def say(self, nodes: Mapping[str, str]) -> None:
        """Has these nodes below `service`, and no others. Raises Refused."""
        for path in [path for path in self._said if path not in nodes]:
            self._store.rm(f"{self._service}/{path}")
            parent = path.rpartition("/")[0]
            if "/" in parent and not any(other.startswith(f"{parent}/") for other in nodes):
                self._store.rm(f"{self._service}/{parent}")
            del self._said[path]
        for path, text in nodes.items():
            if self._said.get(path) != text:
                self._store.write(f"{self._service}/{path}", _line(text))
                self._said[path] = text

    def _recall(self, path: str) -> None:
        children = tenants.children(self._store, f"{self._service}/{path}")
        for name in children:
            self._recall(f"{path}/{name}")
        if not children and "/" in path:
            self._said[path] = tenants.text(self._store, f"{self._service}/{path}")


def report_vif(store: Connection, place: Place, said: Status, status: Status) -> None:
    """Sets hotplug-status and hotplug-error from what was said to what is to be said, unless the vif's node
    is gone. Raises Refused."""
    path = vif_path(place)
    nodes = [("hotplug-error", _line(status[1]))] if status[1] or said[1] else []
    nodes.append(("hotplug-status", status[0]))

    def body(transaction: int) -> None:
        if not store.exists(f"{path}/state", transaction):
            return  # a write would bring the device back
        for name, text in nodes:
            if text:
                store.write(f"{path}/{name}", text, transaction)
            else:
                store.rm(f"{path}/{name}", transaction)

    store.transaction(body)


def _line(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text[:_MAX_TEXT])
