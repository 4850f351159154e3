"""The files that `xoar bench devices --save` writes."""

import json
import xml.etree.ElementTree as xml

from hypothesis import given
from hypothesis import strategies as st

from xoar.host.bench import saved
from xoar.host.bench.report import Report, Row

FIGURES = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=5)
ROWS = st.lists(st.builds(Row, st.text("ab <&\"'", max_size=9), FIGURES, FIGURES), max_size=4)


def test_all_three_files_are_there_and_old_ones_replaced(tmp_path):
    folder = tmp_path / "new"
    for median in (1.0, 2.0):
        report = Report([Row("login", [median], [4.0])], {"cpu": "one"})
        saved.save(report, folder, "devices", "xoar bench devices")
    assert json.loads((folder / "devices.json").read_text())["rows"][0]["ratio"] == 0.5
    table = (folder / "devices.md").read_text()
    assert "| login | 2.00 s | 4.00 s | 0.50 | 2.00 |" in table
    assert "`xoar bench devices`" in table and "- cpu: one" in table
    assert (folder / "devices.svg").is_file()


@given(ROWS)
def test_the_plot_is_xml_with_every_row_and_bars_inside(rows):
    root = xml.fromstring(saved.plot(rows))
    width = int(root.attrib["viewBox"].split()[2])
    texts = [element.text or "" for element in root if element.tag.endswith("text")]
    assert [row.what for row in rows] == texts[1::2]
    for bar in (element for element in root if element.tag.endswith("rect")):
        assert 0 <= float(bar.get("x", "0")) + float(bar.attrib["width"]) <= width
