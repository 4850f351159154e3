"""Calls that must not end a shard: a bug in serving one client is reported, and the shard goes on."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MAX_REPORTS = 20


class Guard:
    """`name` is the shard's. After 20 reports it is silent, so that a bug can't fill Xen's log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reports = _MAX_REPORTS

    def call(self, function: "Callable[..., Any]", *arguments: "Any") -> "Any":
        """What the function returns, or None if it raised."""
        try:
            return function(*arguments)
        except Exception as error:
            if self._reports:
                self._reports -= 1
                print("%s: bug: %s" % (self._name, repr(error)))
            return None
