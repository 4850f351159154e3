"""Progress of long work on standard error: what, how far, how long.

On a terminal a live bar per step (rich); elsewhere one plain line when a step begins, one every
`EVERY` seconds and one when it ends, so that a CI log shows life without being flooded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

EVERY = 10.0  # seconds between two plain lines of one step


def duration(seconds: float) -> str:
    """Seconds as people write them: "8 s", "1 min 15 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


class Step:
    """One piece of work; `done` of `total` units (total 0: unknown)."""

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self.started = time.monotonic()

    def advance(self, units: int = 1) -> None:
        self.at(self.done + units)

    def at(self, done: int) -> None:
        """Set how far the work is; more than the total counts as all of it."""
        self.done = min(done, self.total) if self.total else done
        self._show()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def _show(self) -> None:
        pass


class _PlainStep(Step):
    def __init__(self, what: str, total: int, out: TextIO) -> None:
        super().__init__(what, total)
        self._out = out
        self._last_shown = self.started
        print(f"xoar: {what} ...", file=out, flush=True)

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last_shown >= EVERY:
            self._last_shown = now
            share = f"{100 * self.done // self.total} %, " if self.total else ""
            print(f"xoar: {self.what}: {share}{duration(self.elapsed)}", file=self._out, flush=True)


class _LiveStep(Step):
    def __init__(self, what: str, total: int, bars: Progress) -> None:
        super().__init__(what, total)
        self._bars = bars
        self._task = bars.add_task(what, total=total or None)

    def _show(self) -> None:
        self._bars.update(self._task, completed=self.done)


class Reporter:
    """Shows the steps of one command. Steps may run at the same time in several threads."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stderr
        self._bars: Progress | None = None
        self._steps = 0
        if self._out.isatty():
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=Console(file=self._out),
                transient=True,
            )

    @contextmanager
    def step(self, what: str, total: int = 0) -> Iterator[Step]:
        """Show a step while the block runs. `total` counts units of work; 0 if it can't be known."""
        step: Step
        if self._bars is None:
            step = _PlainStep(what, total, self._out)
        else:
            if self._steps == 0:
                self._bars.start()
            self._steps += 1
            step = _LiveStep(what, total, self._bars)
        outcome = "failed after"
        try:
            yield step
            outcome = "done in"
        finally:
            if self._bars is not None and isinstance(step, _LiveStep):
                self._bars.remove_task(step._task)
                self._steps -= 1
                if self._steps == 0:
                    self._bars.stop()
            self.say(f"{what}: {outcome} {duration(step.elapsed)}")

    def say(self, line: str) -> None:
        """A line that stays on the screen."""
        if self._bars is not None and self._steps:
            self._bars.console.print(f"xoar: {line}", markup=False, highlight=False)
        else:
            print(f"xoar: {line}", file=self._out, flush=True)
