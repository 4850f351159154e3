"""Where a party's requests come in and go out answered, and what else BlkBack says to it.

What comes in may be a hostile tenant's: a look takes a few requests and leaves the rest. What XenStore
refuses is left out, since a tenant that is withdrawn loses its nodes at any moment.
"""

import errno

from xoar.blkback.errors import RequestError
from xoar.blkback.parties import Party
from xoar.blkback.requests import Request, parse
from xoar.xenstore import tenants
from xoar.xenstore.errors import Refused
from xoar.xenstore.linux import Connection
from xoar.xenstore.paths import node_of

_TEXT_MAX = 128
_ID_MAX = 0xFFFFFFFF
_TABLES = ("volumes", tenants.TENANTS)
_KEPT = 4  # times what may wait: so many requests are looked at until some are removed


class Desk:
    """One party's. `dirty` is set by who hears that there are new requests."""

    def __init__(self, store: Connection, party: Party) -> None:
        self.party = party
        self.dirty = True
        self.waiting: list[str] = []
        self._store = store
        self._known: set[str] = set()
        self._shown: dict[str, str] = {}
        self._unsaid: set[str] = set()

    def open(self) -> None:
        """Takes over what an agent before this one has answered."""
        for table in _TABLES:
            self._take_back(table)
        for number in tenants.children(self._store, self._said("replies")):
            self._known.add(number)
            if tenants.text(self._store, self._said(f"replies/{number}")).startswith("progress"):
                self.reply(number, f"error {errno.EINTR} interrupted: BlkBack was restarted")

    @property
    def title(self) -> str:
        """How logs name the party."""
        return self.party.tenant or "host"

    @property
    def wiped(self) -> bool:
        """Whether what was said here has been removed."""
        state = self._shown.get("state", "")
        return bool(state) and tenants.text(self._store, self._said("state")) != state

    # requests

    def look(self) -> None:
        """Finds new requests, and takes back the replies of those that are gone."""
        self.dirty = False
        numbers = [
            number
            for number in tenants.children(self._store, f"{self.party.base}requests")
            if tenants.number(number, _ID_MAX) is not None
        ]
        for number in self._known.difference(numbers):
            self._take_back(f"replies/{number}")
        self._known.intersection_update(numbers)
        self.waiting = [number for number in self.waiting if number in self._known]
        for number in sorted(set(numbers) - self._known, key=int):
            if len(self._known) >= _KEPT * self.party.waiting:
                break
            self._known.add(number)
            if len(self.waiting) < self.party.waiting:
                self.waiting.append(number)
            else:
                self.reply(number, f"error {errno.EBUSY} {len(self.waiting)} requests wait already")

    def read(self, number: str) -> Request:
        """A request, in its party's names. Raises RequestError if it is none, or is gone."""
        return parse(tenants.text(self._store, f"{self.party.base}requests/{number}"))

    def reply(self, number: str, answer: str) -> None:
        """Answers a request, for now or for good, unless it is gone."""
        if number in self._known:
            self.show(f"replies/{number}", answer)

    # what else is said

    def show(self, path: str, value: str) -> None:
        """Has a value at a path below `service`."""
        if self._shown.get(path) != value:
            try:
                self._store.write(self._said(path), value)
            except Refused as error:
                # also at a quota: then the others are still told
                print(f"blkback: {self.title}: {path} can't be said: {error.name}", flush=True)
                self._unsaid.add(path)
            # once is enough in any case, until the nodes have changed
            self._shown[path] = value

    def try_again(self) -> None:
        """The party's nodes have changed: what was refused is shown anew."""
        for path in self._unsaid:
            self._shown.pop(path, None)
        self._unsaid.clear()

    def show_table(self, table: str, values: dict[str, str], kept: list[str]) -> None:
        """Has these values, by name, in a table and no others but those with the names `kept`."""
        there = {f"{table}/{node_of(name)}" for name in kept}
        for name, value in values.items():
            there.add(f"{table}/{node_of(name)}")
            self.show(f"{table}/{node_of(name)}", value)
        for path in [path for path in self._shown if path.startswith(f"{table}/") and path not in there]:
            self._take_back(path)

    def _take_back(self, path: str) -> None:
        self._shown.pop(path, None)
        try:
            self._store.rm(self._said(path))
        except Refused as error:
            print(f"blkback: {self.title}: {path} can't be removed: {error.name}", flush=True)

    def _said(self, path: str) -> str:
        return f"{self.party.base}{tenants.SERVICE}/{path}"


def refusal(error: RequestError) -> str:
    """The reply to a request that is refused or has failed."""
    return f"error {error.number} {line(error)}"


def line(text: object) -> str:
    """One line of printable ASCII."""
    words = "".join(letter if " " <= letter <= "~" else "?" for letter in str(text))
    return words[:_TEXT_MAX]
