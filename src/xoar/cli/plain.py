"""What guests print, made fit for files and for an operator's terminal that is not connected to the guest."""

from __future__ import annotations

import re

# control sequences as in ECMA-48 (colours, cursor moves, queries), then all other control characters
_CONTROL = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]{0,32}[ -/]{0,2})?\Z")


class Plain:
    """Takes control sequences and all control characters but tab and line feed out of a guest's output.

    They are commands to the terminal. Queries matter most: busybox's shell asks where the cursor is, and a
    terminal that is shown this later types its answer into whatever reads from it then.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, untrusted_data: bytes) -> bytes:
        """The plain part of the next piece; an unfinished sequence at its end waits for the next one."""
        data = self._rest + untrusted_data
        unfinished = _UNFINISHED.search(data)
        end = unfinished.start() if unfinished else len(data)
        self._rest = data[end:]
        return _CONTROL.sub(b"", data[:end])
