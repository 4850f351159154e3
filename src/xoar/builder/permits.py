"""Optional rights, which manifests state and the policy has switches for: which are on.

Builder alone may turn these switches, and turns only those that the boot plan names.
"""

from xoar.builder.errors import ENOENT, BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.messages.codec import Message


class Permits:
    """`optional`: those of the boot plan, all off; `switch(boolean, on)` turns one of the policy's switches,
    or raises OSError."""

    def __init__(self, optional: "list[Any]", switch: "Callable[[str, bool], None]") -> None:
        self._optional = optional
        self._switch = switch
        self._on: "list[Any]" = []

    def change(self, shard: str, security_class: str, permission: str, on: bool) -> None:
        """Permits an optional right to all domains of a manifest, or withdraws it.

        Either may be so already. Raises BuildError(ENOENT) for a right that no manifest states as optional,
        OSError.
        """
        for entry in self._optional:
            if (entry.shard, entry.security_class, entry.permission) == (shard, security_class, permission):
                break
        else:
            text = "%s.%s is no optional right of %s" % (security_class, permission, shard)
            raise BuildError(ENOENT, text + "'s manifest")
        if on == (entry in self._on):
            return
        self._switch(entry.boolean, on)
        if on:
            self._on.append(entry)
        else:
            self._on.remove(entry)

    def remember(self) -> "list[tuple[str, dict[str, Any]]]":
        """Messages (kind, fields) with which `recall` makes this anew."""
        names = ("shard", "security_class", "permission", "on")
        return [
            (
                "remember_permit",
                dict(zip(names, (entry.shard, entry.security_class, entry.permission, 1))),
            )
            for entry in self._on
        ]

    def recall(self, message: "Message") -> bool:
        """Takes one of them back, whoever wrote it; whether it was one of these. The switch is turned again:
        it is what this says. BuildError, OSError as of `change`."""
        if message.kind != "remember_permit":
            return False
        fields = message.fields
        self.change(fields.shard, fields.security_class, fields.permission, True)
        return True

    def settle(self) -> None:
        """Turns off whatever is not permitted, in case that who had the last life turned it on."""
        for entry in self._optional:
            if entry not in self._on:
                self._switch(entry.boolean, False)

    def rows(self, start: int, most: int) -> "tuple[list[tuple[str, str, str, int]], bool]":
        """At most `most` rights from position `start` on, as the schema's `permit`; if there are more."""
        page = self._optional[start : start + most]
        rows = [
            (entry.shard, entry.security_class, entry.permission, int(entry in self._on)) for entry in page
        ]
        return rows, len(self._optional) > start + most
