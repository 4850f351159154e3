"""A guest's console driven by a script: lines from a pipe, sent one at a time when the guest shows a prompt.

The rules, as `xoar console --help` states them:
- The first line waits for a prompt: output whose end matches the pattern. A guest that is silent without one
  is sent Enter every 3 seconds, which makes a getty or a shell show its prompt again.
- Each further line, and the end, waits for the next prompt or for `quiet` seconds of silence.
- At a login prompt, before the first line, the user `login` is logged in, unless that line is that name.
- Everything must be done within `timeout` seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoar.cli.plain import Plain
from xoar.host.client import TimedOut
from xoar.host.errors import HostError

if TYPE_CHECKING:
    from xoar.host.client import Stream

PROMPT = r"(?:login: ?|Password: ?|[#$%>] ?)$"
_LOGIN = re.compile(r"login: ?$")
_PASSWORD = re.compile(r"Password: ?$")
_TAIL = 512  # bytes at the end of the output in which a prompt is looked for
_NUDGE = 3.0  # seconds of silence without a prompt after which Enter may bring one
_SETTLE = 0.3  # seconds of silence behind a prompt: more output means that it was none


@dataclass(frozen=True)
class Rules:
    """When lines are sent; see the module's text. Seconds."""

    prompt: re.Pattern[str]
    quiet: float
    timeout: float
    login: str = ""


class Dialogue:
    """One script on one console; `show` gets the guest's output, plain, from the script's first line on."""

    def __init__(self, console: Stream, history: bytes, rules: Rules, show: Callable[[bytes], None]) -> None:
        self._console = console
        self._rules = rules
        self._show = show
        self._plain = Plain()
        self._tail = self._plain.feed(history)[-_TAIL:]
        self._visible = False
        self._deadline = time.monotonic() + rules.timeout

    def run(self, lines: Iterable[bytes]) -> None:
        """Sends the lines (without line ends) and returns when the last one has been dealt with.

        Ends early if the guest does. Raises TimedOut, HostError if the connection is lost.
        """
        started = False
        for line in lines:
            if not started:
                self._start(line)
                self._visible = started = True
            if self._console.ended:
                return
            self._send(line)
            self._answer()

    def _start(self, first: bytes) -> None:
        while not self._wait(_NUDGE):
            if self._console.ended:
                raise HostError(f"{self._console.what}: the guest ended before it showed a prompt")
            self._send(b"")
        user = self._rules.login.encode()
        if user and user != first.strip() and self._at(_LOGIN):
            self._send(user)
            self._answer()
            if self._at(_PASSWORD) or self._at(_LOGIN):
                raise HostError(
                    f"{self._console.what}: {self._rules.login} can't log in without a password",
                    hint="Write the user's name and the password as the script's first two lines.",
                )

    def _answer(self) -> None:
        """Waits for the prompt behind a line's output, or for silence."""
        self._wait(self._rules.quiet)

    def _send(self, line: bytes) -> None:
        self._tail = b""
        self._console.write(line + b"\r")

    def _at(self, pattern: re.Pattern[str]) -> bool:
        return pattern.search(self._tail.decode("utf-8", errors="replace")) is not None

    def _wait(self, quiet: float) -> bool:
        """Takes output until it ends in a prompt (True), `quiet` seconds of silence, or the guest's end."""
        while not self._console.ended:
            at_prompt = self._at(self._rules.prompt)
            left = self._deadline - time.monotonic()
            if left <= 0:
                end = self._tail.decode("utf-8", errors="replace")
                raise TimedOut(
                    f"{self._console.what}: no prompt within {self._rules.timeout:g} s",
                    detail="\n".join(end.splitlines()[-5:]),
                    hint="Give it more time with --timeout, or describe the prompt with --wait.",
                )
            data = self._console.read(min(_SETTLE if at_prompt else quiet, left))
            if not data and (at_prompt or left > quiet):
                return at_prompt
            text = self._plain.feed(data)
            self._tail = (self._tail + text)[-_TAIL:]
            if self._visible:
                self._show(text)
        return False
