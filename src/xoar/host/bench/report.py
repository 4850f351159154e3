"""The figures of a benchmark and what they were measured on. Only ratios mean something elsewhere."""

from __future__ import annotations

import datetime
import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of every run, in order. Neither list is empty."""

    what: str
    xoar: list[float]
    stock: list[float]

    @property
    def ratio(self) -> float:
        """Median of Xoar over median of stock: below 1 Xoar is faster."""
        return statistics.median(self.xoar) / statistics.median(self.stock)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "what": self.what,
            "xoar": _series(self.xoar),
            "stock": _series(self.stock),
            "ratio": round(self.ratio, 3),
            "times_as_fast": round(1 / self.ratio, 2),
        }


def _series(seconds: list[float]) -> dict[str, object]:
    return {
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "runs_s": [round(value, 3) for value in seconds],
    }


def spread(seconds: list[float]) -> str:
    """Median and range as people read them."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


@dataclass(frozen=True)
class Report:
    """All of a run; `machine` are names and values, in words."""

    rows: list[Row]
    machine: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"rows": [row.as_dict() for row in self.rows], "machine": self.machine}


def this_machine() -> dict[str, str]:
    """The machine that runs the emulator; asked before a benchmark starts, `load` tells if others use it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{len(os.sched_getaffinity(0))} x {found[1] if found else 'unknown'}",
        "load": f"{os.getloadavg()[0]:.2f} in the minute before",
    }
