"""Where something stands in a TOML file.

tomllib gives values without their lines, and a message about a manifest must name the line. This finds the
line of a table, of a key in it, and of a string in that key's value, by looking at the text. It knows the
subset that manifests are written in: `[table]` and `[[table]]` headers and `key = value` at a line's start.
For anything written otherwise (dotted keys, inline tables) it answers with the nearest line above.
"""

import re

_HEADER = re.compile(r"^\s*\[\[?\s*([A-Za-z0-9_.-]+)\s*\]\]?")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")


class TomlLines:
    """Lines of one file's text; tables are named as in their headers ("" is the part above the first)."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        # (table, how many of that name stood before it, its first line's index)
        self._tables: list[tuple[str, int, int]] = [("", 0, 0)]
        for index, line in enumerate(self._lines):
            if header := _HEADER.match(line):
                name = header[1]
                self._tables.append((name, sum(t[0] == name for t in self._tables), index))

    def has(self, name: str) -> bool:
        """Whether a table has a header of its own."""
        return any(table == name for table, _, _ in self._tables)

    def table(self, name: str, occurrence: int = 0) -> int:
        """Line number (from 1) of a table's header; of the `occurrence`th for an array of tables."""
        return self._span(name, occurrence)[0] + 1

    def key(self, table: str, key: str, occurrence: int = 0) -> int:
        """Line number of `key` in a table, or of [table.key], or of the table when neither is written."""
        start, end = self._span(table, occurrence)
        if found := self._key_span(start, end, key):
            return found[0] + 1
        inner = f"{table}.{key}" if table else key
        return next((index for name, _, index in self._tables if name == inner), start) + 1

    def value(self, table: str, key: str, value: str, occurrence: int = 0) -> int:
        """Line number of a quoted string inside the value of `key`, or of the key."""
        start, end = self._span(table, occurrence)
        if found := self._key_span(start, end, key):
            for index in range(*found):
                if f'"{value}"' in self._lines[index] or f"'{value}'" in self._lines[index]:
                    return index + 1
        return self.key(table, key, occurrence)

    def _span(self, name: str, occurrence: int) -> tuple[int, int]:
        for position, (table, before, start) in enumerate(self._tables):
            if (table, before) == (name, occurrence):
                following = self._tables[position + 1 :]
                return start, following[0][2] if following else len(self._lines)
        return 0, len(self._lines)

    def _key_span(self, start: int, end: int, key: str) -> tuple[int, int] | None:
        keys = [(index, match[1]) for index in range(start, end) if (match := _KEY.match(self._lines[index]))]
        for position, (index, name) in enumerate(keys):
            if name == key:
                return index, keys[position + 1][0] if position + 1 < len(keys) else end
        return None
