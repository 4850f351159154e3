"""The figures of a benchmark and what they were measured on. Only ratios mean something elsewhere."""

from __future__ import annotations

import datetime
import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

SIDES = ("Xoar", "stock")
"""What is compared, unless a benchmark compares something else."""


@dataclass(frozen=True)
class Row:
    """One comparison: the figures of every run, in order, in `unit`. Neither list is empty.

    `xoar` and `stock` are the two sides, also where they are others (`Report.sides`)."""

    what: str
    xoar: list[float]
    stock: list[float]
    unit: str = "s"
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Median of Xoar over median of stock."""
        return statistics.median(self.xoar) / statistics.median(self.stock)

    @property
    def times_as_good(self) -> float:
        """Above 1 Xoar is better."""
        return self.ratio if self.more_is_better else 1 / self.ratio

    def as_dict(self, sides: tuple[str, str] = SIDES) -> dict[str, object]:
        """For JSON."""
        return {
            "what": self.what,
            "unit": self.unit,
            sides[0].lower(): _series(self.xoar),
            sides[1].lower(): _series(self.stock),
            "ratio": round(self.ratio, 3),
            "times_as_good": round(self.times_as_good, 2),
        }


def _series(values: list[float]) -> dict[str, object]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": [round(value, 3) for value in values],
    }


def spread(values: list[float], unit: str = "s") -> str:
    """Median and range as people read them."""
    digits = 2 if statistics.median(values) < 100 else 0
    median, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} {unit} ({least} to {most})" if len(values) > 1 else f"{median} {unit}"


@dataclass(frozen=True)
class Report:
    """All of a run; `machine` are names and values, in words, `sides` what the two are called."""

    rows: list[Row]
    machine: dict[str, str]
    sides: tuple[str, str] = SIDES

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"rows": [row.as_dict(self.sides) for row in self.rows], "machine": self.machine}


def this_machine() -> dict[str, str]:
    """The machine that runs the emulator; asked before a benchmark starts, `load` tells if others use it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{len(os.sched_getaffinity(0))} x {found[1] if found else 'unknown'}",
        "load": f"{os.getloadavg()[0]:.2f} in the minute before",
    }
