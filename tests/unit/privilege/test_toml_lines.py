from hypothesis import given
from hypothesis import strategies as st

from xoar.privilege.toml_lines import TomlLines

NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta"])
TABLES = st.lists(st.tuples(NAMES, st.lists(NAMES, unique=True), st.booleans()))


@given(TABLES, st.lists(st.sampled_from(["", "# alpha = 1", "  "])))
def test_every_key_is_found_on_the_line_where_it_was_written(tables, filler):
    lines = [*filler]
    expected = []
    seen: dict[str, int] = {}
    for name, keys, is_array in tables:
        lines.append(f"[[{name}]]" if is_array else f"[{name}]")
        for key in keys:
            lines += filler
            lines.append(f'{key} = "x"')
            expected.append((name, key, seen.get(name, 0), len(lines)))
        seen[name] = seen.get(name, 0) + 1
    found = TomlLines("\n".join(lines))
    for name, key, occurrence, line in expected:
        assert found.key(name, key, occurrence) == line


def test_a_string_in_a_list_over_several_lines_is_found_on_its_line():
    lines = TomlLines('[a]\nfirst = "pause"\nlist = [\n  "stop",\n  "pause",\n]\nnext = 1')
    assert lines.value("a", "list", "pause") == 5


def test_a_key_that_is_not_there_is_reported_at_its_table():
    lines = TomlLines("x = 1\n[a]\ny = 1\n[b]\nz = 1")
    assert lines.key("b", "y") == 4
    assert lines.key("", "y") == 1


@given(st.text(), st.text(), st.text())
def test_any_text_gives_a_line_of_the_file(text, table, key):
    line = TomlLines(text).value(table, key, "value")
    assert 1 <= line <= max(1, len(text.splitlines()))
