"""The symbol table in Linux' image is found and read, or refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host.build import kallsyms
from xoar.host.build.kallsyms import Symbol
from xoar.host.errors import HostError

TEXT = 0xFFFFFFFF81000000
ALPHABET = "abcdefghijklmnopqrstuvwxyzABDRTVW_.0123456789"
TOKENS = {1: "init", 2: "init_", 3: "Tx", 200: "get_", 201: "_sta", 255: "0123"}

names = st.text(ALPHABET, min_size=1, max_size=300)
found = st.builds(
    Symbol,
    st.one_of(st.integers(0, 0x7FFFFFFF), st.integers(TEXT, TEXT + 0x7FFFFFFF)),
    st.sampled_from("ABDRTVWabdrtvw"),
    names,
)
tables = st.lists(found, min_size=1, max_size=30).map(sorted)


def aligned(part: bytes) -> bytes:
    return part + bytes(-len(part) % 8)


def encode(table: list[Symbol], before: bytes = b"", after: bytes = b"") -> bytes:
    """A kernel's image with that table, as scripts/kallsyms.c of Linux writes it."""
    tokens = [TOKENS.get(code, chr(code) if chr(code) in ALPHABET else "") for code in range(256)]
    longest = sorted((token for token in tokens if token), key=len, reverse=True)
    codes = {token: code for code, token in enumerate(tokens)}
    compressed, markers = b"", []
    for number, symbol in enumerate(table):
        if number % 256 == 0:
            markers.append(len(compressed))
        text, name = symbol.kind + symbol.name, b""
        while text:
            token = next(token for token in longest if text.startswith(token))
            name += bytes([codes[token]])
            text = text[len(token) :]
        short = len(name) < 128
        compressed += bytes([len(name)] if short else [len(name) & 0x7F | 0x80, len(name) >> 7]) + name
    index, strings = [], b""
    for token in tokens:
        index.append(len(strings))
        strings += token.encode() + b"\0"
    offsets = [s.address if s.address < TEXT else TEXT - 1 - s.address for s in table]
    parts = [
        before,
        struct.pack(f"<{len(table)}i", *offsets),
        struct.pack("<Q", TEXT),
        struct.pack("<I", len(table)),
        compressed,
        struct.pack(f"<{len(markers)}I", *markers),
        bytes(range(256)) * (3 * len(table) // 256) + bytes(3 * len(table) % 256),
        strings,
        struct.pack("<256H", *index),
        after,
    ]
    return b"".join(map(aligned, parts))


LARGE = encode([Symbol(TEXT + 16 * n, "T", f"function_{n}") for n in range(700)])


@given(tables, st.binary(max_size=200), st.binary(max_size=200))
def test_a_table_is_read_as_it_was_written(table: list[Symbol], before: bytes, after: bytes) -> None:
    assert kallsyms.symbols(encode(table, before, after), TEXT) == table


def test_names_are_marked_every_256_symbols() -> None:
    table = kallsyms.symbols(LARGE, TEXT)
    assert len(table) == 700 and table[699] == (TEXT + 16 * 699, "T", "function_699")


def test_what_only_looks_like_a_part_of_it_is_passed_over() -> None:
    digits = b"".join(b"%d\0" % digit for digit in range(10)) + bytes(2000)
    start = struct.pack("<QII", TEXT, 3, 0)
    table = [Symbol(TEXT, "T", "_text")]
    assert kallsyms.symbols(encode(table, digits + start + digits, digits + start), TEXT) == table


@given(st.integers(0, len(LARGE) - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_table_is_read_or_refused(at: int, damage: bytes, cut: bool) -> None:
    image = LARGE[:at] + damage + (b"" if cut else LARGE[at + len(damage) :])
    with contextlib.suppress(HostError):
        assert len(kallsyms.symbols(image, TEXT)) == 700


@given(st.binary(max_size=2000))
def test_an_image_without_table_is_refused(image: bytes) -> None:
    with pytest.raises(HostError, match="kallsyms"):
        kallsyms.symbols(image, TEXT)


def test_a_table_of_another_kernel_is_refused() -> None:
    with pytest.raises(HostError, match="not as Linux"):
        kallsyms.symbols(LARGE, TEXT + 0x1000000)


def test_a_symbol_ends_where_the_next_address_begins() -> None:
    table = [Symbol(8, "A", "cpu"), Symbol(16, "b", "a"), Symbol(16, "b", "same"), Symbol(24, "b", "z")]
    assert kallsyms.extent(table, "a") == kallsyms.extent(table, "same") == (16, 24)


@pytest.mark.parametrize(
    ("name", "why"), [("missing", "0 symbols"), ("twice", "2 symbols"), ("last", "last")]
)
def test_a_symbol_without_a_certain_extent_is_refused(name: str, why: str) -> None:
    table = [Symbol(8, "b", "twice"), Symbol(16, "b", "twice"), Symbol(24, "b", "last")]
    with pytest.raises(HostError, match=why):
        kallsyms.extent(table, name)
