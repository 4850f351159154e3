"""A report as files for the documentation: NAME.json, NAME.md with the table, NAME.svg with a plot."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from pathlib import Path

import msgspec

from xoar.host.bench.report import SIDES, Report, Row, spread
from xoar.host.errors import disk_errors

# pixels of the plot
_NAMES, _UNIT, _BAR, _GAP, _HEAD = 340, 150, 16, 10, 30
_MOST = 3.0  # times as good, where bars are cut off
_COLOURS = {True: "#2a7f62", False: "#b5533c"}  # better than the other side, worse
_TEXT = {"font-family": "sans-serif", "font-size": "12"}


def save(report: Report, folder: Path, name: str, command: str) -> None:
    """Writes the files, in place of old ones; `command` is what made them. Raises HostError."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        document = msgspec.json.format(msgspec.json.encode(report.as_dict()))
        (folder / f"{name}.json").write_bytes(document + b"\n")
        (folder / f"{name}.md").write_text(markdown(report, name, command))
        (folder / f"{name}.svg").write_text(plot(report.rows, report.sides[1]))


def markdown(report: Report, name: str, command: str) -> str:
    """The table, and what it was measured on."""
    ours, other = report.sides
    lines = [
        f"Made by `{command}`; every run is in `{name}.json`.",
        "",
        f"| median (range) | {ours} | {other} | {ours} / {other} | times as good |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(cells(row))} |" for row in report.rows),
        "",
        f"![times as good as {other}]({name}.svg)",
        "",
        *(f"- {fact}: {value}" for fact, value in report.machine.items()),
    ]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table, as people read it."""
    return (
        row.what,
        spread(row.xoar, row.unit),
        spread(row.stock, row.unit),
        f"{row.ratio:.2f}",
        f"{row.times_as_good:.2f}",
    )


def plot(rows: list[Row], other: str = SIDES[1]) -> str:
    """An SVG: for each row a bar as long as the first side is times as good, a line where the other is."""
    height = _HEAD + len(rows) * (_BAR + _GAP)
    width = _NAMES + round(_MOST * _UNIT) + 60
    about = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}"}
    root = xml.Element("svg", about | _TEXT)
    xml.SubElement(root, "rect", width=f"{width}", height=f"{height}", fill="white")
    _text(root, _NAMES + _UNIT, _HEAD - 14, f"1 = {other}; longer is better", "middle")
    for index, row in enumerate(rows):
        top = _HEAD + index * (_BAR + _GAP)
        length = min(row.times_as_good, _MOST) * _UNIT
        bar = {"x": f"{_NAMES}", "y": f"{top}", "width": f"{length:.1f}", "height": f"{_BAR}"}
        xml.SubElement(root, "rect", bar, fill=_COLOURS[row.times_as_good >= 1])
        _text(root, _NAMES - 8, top + 12, row.what, "end")
        _text(root, _NAMES + length + 6, top + 12, f"{row.times_as_good:.2f}", "start")
    line = {"x1": f"{_NAMES + _UNIT}", "x2": f"{_NAMES + _UNIT}", "y1": f"{_HEAD - 8}", "y2": f"{height}"}
    xml.SubElement(root, "line", line, stroke="black")
    return xml.tostring(root, encoding="unicode") + "\n"


def _text(root: xml.Element, x: float, y: float, text: str, anchor: str) -> None:
    element = xml.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    element.text = text
